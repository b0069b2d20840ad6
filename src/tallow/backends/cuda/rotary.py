"""Rotary embeddings, alone and with what a decoder does around them."""

from __future__ import annotations

import functools
from typing import Any

import cupy
import numpy as np

from tallow.backends.cuda import fusion, graph
from tallow.backends.cuda.arrays import adjacent, strides, vector
from tallow.backends.cuda.kernels import NAMES, function, table_of, ticket
from tallow.ops.dispatch import kernel
from tallow.ops.kv_cache import KVCache
from tallow.ops.rope import check_rope
from tallow.tensor import Tensor

THREADS = 128


@kernel("rope", "cuda")
def rope(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Any:
    """See ``ops.rope``."""
    check_rope(x, cos, sin)
    if x.storage.dtype not in NAMES or not x.size:
        return NotImplemented
    array = adjacent(x.storage)
    cosines, sines, shared = angles(cos, sin)
    b, n, heads, d = array.shape
    out = cupy.empty(array.shape, array.dtype)
    lanes = _lanes(array)
    if lanes and b * n * heads < 1 << 32:
        run = function("rotary", "rotate_heads", T=NAMES[array.dtype], C=NAMES[array.dtype], G="f32", D=d)
        sizes = (b * n * heads, n, heads, *strides(array)[:3], shared, int(interleaved))
        run((-(-b * n * heads * lanes // THREADS),), (THREADS,), (out, array, cosines, sines, *sizes))
    else:
        run = function("elementwise", "rope", T=NAMES[array.dtype], W="f32", VECTOR=1)
        arguments = (out, array, cosines, sines, n, heads, d, *strides(array)[:3], shared, int(interleaved))
        run((b * n,), (min(256, -(-heads * d // 64) * 32),), arguments)
    return Tensor(out, x.device)


@kernel("rope_append", "cuda", defers=True)
def rope_append(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: KVCache,
    cos: Tensor,
    sin: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 1e-6,
    interleaved: bool = False,
    counts: Any = None,
) -> Any:
    """See ``ops.rope_append``."""
    check_rope(q, cos, sin)
    queries, keys, values = adjacent(q.storage), adjacent(k.storage), adjacent(v.storage)
    gains = [cupy.ascontiguousarray(norm.storage) for norm in (q_norm, k_norm) if norm is not None]
    lanes = _lanes(queries, keys, values)
    if not lanes or not queries.size or not keys.size or not _gains_fit(gains, queries.shape[3]):
        return NotImplemented
    added = cache.check_append(k, v, counts)
    turning = cosines, sines, shared = angles(cos, sin)
    (b, n, heads, d), kv_heads = queries.shape, keys.shape[2]
    out = cupy.empty(queries.shape, queries.dtype)
    on_card = None if added is None else cupy.asarray(added)
    q_gain, k_gain = gains or (None, None)
    run = function(
        "rotary", "rotate_and_append", T=NAMES[queries.dtype], C=NAMES[cache.dtype.numpy],
        G=NAMES[gains[0].dtype] if gains else "f32", D=d,
    )  # fmt: skip
    arguments = (
        out, cache.keys.storage, cache.values.storage, table_of(cache), cache.held.storage, queries, keys, values,
        cosines, sines, q_gain, k_gain, on_card, ticket(), b, n, heads, kv_heads, cache.capacity,
        cache.values.shape[3], *strides(queries)[:3], *strides(keys)[:3], *strides(values)[:3], shared,
        int(interleaved), float(eps),
    )  # fmt: skip
    launch = functools.partial(run, (b * n, -(-(heads + 2 * kv_heads) * lanes // THREADS)), (THREADS,), arguments)
    waits = added is None and graph.recording() and fusion.defer(
        fusion.Append(cache, keys, values, launch, queries, turning, (q_gain, k_gain), eps, interleaved, out)
    )  # fmt: skip
    if not waits:
        launch()
    graph.grow(cache, n if added is None else added)
    return Tensor(out, q.device)


def angles(cos: Tensor, sin: Tensor) -> tuple[Any, Any, int]:
    """Cosines and sines without gaps, and the distance from one row's to the next: 0 if all share them."""
    cosines, sines = (cupy.ascontiguousarray(angle.storage, np.float32) for angle in (cos, sin))
    return cosines, sines, 0 if cosines.shape[0] == 1 else cosines[0].size


def _lanes(*arrays: Any) -> int:
    """Threads that hold a head of arrays (b, n, heads, d) of one type together; 0 if part of a warp cannot."""
    dtype, d = arrays[0].dtype, arrays[0].shape[3]
    if dtype not in NAMES or any([array.dtype != dtype for array in arrays]):
        return 0
    size = vector(*arrays, width=d)
    return d // size if size > 1 and d // size in (2, 4, 8, 16, 32) else 0


def _gains_fit(gains: list[Any], d: int) -> bool:
    """Whether a kernel takes the gains of queries' and keys' heads: none, or both, of one type."""
    if len(gains) != 2:
        return not gains
    one, other = gains
    return one.dtype == other.dtype in NAMES and one.shape == other.shape == (d,) and vector(*gains, width=d) > 1
