"""Fp8 weights: how they are made and what they mean. The reference for every kernel that works on them.

A number is ``value · scale``. Values are E4M3: a sign, 4 bits of exponent, 3 of mantissa, at most 448, no infinities
(Micikevicius et al. 2022, "FP8 formats for deep learning"). Scales belong to output rows, ``max|w| / 448`` (as
``quantize="fp8"`` makes them), or to blocks of 128 × 128 (as checkpoints such as Qwen3-8B-FP8 have them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tallow.errors import DTypeError, ShapeError
from tallow.matrix.block_matrix import widened
from tallow.matrix.quantize import absmax_scales

Array = np.ndarray[Any, Any]
E4M3 = np.dtype(ml_dtypes.float8_e4m3fn)
LARGEST = np.float32(448)
BLOCK = 128


class Fp8Matrix:
    """A matrix in E4M3 with scales.

    Args:
        values: float8_e4m3fn, (rows, columns).
        scales: float32, (bands, groups): bands of one row each, or of 128; one group of all columns, or groups of 128.
            The last band and group may be cut short.
    """

    storage = "fp8"

    def __init__(self, values: Array, scales: Array) -> None:
        if values.dtype != E4M3:
            raise DTypeError(f"fp8 matrix: expected float8_e4m3fn values, found {values.dtype}")
        rows, columns = values.shape
        fits = (
            scales.ndim == 2 and scales.shape[0] in (rows, -(-rows // BLOCK))
            and scales.shape[1] in (1, -(-columns // BLOCK))
        )  # fmt: skip
        if not fits:
            raise ShapeError(f"fp8 matrix: scales of shape {scales.shape} do not fit values of shape {values.shape}")
        self.values = values
        self.scales = scales

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        return tuple(self.values.shape)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes + self.scales.nbytes

    @property
    def height(self) -> int:
        """Rows of a band: 1 or 128."""
        return 1 if len(self.scales) == len(self.values) else BLOCK

    def __getitem__(self, rows: slice | Array) -> Fp8Matrix:
        """A stretch of rows, as a view; or the rows of some numbers, as a copy."""
        if isinstance(rows, slice):
            begin, end, step = rows.indices(len(self.values))
            if step == 1 and not begin % self.height and (not end % self.height or end == len(self.values)):
                return Fp8Matrix(self.values[rows], self.scales[begin // self.height : -(-end // self.height)])
        return Fp8Matrix(self.values[rows], self._scales_of_rows()[rows])

    def _scales_of_rows(self) -> Array:
        """(rows, groups)"""
        return np.repeat(self.scales, self.height, axis=0)[: len(self.values)]

    def dequantize(self) -> Array:
        """The matrix in float32."""
        scales = self._scales_of_rows()
        if scales.shape[1] > 1:
            scales = np.repeat(scales, BLOCK, axis=1)[:, : self.shape[1]]
        return self.values.astype(np.float32) * scales

    def widen(self, dtype: np.dtype[Any]) -> Array:
        """The matrix in a floating-point type, without ever holding all of it in float32.

        What is too large for float16 becomes infinite.
        """
        return widened(self, dtype, BLOCK)

    def rows(self, ids: Array) -> Array:
        """The rows ``ids`` (integers of any shape) in float32: shape (…, columns)."""
        return self[ids.ravel()].dequantize().reshape(*ids.shape, self.shape[1])


def quantize_fp8(array: Array) -> Fp8Matrix:
    """Quantise a matrix to E4M3 with a scale for each row.

    Args:
        array: floating point, (rows, columns).

    Returns:
        The values, rounded half to even, and the scales in float32. A row of zeros gets scale 0.

    Raises:
        ShapeError: if ``array`` is not a matrix.
        WeightsError: if it holds NaN or infinity.
    """
    if array.ndim != 2:
        raise ShapeError(f"quantize_fp8: expected a matrix, found shape {array.shape}")
    wide = np.asarray(array, np.float32)
    scales = absmax_scales("quantize_fp8", wide, LARGEST)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(scales > 0, wide / scales, np.float32(0))
    return Fp8Matrix(np.clip(values, -LARGEST, LARGEST).astype(E4M3), scales)


def stacked_fp8(parts: Sequence[Fp8Matrix]) -> Fp8Matrix:
    """Matrices of one width, one on top of the other. Bands stay bands unless they would straddle two of them."""
    whole = all(part.height == BLOCK for part in parts) and all(len(part.values) % BLOCK == 0 for part in parts[:-1])
    scales = [part.scales if whole else part._scales_of_rows() for part in parts]
    groups = max(each.shape[1] for each in scales)
    scales = [np.broadcast_to(each, (len(each), groups)) for each in scales]
    return Fp8Matrix(np.concatenate([part.values for part in parts]), np.concatenate(scales))
