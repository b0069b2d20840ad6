"""Attention in a recording, which appends a position to its cache on the way, against the operations one by one."""

import numpy as np
import pytest

import tallow as tl
from tallow import ops
from tallow.ops import KVCache
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import error, in_any_order, needs_gpu, numbers
from tests.backends.cuda.test_fusion import NEAR, check, put

pytestmark = needs_gpu


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "d"), [(4, 2, 64), (16, 8, 128), (3, 1, 32), (2, 2, 16), (32, 4, 128), (4, 4, 256)]
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("held", "window"), [(0, None), (5, None), (300, None), (1500, None), (0, 2), (300, 1), (300, 299), (1500, 256)]
)
def test_attention_to_a_cache_that_grows(dtype, heads, kv_heads, d, batch, held, window):
    gains = [put(numbers(d, seed=seed), dtype) for seed in (7, 8)]
    inputs = [put(numbers(batch, 1, count, d, seed=i), dtype) for i, count in enumerate([heads, kv_heads, kv_heads])]
    weight = put(numbers(64, heads * d, seed=9) / (heads * d) ** 0.5, dtype)
    angles = numbers(batch, 1, d // 2, seed=4)
    cos, sin = (Tensor(f(angles)).to("cuda") for f in (np.cos, np.sin))
    before = [put(numbers(batch, held, kv_heads, d, seed=seed), dtype) for seed in (11, 12)] if held else None
    sides = []
    for recorded in (False, True):
        cache = in_any_order(KVCache(batch, kv_heads, d, held + 8, dtype, "cuda"))
        if before:
            cache.append(*before, None if batch == 1 else [held, held // 2, 1])

        def run(cache=cache):
            q, k, v = inputs
            q = ops.rope_append(q, k, v, cache, cos, sin, q_norm=gains[0], k_norm=gains[1], interleaved=d == 64)
            y = ops.attention(q, cache, causal=True, window=window)
            return ops.linear(y.reshape(batch, 1, -1), weight)

        results = []
        if recorded:
            recording = Recording(run, tl.Device("cuda"))
            results.append(recording.result.float().numpy())
        for _ in range(4 - len(results)):
            results.append((recording.replay() if recorded else run()).float().numpy())
        assert cache.held.tolist() == cache.lengths.tolist()
        sides.append((np.stack(results), *cache.view()[:2], cache.lengths.tolist()))
    assert sides[0][3] == sides[1][3]
    assert error(Tensor(sides[1][0]), Tensor(sides[0][0])) <= 2 * NEAR[dtype]
    for mine, other in zip(sides[1][1:3], sides[0][1:3], strict=True):
        for row, length in enumerate(sides[0][3]):
            assert error(mine[row, :length].float(), other[row, :length].float()) <= 1e-3


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("m", [1, 90, 1500])
def test_attention_to_what_is_there(dtype, queries, m):
    cache = KVCache(1, 4, 64, m, dtype, "cuda")
    cache.append(*(put(numbers(1, m, 4, 64, seed=seed), dtype) for seed in (1, 2)))
    q, weight = put(numbers(1, queries, 4, 64), dtype), put(numbers(256, 256, seed=3) / 16, dtype)
    check(lambda: ops.linear(ops.attention(q, cache).reshape(queries, 1, 256), weight), dtype)


@pytest.mark.parametrize("dtype", NEAR)
def test_what_is_appended_to_a_full_cache_is_seen_once(dtype):
    heads, kv_heads, d, room = 4, 2, 64, 40
    q, k, v = (put(numbers(1, 1, count, d, seed=i), dtype) for i, count in enumerate([heads, kv_heads, kv_heads]))
    before = [put(numbers(1, room - 1, kv_heads, d, seed=seed), dtype) for seed in (11, 12)]
    full, roomy = (KVCache(1, kv_heads, d, capacity, dtype, "cuda") for capacity in (room, room + 1))
    for cache in (full, roomy):
        cache.append(*before)

    def run(cache):
        cache.append(k, v)
        return ops.attention(q, cache)

    expected = [run(roomy).float() for _ in range(2)]
    recording = Recording(lambda: run(full), tl.Device("cuda"))
    assert error(recording.result.float(), expected[0]) <= NEAR[dtype]
    kept = full.keys.numpy().copy()
    for _ in range(2):
        assert error(recording.replay().float(), expected[1]) <= NEAR[dtype]
    assert np.array_equal(full.keys.numpy(), kept)
    assert full.held.tolist() == [room + 2]
