"""Activation functions."""

from __future__ import annotations

import math

from tallow.errors import ArgumentError, ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.precision import rounded, widened
from tallow.tensor import Tensor


@operation
def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Gaussian error linear unit, ``x · Φ(x)``.

    Args:
        x: any shape, floating point.
        approximate: ``"none"`` for the error function itself, ``"tanh"`` for the approximation by tanh.

    Returns:
        The shape and dtype of x; computed in float32.

    Source: Hendrycks and Gimpel 2016, "Gaussian error linear units".
    """
    y = widened(x)
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (y + 0.044715 * y * y * y)
        return rounded(0.5 * y * (1 + inner.tanh()), x)
    if approximate != "none":
        raise ArgumentError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    return rounded(0.5 * y * (1 + erf(y * math.sqrt(0.5))), x)


@operation
def erf(x: Tensor) -> Tensor:
    """The error function, to float32 rounding.

    Args:
        x: any shape, floating point.

    Returns:
        The shape and dtype of x.

    Source: Abramowitz and Stegun 7.1.6, the series of positive terms
    2/√π · exp(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1·3···(2n+1)); beyond |x| = 4 the result rounds to ±1.
    """
    y = x.astype("float64").clamp(-4.0, 4.0)
    term = y
    total = y
    for n in range(1, 80):
        term = term * (y * y) * (2 / (2 * n + 1))
        total = total + term
    return (total * (-(y * y)).exp() * (2 / math.sqrt(math.pi))).astype(x.dtype)


@operation
def silu(x: Tensor) -> Tensor:
    """Sigmoid-weighted linear unit, ``x · sigmoid(x)``, of any shape; computed in float32.

    Source: Elfwing, Uchibe and Doya 2017, "Sigmoid-weighted linear units".
    """
    y = widened(x)
    return rounded(y * sigmoid(y), x)


@operation
def sigmoid(x: Tensor) -> Tensor:
    """The logistic function ``1 / (1 + exp(−x))``, of any shape; computed in float32.

    Written as ``exp(min(x, 0)) / (1 + exp(−|x|))``, which neither overflows nor loses the small values.
    """
    y = widened(x)
    return rounded(y.clamp(max=0).exp() / (1 + (-y.abs()).exp()), x)


@operation
def relu(x: Tensor) -> Tensor:
    """``max(x, 0)``, of any shape."""
    return x.clamp(min=0)


@operation
def glu(gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
    """A gated linear unit: ``activation(gate) · up``, of one shape.

    Args:
        gate: any shape, floating point.
        up: of the same shape.
        activation: ``"silu"`` (SwiGLU), ``"gelu"`` or ``"gelu_tanh"`` (GEGLU), ``"relu"`` (ReGLU).

    Returns:
        The shape and dtype of gate; computed in float32.

    Raises:
        ShapeError: if the shapes differ.
        ArgumentError: for an activation that there is not.

    Source: Shazeer 2020, "GLU variants improve transformer".

    Examples:
        >>> gate, up = tl.asarray([-1.0, 2.0]), tl.asarray([10.0, 10.0])
        >>> tl.ops.glu(gate, up, "relu").tolist()
        [0.0, 20.0]
    """
    check_activation(activation)
    if gate.shape != up.shape:
        raise ShapeError(f"glu: gate of shape {gate.shape} and up of shape {up.shape} differ")
    return rounded(activate(widened(gate), activation) * widened(up), gate)


ACTIVATIONS = (None, "gelu", "gelu_tanh", "silu", "relu")
"""The activations that a fused operation can name."""


def check_activation(name: str | None) -> None:
    """Raise ArgumentError for an activation that there is not."""
    if name not in ACTIVATIONS:
        raise ArgumentError(f"no activation {name!r}; there are 'gelu', 'gelu_tanh', 'silu' and 'relu'")


def activate(x: Tensor, name: str | None) -> Tensor:
    """Apply the activation that a fused operation names: ``"gelu"``, ``"gelu_tanh"``, ``"silu"``, ``"relu"``, None."""
    check_activation(name)
    if name == "gelu":
        return gelu(x)
    if name == "gelu_tanh":
        return gelu(x, "tanh")
    if name == "silu":
        return silu(x)
    return x if name is None else relu(x)
