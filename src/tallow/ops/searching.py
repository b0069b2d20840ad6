"""Where in a tensor: extremes, choices, non-zero elements, places in a sorted vector."""

from __future__ import annotations

import numpy as np

from tallow.errors import ArgumentError, DTypeError, ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import (
    Operand,
    as_array,
    axes_of,
    axis_of,
    common_dtype,
    explain,
    module_of,
    widened,
    wrap,
)
from tallow.tensor import Tensor


@operation
def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index (int64) of the largest element along an axis, the first of equals; None: in the flattened tensor.

    Examples:
        >>> x = tl.asarray([[1.0, 5.0], [9.0, 2.0]])
        >>> tl.argmax(x).item()
        2
        >>> x.argmax(axis=1).tolist()
        [1, 0]
    """
    return _extreme("argmax", x, axis, keepdims)


@operation
def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index (int64) of the smallest element along an axis, the first of equals; None: in the flattened tensor."""
    return _extreme("argmin", x, axis, keepdims)


def _extreme(name: str, x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    found = None if axis is None else axis_of(name, axis, x.storage.ndim)
    if x.storage.dtype.kind == "c":
        raise DTypeError(f"{name}: does not take {x.dtype.name}")
    array = widened(x.storage)
    try:
        return wrap(getattr(array, name)(axis=found, keepdims=keepdims), x.device)
    except ValueError:
        raise ShapeError(f"{name}: nothing to choose from along axis {axis} of shape {x.shape}") from None


@operation
def where(condition: Tensor, x1: Operand, x2: Operand, /) -> Tensor:
    """x1 where the condition holds, x2 elsewhere; all three are broadcast, x1 and x2 have their common type.

    Examples:
        >>> x = tl.asarray([-1.0, 2.0, -3.0])
        >>> tl.where(x > 0, x, 0.0).tolist()
        [0.0, 2.0, 0.0]
    """
    if type(x1) is not Tensor and type(x2) is not Tensor:
        from tallow.ops.conversion import asarray

        x1 = asarray(x1, device=condition.device)
    dtype = common_dtype("where", x1, x2).numpy
    chosen = condition.storage if condition.storage.dtype == np.bool_ else condition.storage != 0
    a, b = as_array("where", x1, dtype), as_array("where", x2, dtype)
    try:
        return wrap(module_of(condition.storage).where(chosen, a, b), condition.device)
    except ValueError as error:
        for other in (x1, x2):
            if type(other) is Tensor:
                try:
                    np.broadcast_shapes(condition.shape, other.shape)
                except ValueError:
                    explain("where", condition, other, error)
        explain("where", x1, x2, error)


@operation
def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The indices (int64) of the elements that are not zero: a vector for each axis, in row-major order."""
    if x.ndim == 0:
        raise ShapeError("nonzero: a tensor of no dimension has no indices")
    return tuple(wrap(indices, x.device) for indices in x.storage.nonzero())


@operation
def count_nonzero(x: Tensor, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """How many elements are not zero (int64), along axes or in all."""
    axes = None if axis is None else axes_of("count_nonzero", axis, x.ndim)
    return wrap((x.storage != 0).sum(axis=axes, keepdims=keepdims, dtype=np.int64), x.device)


@operation
def searchsorted(x1: Tensor, x2: Tensor, /, *, side: str = "left", sorter: Tensor | None = None) -> Tensor:
    """The indices (int64) at which to put elements into a sorted vector so that it stays sorted.

    Args:
        x1: the vector (n,), sorted in ascending order (or sorted by ``sorter``).
        x2: what to put in, of any shape; real numbers.
        side: ``"left"`` before equal elements, ``"right"`` after them.
        sorter: the indices (n,) that sort x1.
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: side is {side!r}; expected 'left' or 'right'")
    if x1.ndim != 1:
        raise ShapeError(f"searchsorted: expected a sorted vector, found shape {x1.shape}")
    dtype = common_dtype("searchsorted", x1, x2).numpy
    a, b = (widened(as_array("searchsorted", x, dtype)) for x in (x1, x2))
    order = None if sorter is None else sorter.storage
    return wrap(module_of(a).searchsorted(a, b, side=side, sorter=order), x1.device)
