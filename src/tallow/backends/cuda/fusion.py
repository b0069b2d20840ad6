"""What waits, in a recording on a few rows, for the kernel that does it on its way.

A norm of a few rows takes a card longer to begin than to do, as does an append to a cache. So while a recording is
made neither is launched: a norm waits for the linear map that reads its result, an append for the attention to its
cache, and the kernels of these do both. Whatever else is launched first, launches what waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tallow.backends.cuda import graph
from tallow.backends.cuda.kernels import NAMES, capability
from tallow.ops.kv_cache import KVCache

_MAX_BYTES = 31 << 10  # of normalised rows, and of the norm's parameters, which every block keeps beside others
_ROWS = 8  # that a kernel takes which is bound by reading its weight


class Norm(NamedTuple):
    """A norm that has not been done: what it reads and writes, and how to launch it."""

    out: Any
    x: Any
    gain: Any
    shift: Any
    eps: float
    launch: Callable[[], None]

    @property
    def nbytes(self) -> int:
        """Of its rows and parameters."""
        return int(self.x.nbytes + self.gain.nbytes * (1 if self.shift is None else 2))

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
        early: whether no kernel of the recording has changed the cache yet.
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
    early: bool = False

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
        alike = self.cache is cache and q.dtype == self.k.dtype
        return alike and (self.q is None or self.turned.data.ptr == q.data.ptr)


def defer(what: Norm | Append) -> bool:
    """Whether it waits now for the kernel that does it."""
    now = graph.recorded()
    if now is None:
        return False
    if isinstance(what, Norm):
        fits = what.nbytes <= _MAX_BYTES and what.x.size <= _ROWS * what.x.shape[-1]
    else:
        fits = what.k.dtype != np.float32 and what.k.dtype in NAMES and capability() >= (9, 0)
        what = what._replace(early=what.cache.held.storage.data.ptr not in now.grown)
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


def append_before(q: Any, cache: KVCache) -> Append | None:
    """The append that attention of q to a cache waits for, which the caller's kernel now does; None if none waits."""
    now = graph.recorded()
    waits = None if now is None else now.waiting
    if not isinstance(waits, Append) or not waits.precedes(q, cache):
        return None
    assert now is not None
    now.waiting = None
    return waits


def norm_arguments(norm: Norm | None) -> tuple[int, list[Any], int]:
    """Which norm a kernel does (0 none, 1 by RMS, 2 layer norm), arguments that say how, and bytes that it shares."""
    if norm is None:
        return 0, [0, 0, 0, 0.0], 0
    kind = 1 if norm.shift is None else 2
    return kind, [norm.gain, 0 if norm.shift is None else norm.shift, norm.out, float(norm.eps)], norm.nbytes


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
