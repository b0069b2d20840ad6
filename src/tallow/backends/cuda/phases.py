"""What a program's phases are, as ``program.cuh`` reads them, and how their work is cut into parts."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from tallow.backends.cuda.kernels import multiprocessors
from tallow.backends.cuda.tiles import HEIGHT

if TYPE_CHECKING:
    from tallow.backends.cuda.blocks import CudaBlocks

SLOT = 4096  # bytes of a place in the ring
WARPS = 16  # of a block that compute: see program.cuh
_WORDS = 32  # of an instruction
_LANE_BYTES = 512  # that a warp reads of a row at once

GATED, X_WIRED, RESIDUAL_WIRED = 1, 2, 4
APPENDS, INTERLEAVED, WIRED = 1, 2, 4  # see program.cuh


class Wire(NamedTuple):
    """A place on the wire that a phase sends its result over.

    Attributes:
        phase: its number.
        offset: in numbers, from the beginning of the result.
    """

    phase: int
    offset: int


class Linear(NamedTuple):
    """A phase that multiplies: the fields of ``Linear`` in program.cuh."""

    kind: int
    out: Any
    out_wire: Any
    x: Any
    codes: Any
    high: Any
    scales: Any
    supers: Any
    row_scales: Any
    bias: Any
    factor: Any
    residual: Any
    gain: Any
    shift: Any
    normed: Any
    outputs: int
    inputs: int
    format: int
    activation: int
    flags: int
    unit_shift: int
    pieces: int
    piece: int
    code_bytes: int
    high_bytes: int
    scale_bytes: int
    super_bytes: int
    eps: float


class Attend(NamedTuple):
    """A phase that attends: the fields of ``Attend`` in program.cuh."""

    kind: int
    out: Any
    out_wire: Any
    q: Any
    k: Any
    v: Any
    keys: Any
    values: Any
    table: Any
    lengths: Any
    cosines: Any
    sines: Any
    q_gain: Any
    k_gain: Any
    turned: Any
    scratch: Any
    tickets: Any
    batch: int
    n: int
    heads: int
    kv_heads: int
    capacity: int
    value_width: int
    q_stride_b: int
    q_stride_n: int
    k_stride_b: int
    v_stride_b: int
    angle_stride: int
    flags: int
    splits: int
    scale: float
    eps: float


def dense_cut(at_once: int, weight: Any) -> dict[str, Any]:
    """How rows of a dense weight are cut into units and pieces."""
    bytes_of_row, pieces, unit = weight.shape[1] * weight.itemsize, 1, 1
    piece = bytes_of_row
    if bytes_of_row > SLOT:
        pieces = -(-bytes_of_row // SLOT)
        piece = -(-bytes_of_row // pieces // _LANE_BYTES) * _LANE_BYTES
        pieces = -(-bytes_of_row // piece)
    else:
        rows = weight.shape[0] / multiprocessors()  # of a block
        most = 4 if at_once <= 4 else 2
        while unit < most and 2 * unit * bytes_of_row <= SLOT and rows >= WARPS * unit:
            unit *= 2
    return {"codes": weight, "format": 0, "unit_shift": unit.bit_length() - 1, "pieces": pieces, "piece": piece,
            "row_scales": None, "high": None, "scales": None, "supers": None, "code_bytes": 0,
            "high_bytes": 0, "scale_bytes": 0, "super_bytes": 0}  # fmt: skip


def tiled_cut(weight: CudaBlocks, format: int) -> dict[str, Any]:
    """How rows of tiles of a quantised weight are cut into pieces."""
    codes, high, scales, supers = weight.planes
    down, across = weight.size
    of_rows = weight.layout.run == 0
    sizes = [0 if plane is None else plane.nbytes // (down * across) for plane in (codes, high, scales)]
    if of_rows:
        sizes[2] = 0
    supers_bytes = 0 if supers is None else supers.nbytes // down * 4 // across
    step = 1 if supers is None else 4
    piece = max(1, int(SLOT / (sum(sizes) + supers_bytes / 4)) // step) * step
    even = -(-across // -(-across // piece))  # pieces as equal as can be
    piece = -(-even // step) * step
    return {"codes": codes, "high": high, "scales": None if of_rows else scales, "supers": supers,
            "row_scales": scales if of_rows else None, "format": format,
            "unit_shift": HEIGHT.bit_length() - 1, "pieces": -(-across // piece), "piece": piece,
            "code_bytes": sizes[0], "high_bytes": sizes[1], "scale_bytes": sizes[2],
            "super_bytes": supers_bytes}  # fmt: skip


def x_bytes(at_once: int, inputs: int) -> int:
    """Of shared memory, for the rows that a linear map reads."""
    return at_once * (inputs + 16) * 2


def partial_bytes(at_once: int, phase: Linear, blocks: int) -> int:
    """Of the sums that a block's warps leave behind."""
    rows = phase.outputs // HEIGHT + 1 if phase.format else phase.outputs
    own = (-(-rows // blocks)) * (2 if phase.flags & GATED else 1)
    units = own if phase.format else -(-own // (1 << phase.unit_shift))
    return -(-units // WARPS) * WARPS * (at_once << phase.unit_shift) * 4


def attend_bytes(head: int, group: int) -> int:
    """Of shared memory, for queries, the new key and value, and what warps have found."""
    return 4 * ((group + 2) * head + WARPS * group * (head + 2))


def group_of(phase: Attend) -> int:
    """Queries that read a key together, where there are many keys."""
    queries = phase.n * (phase.heads // phase.kv_heads)
    return 4 if queries > 2 else queries


def spots(phase: Attend) -> int:
    """Queries in all, each of which may be split among blocks."""
    return phase.batch * phase.kv_heads * phase.n * (phase.heads // phase.kv_heads)


def most_splits(phase: Attend, group: int, blocks: int) -> int:
    """Blocks that share the keys of a row, at most."""
    queries = phase.n * (phase.heads // phase.kv_heads)
    return max(1, min(32, blocks // (phase.batch * phase.kv_heads * -(-queries // group))))


def encoded(phase: Linear | Attend, wires: dict[int, Any]) -> bytes:
    """A phase as the kernel reads it: addresses, 64-bit integers and doubles."""
    parts = []
    for value in phase:
        if isinstance(value, float):
            parts.append(struct.pack("<d", value))
        elif isinstance(value, Wire):
            wire = wires[value.phase]
            parts.append(struct.pack("<q", wire.data.ptr + value.offset * wire.itemsize))
        else:
            parts.append(struct.pack("<q", 0 if value is None else value if isinstance(value, int) else value.data.ptr))
    return b"".join(parts).ljust(8 * _WORDS, b"\0")
