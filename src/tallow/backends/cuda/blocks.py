"""Quantised weights on a card, held in few bits and widened in the registers of the kernels that read them."""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy
import numpy as np

from tallow.backends.cuda import fusion, graph, tiles
from tallow.backends.cuda.arrays import matrix_of
from tallow.backends.cuda.kernels import NAMES, function, multiprocessors
from tallow.backends.cuda.memory import explaining
from tallow.backends.cuda.tiles import HEIGHT, WIDTH, Layout, Planes
from tallow.backends.cuda.upload import to_card
from tallow.device import Device
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.quantize import Int8Matrix

FEW = 16
"""Rows up to which the kernel that widens in registers beats widening everything and a large product."""

_CHUNK = 1 << 24  # numbers that are rearranged at a time


class CudaBlocks:
    """A quantised matrix (out, in) on a card.

    Args:
        shape: (out, in).
        storage: ``"int8"`` or the type of the blocks.
        layout: how they lie.
        planes: where they lie.
        dtype: the type that rows are looked up in, which a model then computes in.
        group: of int8, the columns that share a scale; None for one scale a row.
    """

    __slots__ = ("dtype", "group", "layout", "planes", "shape", "storage")

    def __init__(
        self,
        shape: tuple[int, ...],
        storage: str,
        layout: Layout,
        planes: Planes,
        dtype: np.dtype[Any],
        group: int | None = None,
    ) -> None:
        self.group = group
        self.shape = shape
        self.storage = storage
        self.layout = layout
        self.planes = planes
        self.dtype = dtype

    @property
    def nbytes(self) -> int:
        """Bytes held, scales and padding included."""
        return sum(int(plane.nbytes) for plane in self.planes if plane is not None)

    @property
    def size(self) -> tuple[int, int]:
        """Tiles (down, across)."""
        return -(-self.shape[0] // HEIGHT), -(-self.shape[1] // WIDTH)

    def dequantize(self) -> Any:
        """The matrix in float32."""
        return self.widened(np.dtype(np.float32))

    def rows(self, ids: Any) -> Any:
        """The rows ``ids`` in float32: shape (…, in)."""
        return self.widened(np.dtype(np.float32), ids)

    def widened(self, dtype: np.dtype[Any], ids: Any = None) -> Any:
        """All rows, or those of some numbers: (out, in) or (…, in). Numbers outside the matrix give rows of NaN."""
        with self.planes.codes.device:
            numbers = None if ids is None else cupy.ascontiguousarray(ids, np.int64)
            out = cupy.empty((*(self.shape[:1] if ids is None else ids.shape), self.shape[1]), dtype)
            if out.size:
                run = function(
                    "blocks", "widen", X=NAMES[dtype], W="f32", ROWS=4, TILES=1, WARPS=4, AT_ONCE=1,
                    GATED=0, NORM=0, FORMAT=self.format(dtype),
                )  # fmt: skip
                across = self.size[1]
                given = (out, 0 if numbers is None else numbers, *self.pointers(), *self.shape, across)
                run((out.size // self.shape[1],), (32 * min(-(-across // 8), 8),), given)
        return out

    def format(self, dtype: np.dtype[Any]) -> str:
        """The layout as a type of ``blocks.cuh``, for products with numbers of a type."""
        bits, run, scales, minima, offset = self.layout
        return f"Blocks<{NAMES[dtype]},{bits},{run},{scales},{int(minima)},{offset}>"

    def pointers(self) -> list[Any]:
        """The planes as kernels take them."""
        return [0 if plane is None else plane for plane in self.planes]


def upload(matrix: BlockMatrix | Int8Matrix, device: Device, dtype: np.dtype[Any]) -> CudaBlocks:
    """Bring a quantised matrix to a card, where it is rearranged.

    Args:
        matrix: in one of ``tiles.LAYOUTS``, or int8.
        device: the card.
        dtype: see ``CudaBlocks``.

    Raises:
        OutOfMemoryError: if the card has no room for it.
    """
    layout = tiles.layout_of(matrix)
    rows, columns = matrix.shape
    step = max(1, _CHUNK // max(1, columns * HEIGHT)) * HEIGHT
    with cupy.cuda.Device(device.index), explaining(f"a matrix {matrix.shape} in {matrix.storage}"):
        kept: list[Any] = []
        for begin in range(0, max(rows, 1), step):
            part = matrix[begin : begin + step]
            if isinstance(part, BlockMatrix):
                planes = tiles.block_planes(cupy, to_card(part.raw, np.dtype(np.uint8)), part)
            else:
                values, scales = to_card(part.values, np.dtype(np.int8)), to_card(part.scales, np.dtype(np.float32))
                planes = tiles.int8_planes(cupy, values, scales)
            if not kept:
                down = -(-rows // HEIGHT)
                kept = [None if p is None else cupy.empty((down, p.shape[1]), np.uint8) for p in planes]
            for whole, plane in zip(kept, planes, strict=True):
                if whole is not None:
                    whole[begin // HEIGHT : begin // HEIGHT + len(plane)] = plane
        group = matrix.group if isinstance(matrix, Int8Matrix) else None
        return CudaBlocks(matrix.shape, matrix.storage, layout, Planes(*kept), dtype, group)


def multiply(
    out: Any,
    x: Any,
    distance: int,
    matrix: CudaBlocks,
    bias: Any = None,
    scale: Any = None,
    activation: int = 0,
    residual: Any = None,
    gated: bool = False,
) -> None:
    """``out = activation(x @ matrix.T + bias) · scale + residual`` for at most ``FEW`` rows.

    Args:
        out: (…, outputs), without gaps.
        x: rows of inputs, of out's type.
        distance: elements from one row of x to the next.
        matrix: (outputs, inputs).
        bias: (outputs,), or None.
        scale: (outputs,), of bias' type, or None.
        activation: its number in ``common.cuh``.
        residual: rows of outputs, of out's type, or None.
        gated: whether the result is that of ``ops.linear_glu``; half the matrix' rows are a multiple of ``HEIGHT``.
    """
    outputs = out.shape[-1]
    rows = out.size // outputs
    down, across = matrix.size[0] // (2 if gated else 1), matrix.size[1]
    uneven = matrix.shape[1] % WIDTH or x.data.ptr % 16 or distance * x.itemsize % 16
    cut = _cut(rows, down, across, gated)
    first = None if uneven else fusion.norm_before(x, residual)
    norm, how, shared = fusion.norm_arguments(first)
    graph.flush()
    if uneven:
        padded = cupy.zeros((rows, across * WIDTH), x.dtype)
        begin = cupy.lib.stride_tricks.as_strided(x, (rows, matrix.shape[1]), (distance * x.itemsize, x.itemsize))
        padded[:, : matrix.shape[1]] = begin
        x, distance = padded, across * WIDTH
    vector = bias if bias is not None else scale
    run = function(
        "blocks", "multiply_blocks", X=NAMES[x.dtype], W="f32" if vector is None else NAMES[vector.dtype],
        ROWS=4 if rows <= 4 else -(-rows // 8) * 8, TILES=cut.stacked, WARPS=cut.warps, AT_ONCE=cut.at_once,
        GATED=int(gated), NORM=norm, FORMAT=matrix.format(x.dtype),
    )  # fmt: skip
    added, _, added_distance = (0, 0, 0) if residual is None else matrix_of(residual)
    vectors = [0 if each is None else each for each in (bias, scale)]
    sizes = (rows, outputs, down, across, distance, added_distance, activation)
    arguments = (out, x if first is None else first.x, *matrix.pointers(), *vectors, added, *sizes, *how)
    run((cut.blocks,), (32 * max(4, cut.warps),), arguments, shared)


class _Cut(NamedTuple):
    """How ``multiply_blocks`` shares out its work.

    Attributes:
        warps: that share a stack of tiles.
        stacked: tiles in it.
        at_once: blocks that a multiprocessor has registers for.
        blocks: which take stack after stack.
    """

    warps: int
    stacked: int
    at_once: int
    blocks: int


def _cut(rows: int, down: int, across: int, gated: bool) -> _Cut:
    """See ``_Cut``; there are ``down`` rows of tiles (of gates, if it is gated), and ``across`` tiles in each."""
    warps = 1
    while warps < 16 and across >= 4 * warps:
        warps *= 2
    stacked = 2 if gated or down > 2 * multiprocessors() else 1
    of_block = max(1, 4 // warps) * (1 if gated else stacked)
    at_once = (32 if rows <= 8 else 16) // max(4, warps)
    return _Cut(warps, stacked, at_once, min(-(-down // of_block), at_once * multiprocessors()))
