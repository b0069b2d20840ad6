"""Weights in E4M3 on a card (compute capability 8.9 and up), and products with activations in E4M3."""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy
import numpy as np

from tallow.backends.cuda import cublaslt
from tallow.backends.cuda.kernels import NAMES, function
from tallow.backends.cuda.upload import to_card
from tallow.device import Device, compute_capability
from tallow.errors import WeightsError
from tallow.matrix.fp8 import BLOCK, E4M3, Fp8Matrix

_THREADS = 256
_CHUNK = 1 << 24  # numbers that are quantised at a time
_BYTE = np.dtype(np.uint8)


class CudaFp8:
    """A matrix (out, in) of numbers ``code · scale`` on a card.

    Args:
        codes: (out, in) uint8, E4M3.
        scales: float32, (out, 1): one for each row. Or (bands, groups): bands of one row or of 128, groups of 128
            columns, a multiple of 4 of them, of which the last may be unused, as cuBLASLt wants it.
        dtype: the type that rows are looked up in, which a model then computes in.
    """

    __slots__ = ("codes", "dtype", "scales")
    storage = "fp8"

    def __init__(self, codes: Any, scales: Any, dtype: np.dtype[Any]) -> None:
        self.codes = codes
        self.scales = scales
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        return tuple(self.codes.shape)

    @property
    def nbytes(self) -> int:
        """Bytes held, scales included."""
        return int(self.codes.nbytes + self.scales.nbytes)

    @property
    def places(self) -> tuple[int, int]:
        """Where the scale of a number is, (shift, stride): ``scales.flat[(row >> shift) · stride + column // 128]``.

        A stride of 1 means that all columns share one.
        """
        return (0 if len(self.scales) == len(self.codes) else BLOCK.bit_length() - 1), self.scales.shape[1]

    def on_host(self) -> Fp8Matrix:
        """The same codes and scales in the host's memory."""
        groups = 1 if self.scales.shape[1] == 1 else -(-self.shape[1] // BLOCK)
        return Fp8Matrix(self.codes.get().view(E4M3), self.scales.get()[:, :groups].copy())

    def dequantize(self) -> Any:
        """The matrix in float32."""
        return self.widened(np.dtype(np.float32))

    def rows(self, ids: Any) -> Any:
        """The rows ``ids`` in float32: shape (…, in)."""
        return self.widened(np.dtype(np.float32), ids)

    def widened(self, dtype: np.dtype[Any], ids: Any = None) -> Any:
        """All rows, or those of some numbers: (out, in) or (…, in). Numbers outside the matrix give rows of NaN."""
        with self.codes.device:
            numbers = None if ids is None else cupy.ascontiguousarray(ids, np.int64)
            out = cupy.empty((*(self.shape[:1] if ids is None else ids.shape), self.shape[1]), dtype)
            if out.size:
                run = function("fp8", "widen", X=NAMES[dtype], VECTOR=1 if self.shape[1] % 16 else 16)
                given = (out, 0 if numbers is None else numbers, self.codes, self.scales, *self.shape, *self.places)
                run((out.size // self.shape[1],), (_THREADS,), given)
        return out


class Quantised(NamedTuple):
    """Activations in E4M3.

    Attributes:
        codes: (rows, in) uint8.
        scales: float32, (rows, 1), or (in / 128, rows): then rows are a multiple of 4, the last perhaps not filled.
    """

    codes: Any
    scales: Any


def upload(matrix: np.ndarray[Any, Any] | Fp8Matrix, device: Device, dtype: np.dtype[Any]) -> CudaFp8:
    """Bring a matrix to a card, where it is quantised, with a scale for each row, unless it is so already.

    Args:
        matrix: (out, in).
        device: the card.
        dtype: see ``CudaFp8``.

    Raises:
        WeightsError: if it holds NaN or infinity.
    """
    with cupy.cuda.Device(device.index):
        if isinstance(matrix, Fp8Matrix):
            scales = matrix.scales
            if scales.shape[1] > 1 or matrix.height > 1:
                scales = np.pad(scales, ((0, 0), (0, -scales.shape[1] % 4)))
            codes = to_card(matrix.values.view(_BYTE), _BYTE)
            return CudaFp8(codes, to_card(scales, np.dtype(np.float32)), dtype)
        rows, columns = matrix.shape
        codes, scales = cupy.empty((rows, columns), _BYTE), cupy.empty((rows, 1), np.float32)
        step = max(1, _CHUNK // max(1, columns))
        for begin in range(0, rows, step):
            part = matrix[begin : begin + step]
            part = to_card(part, part.dtype if part.dtype in NAMES else np.dtype(np.float32))
            _quantise_rows(codes[begin : begin + step], scales[begin : begin + step], part, columns)
        if not bool(cupy.isfinite(scales).all()):
            raise WeightsError("fp8: the weights hold NaN or infinity")
        return CudaFp8(codes, scales, dtype)


def _quantise_rows(codes: Any, scales: Any, x: Any, distance: int) -> None:
    rows, width = codes.shape
    if not rows:
        return
    even = not (width % 16 or x.data.ptr % 16 or distance * x.itemsize % 16)
    run = function("fp8", "quantize_rows", X=NAMES[x.dtype], VECTOR=16 if even else 1)
    run((rows,), (_THREADS,), (codes, scales, x, width, distance))


def quantise(x: Any, rows: int, width: int, distance: int, grouped: bool) -> Quantised:
    """Activations in E4M3.

    Args:
        x: rows of numbers, that begin at multiples of 16 bytes.
        rows: how many.
        width: of a row: a multiple of 16, or of 128 if ``grouped``.
        distance: elements from one row to the next.
        grouped: whether each 128 columns have a scale of their own; else the row has one.
    """
    if not grouped:
        codes, scales = cupy.empty((rows, width), _BYTE), cupy.empty((rows, 1), np.float32)
        _quantise_rows(codes, scales, x, distance)
        return Quantised(codes, scales)
    padded, total = -(-rows // 4) * 4, rows * width // 16
    codes, scales = cupy.empty((padded, width), _BYTE), cupy.empty((width // BLOCK, padded), np.float32)
    run = function("fp8", "quantize_groups", X=NAMES[x.dtype], VECTOR=16)
    run((-(-total // _THREADS),), (_THREADS,), (codes, scales, x, total, padded, width, distance))
    return Quantised(codes, scales)


def scaling(matrix: CudaFp8, dtype: np.dtype[Any]) -> cublaslt.Scaling | None:
    """How cuBLASLt multiplies a matrix with activations in E4M3; None if it doesn't, and it has to be widened.

    It takes scales of rows, or of blocks, on cards of compute capability 9.0; and float32 is left as exact as it is.
    """
    shift, stride = matrix.places
    blocks = shift > 0
    if dtype.itemsize != 2 or compute_capability(matrix.codes.device.id) != (9, 0) or not cublaslt.multiplies_fp8():
        return None
    out, inputs = matrix.shape
    if out % 16 or inputs % (BLOCK if blocks else 16) or (stride > 1 and not blocks):
        return None
    return cublaslt.BLOCKS if blocks else cublaslt.ROWS
