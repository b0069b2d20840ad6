"""Int8 weights: how they are made and what they mean. The reference for every kernel that works on them.

Symmetric quantisation, as in Jacob et al. 2018, section 2, with zero point 0: ``w ≈ values · scale`` with
``scale = max|w| / 127`` taken over one output row, or over each group of columns in a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow.errors import DTypeError, ShapeError, WeightsError

Array = np.ndarray[Any, Any]
_TINY = np.float32(np.finfo(np.float32).tiny)


class Int8Matrix:
    """A matrix of int8 values with a scale for each row, or for each group of columns in a row.

    Args:
        values: int8, (rows, columns).
        scales: float32, (rows,), or (rows, columns / group).
    """

    storage = "int8"

    def __init__(self, values: Array, scales: Array) -> None:
        rows, columns = values.shape
        if values.dtype != np.int8:
            raise DTypeError(f"int8 matrix: expected int8 values, found {values.dtype}")
        groups = scales.shape[1] if scales.ndim == 2 else 1
        if scales.shape not in ((rows,), (rows, groups)) or groups == 0 or columns % groups:
            raise ShapeError(f"int8 matrix: scales of shape {scales.shape} do not fit values of shape {values.shape}")
        self.values = values
        self.scales = scales

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        return tuple(self.values.shape)

    @property
    def group(self) -> int | None:
        """Columns that share a scale; None for one scale a row."""
        return None if self.scales.ndim == 1 else self.values.shape[1] // self.scales.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes + self.scales.nbytes

    def __getitem__(self, rows: slice | Array) -> Int8Matrix:
        """A stretch of rows, as a view; or the rows of some numbers, as a copy."""
        return Int8Matrix(self.values[rows], self.scales[rows])

    def dequantize(self) -> Array:
        """The matrix in float32."""
        rows, columns = self.shape
        groups = 1 if self.scales.ndim == 1 else self.scales.shape[1]
        wide = self.values.reshape(rows, groups, columns // groups) * self.scales.reshape(rows, groups, 1)
        return wide.reshape(rows, columns)

    def rows(self, ids: Array) -> Array:
        """The rows ``ids`` (integers of any shape) in float32: shape (…, columns)."""
        flat = Int8Matrix(self.values[ids.ravel()], self.scales[ids.ravel()]).dequantize()
        return flat.reshape(*ids.shape, self.shape[1])


class DenseMatrix:
    """A matrix in a floating-point type, with the interface of a packed one."""

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def storage(self) -> str:
        """The name of the elements' type."""
        return str(self.array.dtype.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        return tuple(self.array.shape)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.array.nbytes

    def dequantize(self) -> Array:
        """The matrix in float32 (a float32 one as it is, without a copy)."""
        return self.array.astype(np.float32, copy=False)

    def rows(self, ids: Array) -> Array:
        """The rows ``ids`` (integers of any shape) in float32: shape (…, columns)."""
        return self.array[ids].astype(np.float32, copy=False)


def quantize_int8(array: Array, group: int | None = None) -> Int8Matrix:
    """Quantise a matrix to int8.

    Args:
        array: floating point, (rows, columns).
        group: columns that share a scale; must divide the columns. None: the whole row shares one.

    Returns:
        The values, rounded half to even, and the scales in float32. A row (or group) of zeros gets scale 0.

    Raises:
        ShapeError: if ``array`` is not a matrix or ``group`` does not divide its columns.
        WeightsError: if it holds NaN or infinity.
    """
    if array.ndim != 2:
        raise ShapeError(f"quantize_int8: expected a matrix, found shape {array.shape}")
    rows, columns = array.shape
    size = columns if group is None else group
    if size <= 0 or columns % size:
        if columns == 0 and group is None:
            return Int8Matrix(np.zeros((rows, 0), np.int8), np.zeros(rows, np.float32))
        raise ShapeError(f"quantize_int8: groups of {group} do not divide {columns} columns")
    wide = np.asarray(array, np.float32).reshape(rows, columns // size, size)
    scales = absmax_scales("quantize_int8", wide, np.float32(127))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(scales[:, :, None] > 0, np.rint(wide / scales[:, :, None]), 0)
    values = np.clip(values, -127, 127).astype(np.int8).reshape(rows, columns)
    return Int8Matrix(values, scales.reshape(rows) if group is None else scales)


def absmax_scales(name: str, wide: Array, largest: np.float32) -> Array:
    """What numbers along the last axis are divided by, so that none is beyond the largest that a type holds.

    Args:
        name: of the function that an error names.
        wide: float32.
        largest: that the type holds.

    Returns:
        float32, without the last axis; 0 for nothing but zeros.

    Raises:
        WeightsError: for NaN or infinity.
    """
    found = np.abs(wide).max(axis=-1, initial=0.0)
    if not np.isfinite(found).all():
        raise WeightsError(f"{name}: the weights hold NaN or infinity")
    scales: Array = (found / largest).astype(np.float32)
    scales[scales < _TINY] = 0  # denormal scales have too few bits to divide by
    return scales
