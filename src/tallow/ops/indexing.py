"""Reading and writing parts of a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import dtypes
from tallow.errors import BoundsError, DeviceError, DTypeError, ShapeError
from tallow.ops.dispatch import gives_view, operation
from tallow.ops.operands import axis_of, described, module_of, placed, python_scalar, quiet, wrap
from tallow.tensor import Tensor

_PLAIN = (int, slice, type(None), type(...))


def _key(x: Tensor, key: Any) -> Any:
    """An index for x's array: tensors and lists become arrays, the rest stays."""
    if type(key) is tuple:
        return tuple(part if isinstance(part, _PLAIN) else _part(x, part) for part in key)
    return key if isinstance(key, _PLAIN) else _part(x, key)


def _part(x: Tensor, part: Any) -> Any:
    if type(part) is Tensor:
        if part.device is not x.device and part.ndim:
            raise DeviceError(f"index: the tensor lies on {x.device}, its index on {part.device}")
        array = part.storage
    elif isinstance(part, (list, np.ndarray, np.generic)):
        array = np.asarray(part, dtype=np.int64 if isinstance(part, list) and not part else None)
    elif hasattr(part, "__index__"):
        return part.__index__()
    else:
        raise BoundsError(f"index: expected integers, slices, …, None, or tensors of integers or bools, found {part!r}")
    if array.dtype.kind not in "iub":
        raise BoundsError(f"index: expected a tensor of integers or bools, found {array.dtype}")
    return placed(array.astype(np.int64) if array.dtype.kind == "u" else array, x.device)


def _wrong_index(x: Tensor, error: Exception) -> BoundsError:
    return BoundsError(f"index into {x.dtype.name} {x.shape}: {error}")


@gives_view
@operation
def getitem(x: Tensor, key: Any, /) -> Tensor:
    """``x[key]``: a view for integers, slices, ``...`` and None; a copy for tensors of integers or bools.

    Raises:
        BoundsError: (an IndexError) for an index outside the tensor, or one that is no index.
    """
    array = x.storage
    index = _key(x, key)
    try:
        result = array[index]
        if isinstance(result, np.generic):  # a single element: NumPy hands out a copy, a tensor shares memory
            result = array[(*index, ...) if type(index) is tuple and ... not in index else (index, ...)]
    except (IndexError, TypeError, ValueError) as error:
        raise _wrong_index(x, error) from None
    return wrap(result, x.device)


@operation
def setitem(x: Tensor, key: Any, value: Any, /) -> None:
    """``x[key] = value``: the value is broadcast, and rounded to x's type where that is of its kind or above.

    Raises:
        BoundsError: (an IndexError) for an index outside the tensor.
        DTypeError: for a value of a higher kind than x (a float into integers), or a read-only tensor.
        ShapeError: for a value that does not broadcast.
    """
    array = x.storage
    if type(value) is Tensor:
        source, values = value.dtype, value.storage
    elif isinstance(value, (list, tuple, np.ndarray)):
        values = placed(np.asarray(value), x.device)
        source = dtypes.of_numpy(values.dtype)
    else:
        values = python_scalar("setitem", value)
        source = dtypes.as_dtype(type(values))
    if not dtypes.same_kind(source, x.dtype):
        raise DTypeError(f"setitem: {described(value)} does not fit into {x.dtype.name}; convert it with .astype()")
    if not getattr(array.flags, "writeable", True):  # CuPy knows no read-only memory
        raise DTypeError("setitem: this tensor is read-only (a view of a file, or broadcast); copy it first")
    index = _key(x, key)
    try:
        quiet.run(array.__setitem__, index, values)
    except (IndexError, TypeError) as error:
        raise _wrong_index(x, error) from None
    except OverflowError:
        raise DTypeError(f"setitem: {value} lies outside the range of {x.dtype.name}") from None
    except ValueError:
        raise ShapeError(f"setitem: {described(value)} does not broadcast to {array[index].shape}") from None


@operation
def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """Elements of an axis by their indices.

    Args:
        x: the tensor (…, n, …).
        indices: integers (k,), or of any shape, which takes the axis' place; negative ones count from the end.
        axis: the axis; may be left out for a vector.

    Raises:
        BoundsError: for an index outside the axis.

    Examples:
        >>> x = tl.asarray([[1, 2], [3, 4], [5, 6]])
        >>> tl.take(x, tl.asarray([2, 0]), axis=0).tolist()
        [[5, 6], [1, 2]]
    """
    if axis is None and x.ndim != 1:
        raise ShapeError(f"take: which axis of shape {x.shape}? axis= may be left out for vectors only")
    found = axis_of("take", 0 if axis is None else axis, x.ndim)
    try:
        return wrap(module_of(x.storage).take(x.storage, _part(x, indices), axis=found), x.device)
    except IndexError as error:
        raise _wrong_index(x, error) from None


@operation
def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """For each place in ``indices``, the element of x at that index in ``axis`` and the same place in the other axes.

    Args:
        x: the tensor.
        indices: integers, with as many dimensions as x; the other axes broadcast against x's.
        axis: the axis that the indices count in.
    """
    found = axis_of("take_along_axis", axis, x.ndim)
    if indices.ndim != x.ndim:
        raise ShapeError(f"take_along_axis: shapes {x.shape} and {indices.shape} have different numbers of dimensions")
    others = [shape[:found] + shape[found + 1 :] for shape in (x.shape, indices.shape)]
    try:
        np.broadcast_shapes(*others)
        return Tensor(module_of(x.storage).take_along_axis(x.storage, _part(x, indices), found), x.device)
    except IndexError as error:
        raise _wrong_index(x, error) from None
    except ValueError:
        raise ShapeError(f"take_along_axis: shapes {x.shape} and {indices.shape} do not fit") from None
