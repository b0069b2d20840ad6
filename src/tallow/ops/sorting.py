"""Sorting, and the unique elements of a tensor."""

from __future__ import annotations

from typing import Any, NamedTuple

from tallow.errors import ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import axis_of, module_of, quiet, widened, wrap, wrap_as
from tallow.tensor import Tensor


@operation
def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """x with the elements in order along an axis.

    Args:
        x: real numbers; NaN counts as larger than all others.
        axis: the axis to sort along.
        descending: the largest first.
        stable: keep equal elements in their order (they are in either case, here).

    Examples:
        >>> tl.sort(tl.asarray([2, 3, 1]), descending=True).tolist()
        [3, 2, 1]
    """
    found = _axis("sort", x, axis)
    result = module_of(x.storage).sort(widened(x.storage), axis=found)
    return wrap_as(_reversed(result, found) if descending else result, x.storage.dtype, x.device)


@operation
def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices (int64) that sort x along an axis; the arguments are those of ``sort``."""
    found = _axis("argsort", x, axis)
    array = widened(x.storage)
    if not descending:
        return wrap(module_of(array).argsort(array, axis=found, kind="stable"), x.device)
    order = module_of(array).argsort(_reversed(array, found), axis=found, kind="stable")
    return wrap(array.shape[found] - 1 - _reversed(order, found), x.device)


def _axis(name: str, x: Tensor, axis: int) -> int:
    if x.ndim == 0:
        raise ShapeError(f"{name}: a tensor of no dimension has no order")
    return axis_of(name, axis, x.ndim)


def _reversed(array: Any, axis: int) -> Any:
    return array[(slice(None),) * axis + (slice(None, None, -1),)]


class UniqueAll(NamedTuple):
    """What ``unique_all`` finds."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """What ``unique_counts`` finds."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """What ``unique_inverse`` finds."""

    values: Tensor
    inverse_indices: Tensor


@operation
def unique_all(x: Tensor, /) -> UniqueAll:
    """The unique elements of the flattened tensor, in ascending order; every NaN is one of its own.

    Returns:
        ``values`` (k,), ``indices`` (k,) of their first occurrences, ``inverse_indices`` (x's shape) that rebuild x
        from the values, and ``counts`` (k,); all but the values int64.
    """
    values, indices, inverse, counts = _unique(x, return_inverse=True, return_counts=True)
    return UniqueAll(
        wrap_as(values, x.storage.dtype, x.device),
        wrap(indices, x.device),
        wrap(inverse.reshape(x.shape), x.device),
        wrap(counts, x.device),
    )


@operation
def unique_counts(x: Tensor, /) -> UniqueCounts:
    """The ``values`` and ``counts`` of ``unique_all``."""
    values, _, counts = _unique(x, return_counts=True)
    return UniqueCounts(wrap_as(values, x.storage.dtype, x.device), wrap(counts, x.device))


@operation
def unique_inverse(x: Tensor, /) -> UniqueInverse:
    """The ``values`` and ``inverse_indices`` of ``unique_all``."""
    values, _, inverse = _unique(x, return_inverse=True)
    return UniqueInverse(wrap_as(values, x.storage.dtype, x.device), wrap(inverse.reshape(x.shape), x.device))


@operation
def unique_values(x: Tensor, /) -> Tensor:
    """The ``values`` of ``unique_all``."""
    return wrap_as(_unique(x)[0], x.storage.dtype, x.device)


def _unique(x: Tensor, **options: bool) -> Any:
    # Asked for indices, NumPy sorts stably: all four then choose the same one of equal zeros, and order NaNs alike.
    return quiet.run(module_of(x.storage).unique, widened(x.storage), return_index=True, equal_nan=False, **options)
