import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.errors import DTypeError, ShapeError
from tallow.ops.dispatch import OPERATIONS
from tallow.ops.kv_cache import KVCache
from tests.ops.both import tensor

some = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["reference", "dispatched"], autouse=True)
def append_by(request, monkeypatch):
    """Each test runs with the reference implementation of appending, and with whatever dispatch runs here."""
    if request.param == "reference":
        monkeypatch.setattr("tallow.ops.kv_cache.kv_append", OPERATIONS["kv_append"].reference)


def draw(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_holds(cache, rows):
    """That each row of the cache holds these keys and values, lists of (n, heads, d) arrays."""
    k, v, lengths = cache.view()
    assert lengths.numpy().tolist() == [len(keys) for keys, _ in rows]
    assert cache.length == max(len(keys) for keys, _ in rows)
    assert k.shape == v.shape == (len(rows), cache.length, cache.kv_heads, cache.head_dim)
    for row, (keys, values) in enumerate(rows):
        assert np.array_equal(k.numpy()[row, : len(keys)], keys)
        assert np.array_equal(v.numpy()[row, : len(values)], values)


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([1, 8, 20, 64]),
    st.lists(st.integers(0, 40), max_size=4),
    st.booleans(),
    st.sampled_from(["float32", "float16"]),
    st.integers(0, 99),
)
@some
def test_what_is_appended_is_held(batch, heads, d, steps, ragged, dtype, seed):
    rng = np.random.default_rng(seed)
    cache = KVCache(batch, heads, d, max(1, sum(steps)), dtype=dtype)
    rows = [(np.zeros((0, heads, d), dtype),) * 2 for _ in range(batch)]
    for n in steps:
        k, v = draw((batch, n, heads, d), seed), draw((batch, n, heads, d), seed + 1)
        counts = rng.integers(0, n + 1, batch).tolist() if ragged else None
        cache.append(tensor(k), tensor(v), counts)
        for row, (keys, values) in enumerate(rows):
            start = 0 if counts is None else n - counts[row]
            added = k[row, start:].astype(dtype), v[row, start:].astype(dtype)
            rows[row] = np.concatenate((keys, added[0])), np.concatenate((values, added[1]))
    assert_holds(cache, rows)


def test_strided_keys_and_values():
    both = draw((2, 5, 2, 3, 8), 0)
    cache = KVCache(2, 3, 8, 5)
    cache.append(tensor(both[:, :, 0]), tensor(both[:, ::-1, 1, :, ::-1]))
    assert_holds(cache, [(both[row, :, 0], both[row, ::-1, 1, :, ::-1]) for row in range(2)])


def filled(batch, lengths, most=None):
    """A cache whose rows hold so many positions, and what they hold."""
    k, v = draw((batch, max(lengths), 2, 8), 0), draw((batch, max(lengths), 2, 8), 1)
    cache = KVCache(most or batch, 2, 8, 50)
    cache.select(list(range(batch)))
    cache.append(tensor(k), tensor(v), lengths)
    return cache, [(k[i, len(k[i]) - n :], v[i, len(v[i]) - n :]) for i, n in enumerate(lengths)]


def test_truncate():
    cache, rows = filled(3, [20, 5, 33])
    cache.truncate([17, 5, 16])
    rows = [(k[:n], v[:n]) for (k, v), n in zip(rows, [17, 5, 16], strict=True)]
    assert_holds(cache, rows)
    cache.truncate(3)
    rows = [(k[:3], v[:3]) for k, v in rows]
    assert_holds(cache, rows)
    more = draw((3, 2, 2, 8), 5)
    cache.append(tensor(more), tensor(more))
    assert_holds(
        cache, [(np.concatenate((k, m)), np.concatenate((v, m))) for (k, v), m in zip(rows, more, strict=True)]
    )


@pytest.mark.parametrize("wanted", [-1, [1, 2, 3, 4], [21, 5, 33]])
def test_truncate_to_what_cannot_be(wanted):
    cache, _ = filled(3, [20, 5, 33])
    with pytest.raises(ShapeError, match="truncate"):
        cache.truncate(wanted)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
@some
def test_select_reorders_repeats_and_drops_rows(chosen):
    cache, rows = filled(4, [20, 5, 33, 1], most=6)
    cache.select(chosen)
    assert cache.batch == len(chosen)
    assert_holds(cache, [rows[i] for i in chosen])
    cache.select([0])
    assert_holds(cache, [rows[chosen[0]]])


@pytest.mark.parametrize("chosen", [[], [0] * 7, [4], [-1]])
def test_select_what_is_not_there(chosen):
    cache, _ = filled(4, [1, 1, 1, 1], most=6)
    with pytest.raises(ShapeError, match="select"):
        cache.select(chosen)


def test_append_beyond_the_capacity_or_of_another_shape():
    cache, rows = filled(2, [40, 45])
    x = tensor(np.zeros((2, 6, 2, 8)))
    with pytest.raises(ShapeError, match="51 positions"):
        cache.append(x, x)
    with pytest.raises(ShapeError, match="51 positions"):
        cache.append(x, x, [0, 6])
    for shape in [(1, 6, 2, 8), (2, 6, 3, 8), (2, 6, 2, 7), (2, 6, 2)]:
        with pytest.raises(ShapeError, match="append"):
            cache.append(tensor(np.zeros(shape)), tensor(np.zeros(shape)))
    for counts in ([1], [1, 7], [-1, 2]):
        with pytest.raises(ShapeError, match="counts"):
            cache.append(x, x, counts)
    assert_holds(cache, rows)


def test_made_wrongly():
    with pytest.raises(ShapeError, match="KVCache"):
        KVCache(1, 2, 8, 0)
    with pytest.raises(DTypeError, match="float16"):
        KVCache(1, 2, 8, 10, dtype="int32")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_attention_over_a_cache_of_ragged_rows(dtype):
    k, v, q = draw((3, 90, 2, 16), 0), draw((3, 90, 2, 16), 1), draw((3, 4, 4, 16), 2)
    lengths = [90, 17, 3]
    cache = KVCache(3, 2, 16, 100, dtype=dtype)
    cache.append(tensor(k), tensor(v), lengths)
    out = ops.attention(tensor(q), cache, causal=True).numpy()
    k, v = (x.astype(dtype).astype(np.float32) for x in (k, v))
    for row, n in enumerate(lengths):
        alone = [tensor(x[row : row + 1, 90 - n :]) for x in (k, v)]
        expected = OPERATIONS["attention"].reference(tensor(q[row : row + 1]), *alone, causal=True).numpy()
        assert np.allclose(out[row], expected[0], atol=1e-6)
