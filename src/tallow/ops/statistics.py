"""Reductions: sums, means, extremes, tests and running sums along axes.

``axis`` is an axis, a tuple of them, or None for all; ``keepdims`` keeps reduced axes with size 1. float16 and bfloat16
are accumulated in float32 and rounded once; sums and products of small integers are int64 (unsigned ones uint64).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import dtypes
from tallow.dtypes import DType, DTypeLike, as_dtype
from tallow.errors import DTypeError, ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import axes_of, axis_of, module_of, quiet, widened, wrap, wrap_as
from tallow.tensor import Tensor

Axes = int | tuple[int, ...] | None


# NumPy's own methods (array.sum, …) are Python functions around these.
_REDUCE = {
    "sum": np.add.reduce,
    "prod": np.multiply.reduce,
    "max": np.maximum.reduce,
    "min": np.minimum.reduce,
    "all": np.logical_and.reduce,
    "any": np.logical_or.reduce,
}


def _reduced(name: str, x: Tensor, axis: Axes, keepdims: bool, dtype: DTypeLike | None = None) -> Any:
    """x's array, widened where it is narrow, reduced in ``dtype`` (its own by default)."""
    array = widened(x.storage)
    axes = axis if axis is None else axes_of(name, axis, array.ndim)
    try:
        if type(array) is np.ndarray:
            return quiet.run(_REDUCE[name], array, axes, dtype, None, keepdims)
        options = {} if dtype is None else {"dtype": dtype}
        return getattr(array, name)(axis=axes, keepdims=keepdims, **options)
    except ValueError:
        raise ShapeError(f"{name}: nothing to choose from along axis {axis} of shape {x.shape}") from None
    except TypeError:
        raise DTypeError(f"{name}: does not take {x.dtype.name}") from None


_TOTAL = {"bool": dtypes.int64, "int": dtypes.int64, "uint": dtypes.uint64}


def total_type(dtype: DType) -> DType:
    """The type of a sum or product: 64 bits for integers and bools, a float's own."""
    return _TOTAL.get(dtype.kind, dtype)


def _total(name: str, x: Tensor, axis: Axes, dtype: DTypeLike | None, keepdims: bool) -> Tensor:
    target = total_type(x.dtype) if dtype is None else as_dtype(dtype)
    if dtype is not None and not dtypes.same_kind(x.dtype, target):
        raise DTypeError(f"{name}: {x.dtype.name} does not add up to {target.name}; convert it with .astype()")
    accumulated = dtypes.wide(target).numpy
    return wrap_as(_reduced(name, x, axis, keepdims, dtype=accumulated), target.numpy, x.device)


@operation
def sum(x: Tensor, /, *, axis: Axes = None, dtype: DTypeLike | None = None, keepdims: bool = False) -> Tensor:
    """The sum; 0 for none. ``dtype`` gives another type to add up in.

    Examples:
        >>> x = tl.asarray([[1, 2], [3, 4]])
        >>> tl.sum(x).item()
        10
        >>> tl.sum(x, axis=0, keepdims=True).tolist()
        [[4, 6]]
    """
    return _total("sum", x, axis, dtype, keepdims)


@operation
def prod(x: Tensor, /, *, axis: Axes = None, dtype: DTypeLike | None = None, keepdims: bool = False) -> Tensor:
    """The product; 1 for none. ``dtype`` gives another type to multiply in."""
    return _total("prod", x, axis, dtype, keepdims)


@operation
def max(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest element; NaN if there is one. Raises ShapeError for none."""
    return wrap_as(_reduced("max", x, axis, keepdims), x.storage.dtype, x.device)


@operation
def min(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The smallest element; NaN if there is one. Raises ShapeError for none."""
    return wrap_as(_reduced("min", x, axis, keepdims), x.storage.dtype, x.device)


@operation
def mean(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean, NaN for none; float32 for integers.

    Examples:
        >>> x = tl.asarray([[1.0, 2.0], [3.0, 6.0]])
        >>> tl.mean(x).item()
        3.0
        >>> x.mean(axis=0).tolist()
        [2.0, 4.0]
    """
    count = _count("mean", x, axis)
    if x.storage.dtype.kind in "iub":
        total = _reduced("sum", x, axis, keepdims, dtype=np.float64)
        return wrap_as(_over(total, count), dtypes.float32.numpy, x.device)
    return wrap_as(_over(_reduced("sum", x, axis, keepdims), count), x.storage.dtype, x.device)


def _over(total: Any, count: float) -> Any:
    return quiet.run(np.true_divide, total, total.dtype.type(count))


def _count(name: str, x: Tensor, axis: Axes) -> int:
    """How many elements are reduced to one."""
    if axis is None:
        return x.storage.size  # type: ignore[no-any-return]
    count = 1
    for each in axes_of(name, axis, x.storage.ndim):
        count *= x.storage.shape[each]
    return count


@operation
def var(x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The variance: the sum of squared distances from the mean over ``n - correction``; NaN where that is not positive.

    float32 for integers, which are computed in float64.
    """
    return wrap_as(_variance("var", x, axis, correction, keepdims), _float_type(x), x.device)


@operation
def std(x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The standard deviation, the square root of ``var``."""
    return wrap_as(quiet.run(np.sqrt, _variance("std", x, axis, correction, keepdims)), _float_type(x), x.device)


def _float_type(x: Tensor) -> np.dtype[Any]:
    return dtypes.float32.numpy if x.storage.dtype.kind in "iub" else x.storage.dtype


def _variance(name: str, x: Tensor, axis: Axes, correction: float, keepdims: bool) -> Any:
    count = _count(name, x, axis)
    if x.storage.dtype.kind == "c":
        raise DTypeError(f"{name}: does not take {x.dtype.name}")
    array = x.storage.astype(np.float64) if x.storage.dtype.kind in "iub" else widened(x.storage)
    wide = Tensor(array, x.device)
    centre = _over(_reduced("sum", wide, axis, True), count)
    squares = quiet.run(np.square, quiet.run(np.subtract, array, centre))
    total = _reduced("sum", Tensor(squares, x.device), axis, keepdims)
    left = count - correction
    return _over(total, left if left > 0 else np.nan)


@operation
def all(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are true (numbers: not zero); True for none."""
    return wrap(_reduced("all", x, axis, keepdims), x.device)


@operation
def any(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether any element is true (a number: not zero); False for none."""
    return wrap(_reduced("any", x, axis, keepdims), x.device)


@operation
def cumulative_sum(
    x: Tensor, /, *, axis: int | None = None, dtype: DTypeLike | None = None, include_initial: bool = False
) -> Tensor:
    """Running sums along an axis (which may be left out for a vector).

    Args:
        x: the tensor.
        axis: the axis to add along.
        dtype: the type to add in; by default as for ``sum``.
        include_initial: start with a 0, so that the axis is one longer.
    """
    return _running("cumulative_sum", "cumsum", 0, x, axis, dtype, include_initial)


@operation
def cumulative_prod(
    x: Tensor, /, *, axis: int | None = None, dtype: DTypeLike | None = None, include_initial: bool = False
) -> Tensor:
    """Running products along an axis; the arguments are as for ``cumulative_sum``, and the initial value is 1."""
    return _running("cumulative_prod", "cumprod", 1, x, axis, dtype, include_initial)


def _running(
    name: str, method: str, initial: int, x: Tensor, axis: int | None, dtype: DTypeLike | None, include: bool
) -> Tensor:
    if x.ndim == 0 or (axis is None and x.ndim > 1):
        raise ShapeError(f"{name}: which axis of shape {x.shape}? axis= may be left out for vectors only")
    found = axis_of(name, 0 if axis is None else axis, x.ndim)
    target = total_type(x.dtype) if dtype is None else as_dtype(dtype)
    array = x.storage.astype(dtypes.wide(target).numpy)
    result = quiet.run(getattr(array, method), axis=found)
    if include:
        xp = module_of(array)
        start = xp.full((*x.shape[:found], 1, *x.shape[found + 1 :]), initial, result.dtype)
        result = xp.concatenate([start, result], axis=found)
    return wrap_as(result, target.numpy, x.device)


@operation
def diff(
    x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along an axis, taken ``n`` times.

    Args:
        x: the tensor; bools give bools (whether neighbours differ).
        axis: the axis, which becomes n shorter.
        n: how often.
        prepend: what to put before x along the axis first.
        append: what to put after it.
    """
    from tallow.ops.manipulation import concat

    found = axis_of("diff", axis, x.ndim)
    if n < 0:
        raise ShapeError(f"diff: n is {n}")
    whole = [part for part in (prepend, x, append) if part is not None]
    joined = concat(whole, axis=found) if len(whole) > 1 else x
    array = widened(joined.storage)
    return wrap_as(quiet.run(module_of(array).diff, array, n=n, axis=found), joined.storage.dtype, x.device)
