"""Arrays for results, from memory that earlier results have left behind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tallow import _cpu
from tallow.errors import CaptureError, OutOfMemoryError

# Below this size NumPy's own allocation is quicker, and its pages are already there.
_SMALL = 1 << 16


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """An uninitialised array in C order, its memory reused from results that are gone."""
    storage = np.dtype(dtype)
    nbytes = math.prod(shape) * storage.itemsize
    if nbytes < _SMALL:
        return np.empty(shape, storage)
    return np.ndarray(shape, storage, buffer=_cpu.Buffer(nbytes))


def matrix(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """All rows of an array, its last axis, as a matrix: a view, or a copy where strides don't allow one.

    Raises:
        CaptureError: as of ``contiguous``.
    """
    if array.ndim == 2:
        return array
    rows = array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
    return rows if not _cpu.recording() or np.may_share_memory(rows, array) else contiguous(array)


def contiguous(array: np.ndarray[Any, Any], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """The array in C order and of a dtype; itself if it is so already.

    Raises:
        CaptureError: if that takes a copy while kernel calls are recorded: the copy would not be made anew.
    """
    result = np.ascontiguousarray(array, dtype)
    if result is not array and _cpu.recording() and not np.may_share_memory(result, array):
        raise CaptureError(
            f"while recording: an operand of shape {array.shape} and dtype {array.dtype} must be copied into C order "
            f"and {np.dtype(dtype)} for a kernel, and a copy is not recorded; lay it out so before"
        )
    return result


def reserve(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """An uninitialised array in C order that takes memory page by page, as it is first written.

    Raises:
        OutOfMemoryError: if the system has no address space left.
    """
    storage = np.dtype(dtype)
    nbytes = math.prod(shape) * storage.itemsize
    try:
        return np.ndarray(shape, storage, buffer=_cpu.Reserve(nbytes))
    except MemoryError:
        raise OutOfMemoryError(f"cannot reserve {nbytes / 1e9:.1f} GB for an array of shape {shape}") from None
