"""What waits, in a recording on a few rows, for the kernel that does it on its way.

A norm of a few rows takes a card longer to begin than to do, as does an append to a cache. So while a recording is
made neither is launched: a norm waits for the linear map that reads its result, an append for the attention to its
cache, and the kernels of these do both. Whatever else is launched first, launches what waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cupy
import numpy as np

from tallow.backends.cuda import graph, phases
from tallow.backends.cuda.kernels import NAMES, TICKETS, Structure, function, multiprocessors, table_of, tickets
from tallow.backends.cuda.phases import APPENDS, INTERLEAVED, WIRED, Attend, Wire
from tallow.ops.kv_cache import KVCache

_MOST_BYTES = 16 << 10  # of normalised rows, which every block keeps
_ROWS = 8  # that a kernel takes which is bound by reading its weight


class Norm(NamedTuple):
    """A norm that has not been done: what it reads and writes, and how to launch it."""

    out: Any
    x: Any
    gain: Any
    shift: Any
    eps: float
    launch: Callable[[], None]

    def possible(self) -> bool:
        """Whether a product can do it on its way: of one type, in rows without gaps, all at multiples of 16 bytes."""
        parameters = [each for each in (self.gain, self.shift) if each is not None]
        alike = all(each.dtype == self.x.dtype and each.data.ptr % 16 == 0 for each in parameters)
        return alike and even(self.x, self.x.shape[-1])


class Append(NamedTuple):
    """Keys and values that have not been appended yet, and how to launch that.

    Attributes:
        cache: of the rows.
        k: (b, 1, kv_heads, d).
        v: likewise.
        launch: appends them.
        q: queries (b, 1, heads, d) that are normalised and turned with the keys; None if nothing is.
        angles: cosines and sines (b or 1, 1, d / 2), and numbers from one row's to the next; None for no turning.
        gains: of the norms of queries' and keys' heads.
        eps: of these.
        interleaved: as for ``ops.rope``.
        turned: where the queries go, (b, 1, heads, d).
    """

    cache: KVCache
    k: Any
    v: Any
    launch: Callable[[], None]
    q: Any = None
    angles: tuple[Any, Any, int] | None = None
    gains: tuple[Any, Any] = (None, None)
    eps: float = 0.0
    interleaved: bool = False
    turned: Any = None

    def possible(self) -> bool:
        """Whether attention can do it on its way: one position of each row, of one type, in heads that warps hold."""
        arrays = [each for each in (self.q, self.k, self.v) if each is not None]
        dtype, (_, n, _, d) = self.k.dtype, self.k.shape
        return (
            n == 1
            and self.cache.dtype.numpy == dtype
            and heads_fit(d)
            and all(map(side_by_side, arrays))
            and all(gain is None or gain.dtype == dtype for gain in self.gains)
        )

    def precedes(self, q: Any, cache: KVCache) -> bool:
        """Whether it is what attention of these queries to this cache waits for."""
        return self.cache is cache and (self.q is None or self.turned.data.ptr == q.data.ptr)


def wait(what: Norm | Append) -> bool:
    """Whether it waits now for the kernel that does it."""
    now = graph.recorded()
    if now is None:
        return False
    if isinstance(what, Norm):
        fits = what.x.nbytes <= _MOST_BYTES and what.x.size <= _ROWS * what.x.shape[-1]
    else:
        fits = what.k.dtype != np.float32 and what.k.dtype in NAMES
    if not fits or not what.possible():
        return False
    graph.flush()
    now.waiting = what
    return True


def norm_before(x: Any, residual: Any = None) -> Norm | None:
    """The norm that makes x, which the caller's kernel now does; None if none waits, or the residual is its result."""
    now = graph.recorded()
    waits = None if now is None else now.waiting
    if not isinstance(waits, Norm) or waits.out.data.ptr != x.data.ptr or waits.out.size != x.size:
        return None
    if residual is not None and 0 <= residual.data.ptr - x.data.ptr < x.nbytes:
        return None
    assert now is not None
    now.waiting = None
    return waits


def norm_arguments(norm: Norm | None) -> tuple[int, list[Any], int]:
    """Which norm a kernel does (0 none, 1 by RMS, 2 layer norm), the arguments that say how, and bytes for the rows."""
    if norm is None:
        return 0, [0, 0, 0, 0.0], 0
    kind = 1 if norm.shift is None else 2
    return kind, [norm.gain, 0 if norm.shift is None else norm.shift, norm.out, float(norm.eps)], norm.x.nbytes


def attention(out: Any, q: Any, cache: KVCache, scale: float) -> bool:
    """Whether attention of one query of each row has been launched, and what waited to be appended with it.

    Args:
        out: (b, 1, heads, d).
        q: queries, likewise.
        cache: of the rows.
        scale: of scores.
    """
    now = graph.recorded()
    new = None if now is None else now.waiting
    if now is None or not isinstance(new, Append) or not new.precedes(q, cache) or q.shape[1] != 1:
        return False
    query = q if new.q is None else new.q
    phase = attend(out, query, cache, scale, new, [query, new.k, new.v])
    group, d = phases.group_of(phase), q.shape[3]
    if phases.spots(phase) >= TICKETS or not side_by_side(query):
        return False
    now.waiting = None
    phase = prepared(phase, group, tickets())
    pairs, queries = phase.batch * phase.kv_heads, phase.heads // phase.kv_heads
    shared = phases.attend_bytes(d, group)
    run = function("attend", "attend", shared, T=NAMES[q.dtype], ROWS=1, SLOT=phases.SLOT, HEAD=d, GROUP=group)
    most = max(pairs * queries, pairs * -(-queries // group) * phase.splits)
    run((most,), (32 * phases.WARPS,), (Structure(phases.encoded(phase, {})), tickets()[-1:]), shared)
    return True


def attend(out: Any, query: Any, cache: KVCache, scale: float, new: Append | None, sources: list[Any]) -> Attend:
    """Attention to a cache, after an append to it if there is one, as kernels read it.

    Args:
        out: (b, n, heads, d).
        query: likewise.
        cache: of the rows.
        scale: of scores.
        new: what is appended.
        sources: of the queries and, if there are such, of the new keys and values: arrays, or wires.
    """
    b, n, heads, _ = out.shape
    cosines, sines, angle_stride = (None, None, 0) if new is None or new.angles is None else new.angles
    gains = (None, None) if new is None else new.gains
    flags = APPENDS * (new is not None) | INTERLEAVED * (new is not None and new.interleaved)
    flags |= WIRED * any(isinstance(each, Wire) for each in sources)
    return Attend(
        kind=1, out=out, out_wire=None, q=sources[0], k=None if new is None else sources[1],
        v=None if new is None else sources[2], keys=cache.keys.storage, values=cache.values.storage,
        table=table_of(cache), lengths=cache.held.storage, cosines=cosines, sines=sines, q_gain=gains[0],
        k_gain=gains[1], turned=None if new is None else new.turned, scratch=None, tickets=None, batch=b, n=n,
        heads=heads, kv_heads=cache.kv_heads, capacity=cache.capacity, value_width=cache.values.shape[3],
        q_stride_b=_stride(query, 0), q_stride_n=_stride(query, 1),
        k_stride_b=0 if new is None else _stride(new.k, 0), v_stride_b=0 if new is None else _stride(new.v, 0),
        angle_stride=angle_stride, flags=flags, splits=1, scale=scale, eps=0.0 if new is None else new.eps,
    )  # fmt: skip


def prepared(phase: Attend, group: int, tickets: Any) -> Attend:
    """Attention with memory for what the blocks find that share a row's keys.

    Args:
        phase: what is done.
        group: queries that read a key together.
        tickets: of ``phases.spots``, zeros.
    """
    d, queries = phase.out.shape[3], phase.n * (phase.heads // phase.kv_heads)
    splits = phases.most_splits(phase, group, multiprocessors())
    scratch = cupy.empty(phase.batch * phase.kv_heads * (queries + group) * splits * (d + 2), np.float32)
    return phase._replace(splits=splits, tickets=tickets, scratch=scratch)


def heads_fit(d: int) -> bool:
    """Whether part of a warp holds a head of d features."""
    return 16 <= d <= 256 and d & (d - 1) == 0


def even(x: Any, width: int) -> bool:
    """Whether rows of this width lie without gaps, and begin at multiples of 16 bytes."""
    return bool(x.flags.c_contiguous and width * x.itemsize % 16 == 0 and x.data.ptr % 16 == 0)


def side_by_side(x: Any) -> bool:
    """Whether the heads of (b, n, heads, d) lie side by side, each row at a multiple of 16 bytes."""
    size, d = x.itemsize, x.shape[3]
    heads = x.strides[3] == size and (x.shape[2] == 1 or x.strides[2] == d * size)
    return bool(heads and all(stride % 16 == 0 for stride in x.strides[:2]) and x.data.ptr % 16 == 0)


def _stride(x: Any, axis: int) -> int:
    return int(x.strides[axis] // x.itemsize)
