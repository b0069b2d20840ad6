"""Attention at every level: against float64, and bit for bit against itself in other company."""

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallow import _cpu, ops
from tallow.ops.dispatch import OPERATIONS
from tallow.ops.kv_cache import KVCache
from tallow.tensor import Tensor

some = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = pytest.mark.usefixtures("cpu_level")


def draw(shape, seed):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def kernel(*args, **kwargs):
    """The CPU kernel, which must take the case."""
    result = OPERATIONS["attention"].kernels["cpu"](*args, **kwargs)
    assert result is not NotImplemented
    return result.numpy()


def reference(q, k, v, **options):
    return OPERATIONS["attention"].reference(*(x.astype("float64") for x in (q, k, v)), **options).numpy()


@some
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 5, 6, 7, 13, 70]),
    st.sampled_from([1, 15, 16, 17, 63, 64, 65, 130, 200]),
    st.integers(1, 3),
    st.integers(1, 8),
    st.sampled_from([1, 8, 20, 24, 32, 64, 72, 80, 96, 128, 256]),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_shape(b, n, m, kv_heads, group, d, causal, seed):
    q, k, v = (
        draw((b, n, kv_heads * group, d), seed),
        draw((b, m, kv_heads, d), seed + 1),
        draw((b, m, kv_heads, d), seed + 2),
    )
    error = np.linalg.norm(kernel(q, k, v, causal=causal) - reference(q, k, v, causal=causal))
    terms = reference(q, k, abs(v), causal=causal)  # values of either sign may cancel each other, their errors do not
    assert error < 1e-6 * np.linalg.norm(terms)


def test_error_over_many_keys():
    q, k, v = draw((1, 12, 2, 64), 0), draw((1, 9000, 2, 64), 1), draw((1, 9000, 2, 64), 2)
    expected = reference(q, k, v)
    assert np.linalg.norm(kernel(q, k, v) - expected) / np.linalg.norm(expected) < 1e-6


def test_heads_wider_than_the_kernel_takes_are_left_to_the_reference():
    x = draw((1, 2, 1, 264), 0)
    assert OPERATIONS["attention"].kernels["cpu"](x, x, x) is NotImplemented
    assert ops.attention(x, x, x).shape == x.shape


@some
@given(
    st.integers(1, 150),
    st.lists(st.integers(1, 40), max_size=6),
    st.integers(1, 4),
    st.sampled_from([16, 40, 64]),
    st.sampled_from(["float32", "float16", "int8"]),
    st.sampled_from([1, 2, 5]),
    st.integers(0, 99),
)
def test_a_query_has_the_same_bits_however_the_text_is_cut(threads, first, chunks, group, d, dtype, count, seed):
    """All at once, in chunks over a cache, and token by token; alone or in a batch; for any number of threads."""
    n = first + sum(chunks)
    q, k, v = draw((2, n, 2 * group, d), seed), draw((2, n, 2, d), seed + 1), draw((2, n, 2, d), seed + 2)
    whole = KVCache(2, 2, d, n, dtype=dtype)
    whole.append(k, v)
    threads(1)
    expected = kernel(q, whole, causal=True)
    if dtype == "float32":
        assert np.array_equal(kernel(q, k, v, causal=True), expected)
    threads(count)
    alone = KVCache(1, 2, d, n, dtype=dtype)
    done = 0
    for chunk in [first, *chunks[:-1], *[1] * sum(chunks[-1:])]:
        part = [x[1:2, done : done + chunk] for x in (q, k, v)]
        alone.append(part[1], part[2])
        done += chunk
        out = kernel(part[0], alone, causal=True)
        assert np.array_equal(out, expected[1:2, done - chunk : done])
    assert done == n


@some
@given(st.integers(1, 9), st.integers(1, 200), st.integers(0, 99))
def test_a_row_has_the_same_bits_in_a_ragged_batch(batch, m, seed):
    rng = np.random.default_rng(seed)
    q, k, v = draw((batch, 7, 4, 32), seed), draw((batch, m, 2, 32), seed + 1), draw((batch, m, 2, 32), seed + 2)
    mask = np.where(rng.random((batch, 1, 7, m)) < 0.3, -np.inf, rng.standard_normal((batch, 1, 7, m)))
    mask = Tensor(mask.astype(np.float32))
    lengths = rng.integers(0, m + 1, batch)
    out = kernel(q, k, v, causal=True, mask=mask, lengths=Tensor(lengths))
    for row, held in enumerate(lengths):
        one = slice(row, row + 1)
        alone = kernel(q[one], k[one, :held], v[one, :held], causal=True, mask=mask[one, :, :, :held])
        assert np.array_equal(out[one], alone)


@some
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 5, 13, 70, 130]),
    st.sampled_from([1, 16, 63, 64, 65, 200, 300]),
    st.integers(1, 2),
    st.integers(1, 7),
    st.sampled_from([8, 24, 64, 80]),
    st.sampled_from([1, 2, 3, 16, 63, 64, 65, 100, 128, 1000]),
    st.integers(0, 99),
)
def test_windows_of_any_shape(b, n, m, kv_heads, group, d, window, seed):
    """What no query sees is no number, and reaches none."""
    q, k, v = draw((b, n, kv_heads * group, d), seed), draw((b, m, kv_heads, d), 1), draw((b, m, kv_heads, d), 2)
    options = {"causal": True, "window": window, "lengths": Tensor(np.random.default_rng(seed).integers(0, m + 1, b))}
    expected, terms = (reference(q, k, x, **options) for x in (v, abs(v)))
    for row, held in enumerate(options["lengths"].tolist()):
        for x in (k.storage, v.storage):
            x[row, : max(0, held - (n - 1) - window)] = np.nan
            x[row, held:] = np.nan
    assert np.linalg.norm(kernel(q, k, v, **options) - expected) <= 1e-6 * np.linalg.norm(terms)


@some
@given(
    st.integers(1, 150),
    st.lists(st.integers(1, 70), max_size=5),
    st.integers(1, 4),
    st.sampled_from([16, 40]),
    st.sampled_from(["float32", "float16", "int8"]),
    st.sampled_from([1, 5, 64, 90]),
    st.sampled_from([1, 2, 5]),
    st.integers(0, 99),
)
def test_a_window_has_the_same_bits_however_the_text_is_cut(
    threads, first, chunks, group, d, dtype, window, count, seed
):
    n = first + sum(chunks)
    q, k, v = draw((2, n, 2 * group, d), seed), draw((2, n, 2, d), seed + 1), draw((2, n, 2, d), seed + 2)
    whole = KVCache(2, 2, d, n, dtype=dtype)
    whole.append(k, v)
    threads(1)
    expected = kernel(q, whole, causal=True, window=window)
    held = [x.astype("float64") for x in whole.view()[:2]]
    exact = OPERATIONS["attention"].reference(q.astype("float64"), *held, causal=True, window=window).numpy()
    assert np.linalg.norm(expected - exact) < 1e-5 * np.linalg.norm(exact)
    if dtype == "float32":
        assert np.array_equal(kernel(q, k, v, causal=True, window=window), expected)
    threads(count)
    alone, done = KVCache(1, 2, d, n, dtype=dtype), 0
    for chunk in [first, *chunks[:-1], *[1] * sum(chunks[-1:])]:
        part = [x[1:2, done : done + chunk] for x in (q, k, v)]
        alone.append(part[1], part[2])
        done += chunk
        out = kernel(part[0], alone, causal=True, window=window)
        assert np.array_equal(out, expected[1:2, done - chunk : done])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_what_has_left_the_window_of_a_cache_is_not_read(dtype):
    cache = KVCache(1, 2, 32, 400, dtype=dtype)
    cache.append(draw((1, 390, 2, 32), 0), draw((1, 390, 2, 32), 1))
    q = draw((1, 3, 4, 32), 2)
    expected = kernel(q, cache, causal=True, window=50)
    if dtype == "int8":
        cache.scales.storage[..., :338] = np.nan
    else:
        cache.keys.storage[:, :, : 338 // 16] = np.nan
        cache.values.storage[:, :, :338] = np.nan
    assert np.array_equal(kernel(q, cache, causal=True, window=50), expected)


def test_values_ahead_of_a_query_do_not_reach_it():
    q, k, v = draw((1, 90, 2, 16), 0), draw((1, 90, 2, 16), 1), draw((1, 90, 2, 16), 2)
    expected = kernel(q, k, v, causal=True)
    for at in (63, 70, 89):
        k.storage[0, at:], v.storage[0, at:] = np.nan, np.inf
    out = kernel(q, k, v, causal=True)
    assert np.array_equal(out[:, :63], expected[:, :63])
    assert np.isnan(out[:, 63:]).all()


def test_beams_as_queries_of_one_row():
    cache = KVCache(1, 3, 64, 300)
    cache.append(draw((1, 300, 3, 64), 0), draw((1, 300, 3, 64), 1))
    q = draw((5, 1, 3, 64), 2)
    together = kernel(q.reshape(1, 5, 3, 64), cache)
    for beam in range(5):
        assert np.array_equal(together[:, beam : beam + 1], kernel(q[beam : beam + 1], cache))


def test_many_callers_at_once():
    q, k, v = draw((1, 300, 4, 64), 0), draw((1, 300, 4, 64), 1), draw((1, 300, 4, 64), 2)
    expected = kernel(q, k, v)
    wrong = []

    def call():
        for _ in range(10):
            if not np.array_equal(kernel(q, k, v), expected):
                wrong.append(True)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_the_native_functions_refuse_arrays_that_do_not_fit():
    q = np.zeros((1, 2, 2, 8), np.float32)
    for bad in (q[:, :, :, ::2], q[0], q.astype(np.float64), np.zeros((1, 2, 3, 8), np.float32)):
        with pytest.raises(ValueError, match=r"expected float32|do not fit"):
            _cpu.attention(q.copy(), q, bad, q, 1.0, False, 1 << 62, None, None)
    with pytest.raises(ValueError, match="do not fit"):
        _cpu.attention(q.copy(), q, q, q, 1.0, False, 1 << 62, np.zeros((1, 2, 2, 1), np.float32), None)
    cache = KVCache(1, 2, 8, 16)
    with pytest.raises(ValueError, match="do not fit"):
        _cpu.kv_append(cache.keys.storage, cache.values.storage, None, np.array([15]), q, q, None)
    small = KVCache(1, 2, 8, 16, dtype="int8")
    for scales in (None, np.zeros((1, 2, 2, 8), np.float32), np.zeros((1, 2, 2, 16), np.float64)):
        with pytest.raises(ValueError, match=r"expected float32|do not fit"):
            _cpu.kv_append(small.keys.storage, small.values.storage, scales, np.array([0]), q, q, None)


def test_a_cache_takes_memory_only_as_it_grows():
    pytest.importorskip("resource")

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    try:
        before = resident()
    except OSError:
        pytest.skip("needs /proc")
    cache = KVCache(1, 8, 128, 1 << 20)  # 8 GB of address space
    x = draw((1, 100, 8, 128), 0)
    cache.append(x, x)
    assert resident() - before < 100e6
