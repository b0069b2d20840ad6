"""Programs: stretches of a recording on a few rows that one kernel goes through, phase after phase. See ``program.cu``.

While a recording is made, the operations below are not launched but added to the recording's open program; whatever
else is launched closes it first. A norm waits for the linear map that reads its result, and an append to a cache for
the attention to it: each pair is one phase. What cannot be a phase is launched as it is elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cupy
import numpy as np

from tallow.backends.cuda import graph, phases
from tallow.backends.cuda.blocks import CudaBlocks
from tallow.backends.cuda.fusion import Append, Norm, attend, even, heads_fit, prepared, side_by_side
from tallow.backends.cuda.kernels import NAMES, function, multiprocessors
from tallow.backends.cuda.memory import lasting
from tallow.backends.cuda.phases import (
    APPENDS,
    GATED,
    RESIDUAL_WIRED,
    SLOT,
    X_WIRED,
    Attend,
    Linear,
    Wire,
)
from tallow.backends.cuda.tiles import HEIGHT, WIDTH
from tallow.device import compute_capability
from tallow.ops.kv_cache import KVCache

MOST_ROWS = 8
FLIGHT = 8  # places that are being filled at a time: more only make everything else wait
_THREADS = 640  # see program.cuh
_SHARED = 226 << 10  # bytes of shared memory of a block
_MOST_WORK = 112 << 10  # of them for activations and sums: the rest is the ring's

on = False
"""Whether recordings make programs. Off: a phase still takes longer than the kernels that it stands for, so that only
tests ask for them."""


@dataclass
class Program:
    """Phases so far.

    Attributes:
        dtype: of activations.
        rows: of them.
        phases: in order.
        formats: kinds of quantised weights, as types of blocks.cuh.
        head: features of a head, 0 while nothing attends.
        waiting: what may become part of the next phase.
        norms: those that are part of phases.
        wired: numbers of phases whose results later ones read.
    """

    dtype: np.dtype[Any]
    rows: int
    phases: list[Linear | Attend] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)
    head: int = 0
    waiting: Norm | Append | None = None
    norms: list[Norm] = field(default_factory=list)
    wired: set[int] = field(default_factory=set)

    def close(self) -> list[Any]:
        """Launch the phases, then what has waited in vain. Returns arrays that must live as long as the recording."""
        kept = self._launch() if self.phases else []
        if self.waiting is not None:
            self.waiting.launch()
        return kept

    def _launch(self) -> list[Any]:
        blocks = multiprocessors()
        x_bytes = max((phases.x_bytes(self.at_once, p.inputs) for p in self.phases if isinstance(p, Linear)), default=0)
        attends = [phase for phase in self.phases if isinstance(phase, Attend)]
        group = max((phases.group_of(phase) for phase in attends), default=1)
        work = x_bytes + max(
            (phases.partial_bytes(self.at_once, p, blocks) for p in self.phases if isinstance(p, Linear)), default=0
        )
        work = -(-max(work, phases.attend_bytes(self.head, group) if attends else 0) // 128) * 128
        slots = (_SHARED - work) // (SLOT + 16)
        # Of launches, of blocks that have ended, of splits.
        counters = lasting(2 + sum(map(phases.spots, attends)), np.uint32)
        wires = {i: lasting(self.phases[i].out.size, np.uint32) for i in sorted(self.wired)}
        listed: list[Linear | Attend] = []
        begin = 2
        for number, phase in enumerate(self.phases):
            if isinstance(phase, Attend):
                tickets = counters[begin:]
                begin += phases.spots(phase)
                phase = prepared(phase, group, tickets)
            phase = phase._replace(out_wire=wires.get(number))
            listed.append(phase)
        encoded = b"".join(phases.encoded(phase, wires) for phase in listed)
        instructions = lasting(len(encoded) // 8, np.uint64, np.frombuffer(encoded, np.uint64))
        shared = slots * (SLOT + 16) + work
        run = function(
            "program", "program", _SHARED, T=NAMES[self.dtype], ROWS=self.at_once, SLOT=SLOT, FLIGHT=FLIGHT,
            HEAD=self.head or 64, GROUP=group, FORMATS=",".join(self.formats),
        )  # fmt: skip
        arguments = (instructions, len(listed), counters, self.rows, slots, work, x_bytes)
        run.together((blocks,), (_THREADS,), arguments, shared)
        return [instructions, counters, *wires.values(), *(p.scratch for p in listed if isinstance(p, Attend))]

    @property
    def at_once(self) -> int:
        """Rows that the kernel is compiled for."""
        return 1 << (self.rows - 1).bit_length()

    def source(self, array: Any) -> Any:
        """An array as a phase reads it: a wire where an earlier phase makes it, itself where it is there already.

        None for what is there only after the program: what is kept of a norm, queries that were turned.
        """
        begin = array.data.ptr
        for number, phase in enumerate(self.phases):
            if 0 <= begin - phase.out.data.ptr < phase.out.nbytes:
                self.wired.add(number)
                return Wire(number, (begin - phase.out.data.ptr) // array.itemsize)
            late = phase.turned if isinstance(phase, Attend) else phase.normed
            if late is not None and 0 <= begin - late.data.ptr < late.nbytes:
                return None
        return array

    def norm_of(self, x: Any) -> Norm | None:
        """The norm that makes x: the one that waits, or one that an earlier phase did for itself."""
        known = [*self.norms, self.waiting] if isinstance(self.waiting, Norm) else self.norms
        return next((norm for norm in known if norm.out.data.ptr == x.data.ptr), None)

    def format_of(self, blocks: CudaBlocks) -> int:
        """The number of a kind of weight, from 1."""
        name = blocks.format(self.dtype)
        if name not in self.formats:
            self.formats.append(name)
        return self.formats.index(name) + 1


def _program(dtype: np.dtype[Any], rows: int) -> Program | None:
    """The open program for rows of a type, or a new one; None for rows and types that there are none for."""
    now = graph.recorded()
    if now is None or rows > MOST_ROWS or dtype == np.float32 or dtype not in NAMES:
        return None
    if now.program is not None and (now.program.dtype, now.program.rows) != (dtype, rows):
        graph.flush()
    if now.program is None:
        now.program = Program(dtype, rows)
    return now.program


def _anew(program: Program) -> Program:
    """Close the open program, and open another one like it."""
    graph.flush()
    now = graph.recorded()
    assert now is not None
    now.program = Program(program.dtype, program.rows)
    return now.program


def _can() -> bool:
    """Whether this thread makes a recording on a card that programs run on. Asked first: mostly it doesn't."""
    return on and graph.recorded() is not None and compute_capability(cupy.cuda.runtime.getDevice()) >= (9, 0)


def norm(new: Norm) -> bool:
    """Whether a norm of a few rows waits for the linear map that reads it."""
    if not _can():
        return False
    if not new.possible():
        return False
    program = _program(new.x.dtype, new.x.size // new.x.shape[-1])
    if program is None:
        return False
    if program.waiting is not None:
        program = _anew(program)
    program.waiting = new
    return True


def linear(
    out: Any, x: Any, weight: Any, bias: Any, activation: int, factor: Any, residual: Any, gated: bool = False
) -> bool:
    """Whether an affine map of a few rows has become a phase.

    Args:
        out: (rows, outputs).
        x: rows of inputs.
        weight: an array of x's type, (outputs, inputs) or, gated, (2 · outputs, inputs); or ``CudaBlocks``.
        bias: (outputs,), or None.
        activation: its number in common.cuh.
        factor: (outputs,), or None.
        residual: as many numbers as out, or None.
        gated: whether the result is that of ``ops.linear_swiglu``.
    """
    if not _can():
        return False
    (rows, outputs), inputs = out.shape, weight.shape[1]
    vectors = [each for each in (bias, factor, residual) if each is not None]
    if any(each.dtype != x.dtype for each in vectors) or not even(x, inputs):
        return False
    if residual is not None and not residual.flags.c_contiguous:
        return False
    tiled = isinstance(weight, CudaBlocks)
    if not tiled and not isinstance(weight, cupy.ndarray):
        return False
    if tiled and (inputs % WIDTH or (gated and outputs % HEIGHT)):
        return False
    if not tiled and (weight.dtype != x.dtype or weight.data.ptr % 16):
        return False
    program = _program(x.dtype, rows)
    if program is None:
        return False
    first = program.norm_of(x)
    source = program.source(x if first is None else first.x)
    added = None if residual is None else program.source(residual)
    late = first is not None and residual is not None and residual.data.ptr == first.out.data.ptr
    if (
        (program.waiting is not None and program.waiting is not first)
        or late
        or source is None
        or (residual is not None and added is None)
    ):
        program, first, source, added = _anew(program), None, x, residual
    cut = phases.tiled_cut(weight, program.format_of(weight)) if tiled else phases.dense_cut(program.at_once, weight)
    flags = GATED * gated | X_WIRED * isinstance(source, Wire) | RESIDUAL_WIRED * isinstance(added, Wire)
    phase = Linear(
        kind=0, out=out, out_wire=None, x=source, bias=bias, factor=factor, residual=added,
        gain=first and first.gain, shift=first and first.shift, normed=first and first.out, outputs=outputs,
        inputs=inputs, activation=activation, flags=flags, eps=first.eps if first is not None else 0.0, **cut,
    )  # fmt: skip
    if (
        phases.x_bytes(program.at_once, inputs) + phases.partial_bytes(program.at_once, phase, multiprocessors())
        > _MOST_WORK
    ):
        return False
    if first is not None:
        program.norms.append(first)
    program.waiting = None
    program.phases.append(phase)
    return True


def append(new: Append) -> bool:
    """Whether one new key and value of each row wait for the attention to their cache."""
    if not _can() or not new.possible():
        return False
    b, _, _, d = new.k.shape
    program = _program(new.k.dtype, b)
    if program is None:
        return False
    if program.waiting is not None or program.head not in (0, d):
        program = _anew(program)
    program.waiting = new
    return True


def attention(out: Any, q: Any, cache: KVCache, scale: float, causal: bool) -> bool:
    """Whether attention of a few queries to a cache has become a phase.

    Args:
        out: (b, n, heads, d).
        q: queries, likewise.
        cache: of the rows.
        scale: of scores.
        causal: whether queries see no further than themselves; then there is one of each row.
    """
    if not _can():
        return False
    b, n, _, d = q.shape
    if cache.dtype.numpy != q.dtype or not heads_fit(d) or not side_by_side(q) or (causal and n > 1):
        return False
    program = _program(q.dtype, b * n)
    if program is None:
        return False
    new = program.waiting
    belongs = isinstance(new, Append) and new.precedes(q, cache)
    if (new is not None and not belongs) or program.head not in (0, d):
        program, new = _anew(program), None
    assert new is None or isinstance(new, Append)
    again = any(isinstance(p, Attend) and p.flags & APPENDS and p.lengths is cache.held.storage for p in program.phases)
    query = q if new is None or new.q is None else new.q
    given = [query] if new is None else [query, new.k, new.v]
    sources = [program.source(array) for array in given]
    wired = sum(isinstance(each, Wire) for each in sources)
    if again or any(each is None for each in sources) or wired not in (0, len(sources)):
        return False  # and so the program is closed
    program.head, program.waiting = d, None
    program.phases.append(attend(out, query, cache, scale, new, sources))
    return True
