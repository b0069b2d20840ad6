"""Softmax and its logarithm."""

from __future__ import annotations

from tallow.ops.dispatch import operation
from tallow.ops.operands import axis_of
from tallow.ops.precision import rounded, widened
from tallow.tensor import Tensor


@operation
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """``exp(x) / Σ exp(x)`` along an axis, shifted by the maximum so that nothing overflows.

    Args:
        x: any shape, floating point.
        axis: the axis that sums to 1.

    Returns:
        The shape and dtype of x; computed in float32.

    Examples:
        >>> tl.ops.softmax(tl.asarray([[0.0, 0.0], [0.0, float("-inf")]])).tolist()
        [[0.5, 0.5], [1.0, 0.0]]
    """
    e = _shifted("softmax", x, axis).exp()
    return rounded(e / e.sum(axis, keepdims=True), x)


@operation
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """``x − log Σ exp(x)`` along an axis, shifted by the maximum; the shape and dtype of x, computed in float32."""
    y = _shifted("log_softmax", x, axis)
    return rounded(y - y.exp().sum(axis, keepdims=True).log(), x)


def _shifted(name: str, x: Tensor, axis: int) -> Tensor:
    """x in float32 less its maximum along an axis, which may be empty."""
    y = widened(x)
    return y - y.max(axis, keepdims=True) if y.shape[axis_of(name, axis, y.ndim)] else y
