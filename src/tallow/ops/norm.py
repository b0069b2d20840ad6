"""Layer norm, RMS norm and L2 normalisation."""

from __future__ import annotations

from tallow.errors import ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import axis_of
from tallow.ops.precision import rounded, widened
from tallow.tensor import Tensor


@operation
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise the last axis to mean 0 and variance 1, then scale and shift.

    Args:
        x: (…, n), floating point.
        weight: (n,)
        bias: (n,)
        eps: added to the variance.

    Returns:
        (…, n), the dtype of x; computed in float32.

    Raises:
        ShapeError: if weight or bias is not as wide as x.

    Source: Ba, Kiros and Hinton 2016, "Layer normalization".

    Examples:
        >>> tl.ops.layer_norm(tl.asarray([[3.0, 5.0]]), tl.ones(2), tl.asarray([0.0, 10.0]), eps=0.0).tolist()
        [[-1.0, 11.0]]
    """
    check_norm("layer_norm", x, weight, bias)
    y = widened(x)
    centred = y - y.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return rounded(centred / (variance + eps).sqrt() * widened(weight) + widened(bias), x)


@operation
def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Divide the last axis by its root mean square, then scale.

    Args:
        x: (…, n), floating point.
        weight: (n,)
        eps: added to the mean square.

    Returns:
        (…, n), the dtype of x; computed in float32.

    Raises:
        ShapeError: if weight is not as wide as x.

    Source: Zhang and Sennrich 2019, "Root mean square layer normalization".

    Examples:
        >>> tl.ops.rms_norm(tl.asarray([[2.0, -2.0]]), tl.asarray([1.0, 10.0]), eps=0.0).tolist()
        [[1.0, -10.0]]
    """
    check_norm("rms_norm", x, weight)
    y = widened(x)
    return rounded(y / ((y * y).mean(-1, keepdims=True) + eps).sqrt() * widened(weight), x)


@operation
def l2_normalize(x: Tensor, axis: int = -1, eps: float = 1e-12) -> Tensor:
    """Divide by the Euclidean length along an axis, or by eps where the length is smaller.

    Args:
        x: any shape, floating point.
        axis: the axis that gets length 1.
        eps: the least divisor.

    Returns:
        The shape and dtype of x; computed in float32.

    Examples:
        >>> tl.ops.l2_normalize(tl.asarray([0.0, -4.0])).tolist()
        [0.0, -1.0]
    """
    axis_of("l2_normalize", axis, x.ndim)
    y = widened(x)
    return rounded(y / (y * y).sum(axis, keepdims=True).sqrt().clamp(min=eps), x)


def check_norm(name: str, x: Tensor, *scales: Tensor) -> None:
    """Raise ShapeError unless each of a norm's weight and bias is as wide as the last axis of x."""
    for scale in scales:
        if scale.shape != x.shape[-1:] or not x.shape:
            raise ShapeError(f"{name}: x of shape {x.shape} does not fit a weight or bias of shape {scale.shape}")
