"""The affine map, the operation that models spend their time in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallow.errors import ShapeError
from tallow.ops.activation import activate, check_activation, glu
from tallow.ops.dispatch import operation
from tallow.ops.precision import rounded, widened
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from tallow.matrix.weight import Weight


@operation
def linear(
    x: Tensor,
    weight: Weight | Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(x @ weight.T + bias) · scale + residual``, in one pass.

    Args:
        x: (…, in), floating point.
        weight: (out, in), a Tensor or a packed ``Weight``.
        bias: (out,), or None.
        activation: ``"gelu"`` (exact), ``"gelu_tanh"``, ``"silu"``, ``"relu"`` or None.
        scale: (out,), by which features are multiplied, or None.
        residual: (…, out), added last, or None.

    Returns:
        (…, out), the dtype of x; products are summed in float32. An int8 ``Weight`` multiplies activations that are
        quantised row by row, so its result differs from this reference by their rounding.

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: for an activation that there is not.

    Examples:
        >>> x, weight = tl.asarray([[1.0, -2.0]]), tl.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> tl.ops.linear(x, weight).tolist()
        [[1.0, -2.0, -1.0]]
        >>> tl.ops.linear(x, weight, tl.asarray([0.0, 0.0, 3.0]), activation="relu").tolist()
        [[1.0, 0.0, 2.0]]
    """
    check_linear(x.shape, weight.shape, bias, scale, residual, activation)
    matrix = weight if isinstance(weight, Tensor) else weight.dequantize()
    y = widened(x) @ widened(matrix).T
    if bias is not None:
        y = y + widened(bias)
    y = activate(y, activation)
    if scale is not None:
        y = y * widened(scale)
    if residual is not None:
        y = y + widened(residual)
    return rounded(y, x)


@operation
def linear_glu(x: Tensor, weight: Weight | Tensor, activation: str = "silu") -> Tensor:
    """``activation(x @ gate.T) · (x @ up.T)``, the first half of a gated MLP.

    Args:
        x: (…, in), floating point.
        weight: (2 · out, in): the rows of ``gate``, then those of ``up``.
        activation: as for ``glu``.

    Returns:
        (…, out), the dtype of x.

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: for an activation that there is not.

    Source: Shazeer 2020, "GLU variants improve transformer".
    """
    y = linear(x, weight)
    out = y.shape[-1] // 2
    return glu(y.narrow(-1, 0, out), y.narrow(-1, out, out), activation)


def check_linear(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
    activation: str | None = None,
) -> None:
    """Raise ShapeError unless the operands of a linear map fit each other, ArgumentError for an unknown activation."""
    check_activation(activation)
    if len(weight) != 2 or not x or x[-1] != weight[1]:
        raise ShapeError(f"linear: x of shape {x} does not fit a weight of shape {weight}; expected (…, in), (out, in)")
    for name, vector in (("bias", bias), ("scale", scale)):
        if vector is not None and vector.shape != weight[:1]:
            raise ShapeError(f"linear: {name} of shape {vector.shape} does not fit a weight of shape {weight}")
    if residual is not None and residual.shape != (*x[:-1], weight[0]):
        raise ShapeError(f"linear: residual of shape {residual.shape}, expected {(*x[:-1], weight[0])}")
