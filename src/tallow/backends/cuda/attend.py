"""Attention of one new position of each row, which is appended to the cache on the way: see fusion.py and attend.cu."""

from __future__ import annotations

from typing import Any

from tallow.backends.cuda import fusion
from tallow.backends.cuda.kernels import NAMES, function, most_shared, multiprocessors, table_of, ticket
from tallow.ops.kv_cache import KVCache

_THREADS = 256  # of a block: see attend.cu
_WARPS = _THREADS // 32
_STREAM = {"AT_ONCE": 4, "DEPTH": 2}  # see attend.cu
_UNDER_WAY = _STREAM["AT_ONCE"] * _STREAM["DEPTH"] * 2 * 16 * _THREADS  # bytes of keys and values
_MAX_BLOCKS = 8  # of a cluster: what every card can have


def attention(out: Any, q: Any, cache: KVCache, scale: float, window: int) -> bool:
    """Whether attention of one query of each row has been launched, and what waited to be appended with it.

    Args:
        out: (b, 1, heads, d).
        q: queries, likewise.
        cache: of the rows.
        scale: of scores.
        window: how many of the last positions are seen.
    """
    b, n, heads, d = q.shape
    if n != 1 or not fusion.heads_fit(d) or not fusion.side_by_side(q):
        return False
    group = heads // cache.kv_heads
    queries = 4 if group > 2 else group  # that meet a key together
    work = b * cache.kv_heads * -(-group // queries)
    cluster = _cluster(work, queries * d, min(cache.capacity, window) * d * q.itemsize)
    piece = queries * d // cluster
    shared = _UNDER_WAY + 4 * (queries + 2) * d + 4 * cluster * _WARPS * (piece + 4 + 2 * max(1, piece // d))
    new = fusion.append_before(q, cache) if shared <= most_shared() else None
    if new is None:
        return False
    query = q if new.q is None else new.q
    macros = {"T": NAMES[q.dtype], "HEAD": d, "QUERIES": queries, "CLUSTER": cluster} | _STREAM
    run = function("attend", "attend", **macros)
    cosines, sines, angle_stride = (None, None, 0) if new.angles is None else new.angles
    arguments = (
        out, new.turned, query, new.k, new.v, cache.keys.storage, cache.values.storage, table_of(cache),
        cache.held.storage, cosines, sines, *new.gains, ticket(), heads, cache.kv_heads, cache.capacity,
        _stride(query), _stride(new.k), _stride(new.v), angle_stride, int(new.interleaved), int(new.early), window,
        float(scale), float(new.eps),
    )  # fmt: skip
    run((cluster, work // b, b), (_THREADS,), arguments, shared)
    return True


def _cluster(work: int, results: int, nbytes: int) -> int:
    """Blocks that share the keys of a row.

    Args:
        work: clusters that there will be.
        results: numbers that one makes.
        nbytes: of the keys that a row can see.
    """
    blocks = 1
    while (
        2 * blocks <= _MAX_BLOCKS
        and 2 * blocks * work <= multiprocessors()
        and 16 * blocks <= results
        and 16 * _THREADS * blocks < nbytes
    ):
        blocks *= 2
    return blocks


def _stride(x: Any) -> int:
    """From one row to the next."""
    return int(x.strides[0] // x.itemsize)
