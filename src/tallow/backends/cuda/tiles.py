"""Quantised matrices as a card's kernels read them (``blocks.cu``): tiles of 16 rows and 64 columns.

The functions here work on NumPy's arrays and on CuPy's, so matrices are rearranged where they lie.

A matrix of R × C tiles is kept in planes, each of them in the order of the tiles, row by row. A row of a tile is named
(half, g): 8 half + g. A column is (i, t, s, e): 16 i + 4 t + 2 s + e, where i, t < 4 and s, e < 2. Lane 4 g + t of a
warp multiplies all columns of its t, in both rows of its g. The planes hold, first to last index, lowest bits first:

- *codes* of four bits: (R, C, g, t, half, i / 2, e, i % 2, s), 16 bytes a lane; of eight: (R, C, half, g, t, i, e, s);
- *high*, the fifth bits: (R, C, g, t, e, half, i, s), or fifth and sixth: (R, C, g, t, half, e, i, s);
- *scales*: (R, C, g, half, run, …), whose last index is (scale, minimum) if there are minima;
- *supers*, what scales in bytes are multiplied by, for 256 columns: (R, C / 4, g, half, (scale, minimum)).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tallow.errors import ShapeError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.quantize import Int8Matrix

HEIGHT, WIDTH = 16, 64
SUPER = 256  # columns
HALVES, BYTES, FLOATS = 0, 1, 2
"""What scales are: halves; bytes under halves for 256 columns; floats."""

# The axes of codes cut into (R, half, g, C, i / 2, i % 2, t, s, e), in the order of each plane.
_FOUR_BITS = (0, 3, 2, 6, 1, 4, 8, 5, 7)
_EIGHT_BITS = (0, 3, 1, 2, 6, 4, 5, 8, 7)
_FIFTH_BITS = (0, 3, 2, 6, 8, 1, 4, 5, 7)
_FIFTH_AND_SIXTH_BITS = (0, 3, 2, 6, 1, 8, 4, 5, 7)


class Layout(NamedTuple):
    """How a type of weight lies on a card.

    Attributes:
        bits: of a code.
        run: columns that share a scale; 0: all of a row do, and the scales (rows,) are no tiles' own.
        scales: ``HALVES``, ``BYTES`` or ``FLOATS``.
        minima: whether a number is ``scale · code + minimum``; else it is ``scale · (code − offset)``.
        offset: see there. Codes of eight bits are signed and have none.
    """

    bits: int
    run: int
    scales: int
    minima: bool
    offset: int


LAYOUTS = {
    "q4_0": Layout(4, 32, HALVES, False, 8),
    "q4_1": Layout(4, 32, HALVES, True, 0),
    "q5_0": Layout(5, 32, HALVES, False, 16),
    "q5_1": Layout(5, 32, HALVES, True, 0),
    "q8_0": Layout(8, 32, HALVES, False, 0),
    "q4_k": Layout(4, 32, BYTES, True, 0),
    "q5_k": Layout(5, 32, BYTES, True, 0),
    "q6_k": Layout(6, 16, BYTES, False, 32),
}
"""Of GGUF's blocks, those of ``BLOCK_STORAGES["cuda"]``. In bytes' minima the sign is turned."""

INT8_ROWS, INT8_GROUPS = Layout(8, 0, FLOATS, False, 0), Layout(8, 16, FLOATS, False, 0)


class Planes(NamedTuple):
    """The planes of a matrix, or of a stretch of its rows of tiles, as bytes (rows of tiles, …); None: not needed."""

    codes: Any
    high: Any
    scales: Any
    supers: Any


def layout_of(matrix: BlockMatrix | Int8Matrix) -> Layout:
    """How a matrix will lie.

    Raises:
        ShapeError: for int8 in groups that are no multiple of 16 columns.
    """
    if isinstance(matrix, BlockMatrix):
        return LAYOUTS[matrix.storage]
    if matrix.scales.ndim == 1:
        return INT8_ROWS
    group = matrix.shape[1] // matrix.scales.shape[1]
    if group % INT8_GROUPS.run:
        raise ShapeError(f"int8 on a card: groups of {group} columns; they must be a multiple of {INT8_GROUPS.run}")
    return INT8_GROUPS


def block_planes(xp: Any, raw: Any, matrix: BlockMatrix) -> Planes:
    """Some rows of a matrix in GGUF's blocks as planes.

    Args:
        xp: NumPy or CuPy.
        raw: (rows, bytes), one of its arrays.
        matrix: whose rows they are.
    """
    layout, kind = LAYOUTS[matrix.storage], matrix.kind
    blocks = raw.reshape(-1, kind.nbytes)
    parts = {}
    for name, (dtype, begin, *_) in (kind.layout.fields or {}).items():
        parts[name] = xp.ascontiguousarray(blocks[:, begin : begin + dtype.itemsize])
    codes = _codes(xp, parts, matrix.storage).reshape(len(raw), -1)
    halves = [parts[name].view(np.float16) for name in ("d", "m" if "m" in parts else "dmin") if name in parts]
    supers = None
    if layout.scales == HALVES:
        scales = xp.stack(halves, axis=-1)
    else:
        scales = parts["scales"].view(np.uint8) if not layout.minima else _scales_and_minima(xp, parts["scales"])
        halves = halves if layout.minima else [*halves, xp.zeros_like(halves[0])]
        supers = _tiled(xp, xp.stack(halves, axis=-1).reshape(len(raw), -1, 2), 1)
    scales = scales.reshape(len(raw), codes.shape[1] // layout.run, -1)
    return Planes(*_code_planes(xp, codes, layout.bits), _tiled(xp, scales, WIDTH // layout.run), supers)


def int8_planes(xp: Any, values: Any, scales: Any) -> Planes:
    """Some rows of an int8 matrix as planes.

    Args:
        xp: NumPy or CuPy.
        values: (rows, columns) int8, one of its arrays.
        scales: (rows,), or (rows, groups) of a multiple of 16 columns, float32.
    """
    codes, high = _code_planes(xp, values.view(np.uint8), 8)
    if scales.ndim == 1:
        kept = xp.zeros((len(codes), HEIGHT), np.float32)
        kept.reshape(-1)[: len(scales)] = scales
        return Planes(codes, high, kept.view(np.uint8), None)
    runs = xp.repeat(scales, values.shape[1] // scales.shape[1] // INT8_GROUPS.run, axis=1)
    return Planes(codes, high, _tiled(xp, runs[..., None], WIDTH // INT8_GROUPS.run), None)


def _codes(xp: Any, parts: dict[str, Any], name: str) -> Any:
    """(blocks, values in a block) uint8. See ``matrix/blocks`` for how they lie in each type."""
    if name == "q8_0":
        return parts["qs"]
    if name == "q6_k":
        return _fields(xp, parts["ql"], 64, 4) | _fields(xp, parts["qh"], 32, 2) << 4
    width = 16 if LAYOUTS[name].scales == HALVES else 32
    codes = _fields(xp, parts["qs"], width, 4)
    if "qh" not in parts:
        return codes
    if name == "q5_k":
        return codes | _fields(xp, parts["qh"], 32, 1) << 4
    return codes | _fields(xp, parts["qh"], 1, 1) << 4


def _fields(xp: Any, packed: Any, width: int, bits: int) -> Any:
    """As ``matrix/blocks/unpack.fields``."""
    runs = packed.reshape(len(packed), -1, width)
    parts = [runs >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    return xp.stack(parts, axis=2).reshape(len(packed), -1)


def _scales_and_minima(xp: Any, packed: Any) -> Any:
    """(blocks, 12) -> (blocks, 8, 2). As ``matrix/blocks/k_quants.scales_and_minima``."""
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = xp.concatenate([first & 63, rest & 15 | first >> 2 & 48], axis=1)
    minima = xp.concatenate([second & 63, rest >> 4 | second >> 2 & 48], axis=1)
    return xp.stack([scales, minima], axis=-1)


def _code_planes(xp: Any, codes: Any, bits: int) -> tuple[Any, Any]:
    """Codes (rows, columns) uint8 as the planes *codes* and *high*."""
    down, across = -(-codes.shape[0] // HEIGHT), -(-codes.shape[1] // WIDTH)
    whole = codes
    if codes.shape != (down * HEIGHT, across * WIDTH):
        whole = xp.zeros((down * HEIGHT, across * WIDTH), np.uint8)
        whole[: codes.shape[0], : codes.shape[1]] = codes
    cut = whole.reshape(down, 2, 8, across, 2, 2, 4, 2, 2)
    if bits == 8:
        return xp.ascontiguousarray(cut.transpose(_EIGHT_BITS)).reshape(down, -1), None
    low = _packed(xp, cut.transpose(_FOUR_BITS) & 15, 4)
    if bits == 4:
        return low, None
    order = _FIFTH_BITS if bits == 5 else _FIFTH_AND_SIXTH_BITS
    return low, _packed(xp, cut.transpose(order) >> 4, bits - 4)


def _packed(xp: Any, fields: Any, bits: int) -> Any:
    """Small codes put together into bytes, the first of each lowest: (rows of tiles, bytes)."""
    apart = xp.ascontiguousarray(fields).reshape(len(fields), -1, 8 // bits)
    out = apart[..., 0].copy()
    for i in range(1, 8 // bits):
        out |= apart[..., i] << i * bits
    return out


def _tiled(xp: Any, values: Any, runs: int) -> Any:
    """Values (rows, runs of all tiles, …) in the order of *scales*, as bytes, rows and runs filled up with zeros."""
    rows, count, each = values.shape
    down, across = -(-rows // HEIGHT), -(-count // runs)
    whole = values
    if (rows, count) != (down * HEIGHT, across * runs):
        whole = xp.zeros((down * HEIGHT, across * runs, each), values.dtype)
        whole[:rows, :count] = values
    cut = whole.reshape(down, 2, 8, across, runs, each).transpose(0, 3, 2, 1, 4, 5)
    return xp.ascontiguousarray(cut).reshape(down, -1).view(np.uint8)
