"""A matrix kept in the blocks that its file has."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow.errors import ShapeError

if TYPE_CHECKING:
    from tallow.matrix.blocks import BlockType

Array = np.ndarray[Any, Any]


class BlockMatrix:
    """A matrix whose rows are runs of blocks.

    Args:
        raw: (rows, bytes in a row) uint8: each row's blocks one after the other; or several such, stacked.
        kind: what the blocks are.

    Attributes:
        parts: what was given.
    """

    def __init__(self, raw: Array | Sequence[Array], kind: BlockType) -> None:
        self.parts = (raw,) if isinstance(raw, np.ndarray) else tuple(raw)
        self.kind = kind
        for part in self.parts:
            if part.ndim != 2 or part.dtype != np.uint8 or part.shape[1] % kind.nbytes:
                raise ShapeError(
                    f"{kind.name}: {part.dtype} of shape {part.shape} is not rows of {kind.nbytes}-byte blocks"
                )

    @functools.cached_property
    def raw(self) -> Array:
        """(rows, bytes in a row) uint8: all of it."""
        return self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)

    @property
    def storage(self) -> str:
        """The type of the blocks, such as ``"q4_k"``."""
        return self.kind.name

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        columns = self.parts[0].shape[1] // self.kind.nbytes * self.kind.elements
        return sum(part.shape[0] for part in self.parts), columns

    @property
    def nbytes(self) -> int:
        """Bytes held, scales included."""
        return sum(part.nbytes for part in self.parts)

    def __getitem__(self, rows: slice | Array) -> BlockMatrix:
        """A stretch of rows, as a view; or the rows of some numbers, as a copy."""
        return BlockMatrix(self.raw[rows], self.kind)

    def copy(self) -> BlockMatrix:
        """The same in memory of its own."""
        return BlockMatrix(self.raw.copy(), self.kind)

    def dequantize(self) -> Array:
        """The matrix in float32."""
        from tallow.matrix.blocks import dequantize  # whose tables take 10 ms, which models without blocks save

        return dequantize(np.ascontiguousarray(self.raw), self.kind, self.shape)

    def columns(self, part: slice) -> BlockMatrix | Array:
        """A stretch of columns: in blocks if it is made of whole ones, else in float32."""
        begin, end, _ = part.indices(self.shape[1])
        if begin % self.kind.elements or end % self.kind.elements:
            return self.dequantize()[:, part]
        unit = self.kind.nbytes
        return BlockMatrix(
            self.raw[:, begin // self.kind.elements * unit : end // self.kind.elements * unit], self.kind
        )

    def widen(self, dtype: np.dtype[Any]) -> Array:
        """The matrix in a floating-point type, without ever holding all of it in float32.

        What is too large for float16 becomes infinite.
        """
        return widened(self, dtype)

    def rows(self, ids: Array) -> Array:
        """The rows ``ids`` (integers of any shape) in float32: shape (…, columns)."""
        return self[ids.ravel()].dequantize().reshape(*ids.shape, self.shape[1])


def widened(matrix: Any, dtype: np.dtype[Any], band: int = 1) -> Array:
    """A matrix that gives stretches of its rows and ``dequantize()``, widened so many rows at a time.

    Args:
        matrix: (rows, columns).
        dtype: floating point.
        band: rows that should not be torn apart.
    """
    out = np.empty(matrix.shape, dtype)
    step = max(1, (1 << 22) // max(1, matrix.shape[1]) // band) * band
    with np.errstate(over="ignore"):
        for begin in range(0, len(out), step):
            out[begin : begin + step] = matrix[begin : begin + step].dequantize()
    return out
