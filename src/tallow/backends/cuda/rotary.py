"""Rotary embeddings, alone and with what a decoder does around them."""

from __future__ import annotations

import functools
from typing import Any

import cupy
import numpy as np

from tallow.backends.cuda import fusion, graph, program
from tallow.backends.cuda.arrays import adjacent, strides, vector
from tallow.backends.cuda.kernels import NAMES, function, table_of, tickets
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


@kernel("rope_append", "cuda")
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
    arrays = [adjacent(each.storage) for each in (q, k, v)]
    lanes = [_lanes(array) for array in arrays]
    gains = [None if norm is None else cupy.ascontiguousarray(norm.storage) for norm in (q_norm, k_norm)]
    dtype = arrays[0].dtype
    if not q.size or not k.size or any(array.dtype != dtype for array in arrays) or not all(lanes):
        return NotImplemented
    given = [gain for gain in gains if gain is not None]
    if len(given) == 1 or any(
        gain.dtype not in NAMES or gain.dtype != given[0].dtype or gain.data.ptr % 16 for gain in given
    ):
        return NotImplemented
    added = cache.check_append(k, v, counts)
    cosines, sines, shared = angles(cos, sin)
    (b, n, heads, d), kv_heads = arrays[0].shape, arrays[1].shape[2]
    out = cupy.empty(arrays[0].shape, dtype)
    on_card = 0 if added is None else cupy.asarray(added)
    run = function(
        "rotary", "rotate_and_append", T=NAMES[dtype], C=NAMES[cache.dtype.numpy],
        G=NAMES[given[0].dtype] if given else "f32", D=d,
    )  # fmt: skip
    arguments = (
        out, cache.keys.storage, cache.values.storage, table_of(cache), cache.held.storage, *arrays, cosines, sines,
        *(0 if gain is None else gain for gain in gains), on_card, tickets()[-1:], b, n, heads, kv_heads,
        cache.capacity, cache.values.shape[3], *(step for array in arrays for step in strides(array)[:3]),
        shared, int(interleaved), eps,
    )  # fmt: skip
    grid = (b * n, -(-(heads + 2 * kv_heads) * lanes[0] // THREADS))
    launch = functools.partial(run, grid, (THREADS,), arguments)
    queries, keys, values = arrays
    turning = cosines, sines, shared
    new = fusion.Append(cache, keys, values, launch, queries, turning, (gains[0], gains[1]), eps, interleaved, out)
    if added is not None or not (program.append(new) or fusion.wait(new)):
        launch()
    graph.grow(cache, n if added is None else added)
    return Tensor(out, q.device)


def angles(cos: Tensor, sin: Tensor) -> tuple[Any, Any, int]:
    """Cosines and sines without gaps, and the distance from one row's to the next: 0 if all share them."""
    cosines, sines = (cupy.ascontiguousarray(angle.storage, np.float32) for angle in (cos, sin))
    return cosines, sines, 0 if cosines.shape[0] == 1 else cosines[0].size


def _lanes(array: Any) -> int:
    """Threads that hold a head of an array (b, n, heads, d) together; 0 if part of a warp cannot."""
    size = vector(array, width=array.shape[3])
    lanes = array.shape[3] // size
    return lanes if array.dtype in NAMES and size > 1 and lanes in (2, 4, 8, 16, 32) else 0
