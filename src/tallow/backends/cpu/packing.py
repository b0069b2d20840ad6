"""Weights in the form that the CPU's kernels read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.memory import contiguous
from tallow.errors import BoundsError, DTypeError, ShapeError, WeightsError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.quantize import Int8Matrix, quantize_int8
from tallow.weights.source import is_mapped

Array = np.ndarray[Any, Any]

_STORAGES = ("float32", "float16", "bfloat16", "int8")
_BLOCKS = {  # numbers in csrc/kernels/matrix.h
    "q8_0": 5, "q4_0": 6, "q4_1": 7, "q5_0": 8, "q5_1": 9, "q4_k": 10, "q5_k": 11, "q6_k": 12,
}  # fmt: skip
_MAX_INT8_INPUTS = 2**31 // 127**2  # products of two bytes that a 32-bit sum holds


class PackedMatrix:
    """A matrix (out, in) packed into panels for the kernels of this processor, or a convolution's kernel.

    Attributes:
        native: the ``_cpu.PackedMatrix`` that kernels take. That of a convolution is (out, taps · in): channels last.
        shape: (out, in), or (out, in, k) or (out, in, kh, kw).
        storage: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"``, or GGUF's blocks, ``"q4_k"``, …
        nbytes: bytes held, padding included.
        group: of int8, the inputs that share a scale; None for one scale a row.
    """

    __slots__ = ("group", "native", "nbytes", "shape", "storage")

    def __init__(self, native: Any, shape: tuple[int, ...], storage: str, group: int | None = None) -> None:
        self.native = native
        self.group = group
        self.shape = shape
        self.storage = storage
        self.nbytes: int = native.nbytes

    def dequantize(self) -> Array:
        """The matrix in float32."""
        out, inner, *taps = self.shape
        array = np.empty((out, *taps, inner), np.float32)
        self.native.dequantize_into(array)
        return np.moveaxis(array, -1, 1)

    def rows(self, ids: Array) -> Array:
        """Some rows in float32.

        Args:
            ids: integers of any shape, each from 0 to out - 1.

        Returns:
            (*ids.shape, in)

        Raises:
            BoundsError: if an id lies outside the matrix.
        """
        out = np.empty((*ids.shape, self.shape[1]), np.float32)
        try:
            self.native.rows_into(out, contiguous(ids, np.int64))
        except IndexError as error:
            raise BoundsError(f"embedding: {error} in a table of {self.shape[0]} rows") from None
        return out


def pack(
    array: Array | Int8Matrix | BlockMatrix, storage: str, group: int | None = None
) -> PackedMatrix | Int8Matrix:  # fmt: skip
    """Pack a matrix for the kernels.

    Args:
        array: (out, in), or a convolution's kernel (out, in, k) or (out, in, kh, kw); of any strides and alignment;
            float32, float16 or bfloat16; other floating types are converted. For int8 storage a matrix only, or an
            ``Int8Matrix``, whose values and scales are taken over. A ``BlockMatrix`` for the storage of its own type,
            which keeps every number as it is.
        storage: how to store it.
        group: for int8, inputs that share a scale; None for one scale a row.

    Returns:
        The packed matrix, which keeps nothing of ``array``. Blocks in a mapped file are packed in the background, and
        their pages given back when they have been read. Where
        ``group`` is none of 8, 16, …, 256, or the sums of an int8 product could overflow, the reference form instead.

    Raises:
        ShapeError: if ``array`` has other dimensions, or ``group`` does not divide its rows.
        DTypeError: for a storage that isn't there.
        WeightsError: for int8, if ``array`` holds NaN or infinity.
    """
    if isinstance(array, BlockMatrix):
        if storage != array.storage or storage not in _BLOCKS:
            raise DTypeError(f"no storage {storage!r} on the CPU for a matrix in blocks of {array.storage}")
        parts = [part if part.strides[1] == 1 else np.ascontiguousarray(part) for part in array.parts]
        native = _cpu.pack_blocks([(part, is_mapped(part)) for part in parts], _BLOCKS[storage])
        return PackedMatrix(native, array.shape, storage)
    if storage not in _STORAGES:
        raise DTypeError(f"no storage {storage!r} for weights on the CPU; there are {', '.join(_STORAGES)}")
    if not 2 <= len(array.shape) <= (2 if storage == "int8" else 4):
        raise ShapeError(
            f"pack: expected a matrix{'' if storage == 'int8' else ' or kernel'}, found shape {array.shape}"
        )
    if storage == "int8":
        return _pack_int8(array, array.shape, group)
    if isinstance(array, Int8Matrix):
        array = array.dequantize()
    matrix = np.moveaxis(array, 1, -1).reshape(array.shape[0], math.prod(array.shape[1:]))
    native = _cpu.pack(_readable(matrix), _STORAGES.index(storage), matrix.shape[1], None)
    return PackedMatrix(native, array.shape, storage)


def _pack_int8(array: Array | Int8Matrix, shape: tuple[int, ...], group: int | None) -> PackedMatrix | Int8Matrix:
    scales = None
    if isinstance(array, Int8Matrix):
        if array.scales.ndim == 2:
            group = shape[1] // array.scales.shape[1]
        scales = np.ascontiguousarray(array.scales, np.float32)
        array = array.values
    else:
        array = _readable(array)
    size = shape[1] if group is None else group
    whole = size == shape[1]
    if shape[1] > _MAX_INT8_INPUTS or not (whole or (size > 0 and size % 8 == 0 and 256 % size == 0)):
        return quantize_int8(array, group) if scales is None else Int8Matrix(array.copy(), scales.copy())
    if not whole and (shape[1] % size or not shape[1]):
        raise ShapeError(f"pack: groups of {group} do not divide {shape[1]} columns")
    native = _cpu.pack(array, 3 if whole else 4, size, scales)
    if not native.scales_finite:
        raise WeightsError("int8: the weights hold NaN or infinity")
    return PackedMatrix(native, shape, "int8", None if whole else size)


def _readable(array: Array) -> Array:
    """An array in a type that the native side reads."""
    return array if array.dtype.name in _STORAGES[:3] else array.astype(np.float32)
