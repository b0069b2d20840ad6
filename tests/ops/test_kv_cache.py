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


@given(st.integers(1, 3), st.sampled_from([1, 8, 20, 64]), st.lists(st.integers(0, 40), max_size=4), st.integers(0, 99))
@some
def test_int8_holds_each_vector_to_half_a_step(heads, d, steps, seed):
    cache, plain = (KVCache(2, heads, d, max(1, sum(steps)), dtype=dtype) for dtype in ("int8", "float32"))
    by_reference = KVCache(2, heads, d, max(1, sum(steps)), dtype="int8")
    rng = np.random.default_rng(seed)
    for n in steps:
        k, v = (
            x * 10.0 ** rng.integers(-3, 4, (2, n, heads, 1)) for x in (draw((2, n, heads, d), s) for s in (seed, 7))
        )
        k[:, ::3] = 0
        counts = rng.integers(0, n + 1, 2)
        for each in (cache, plain):
            each.append(tensor(k), tensor(v), counts.tolist())
        OPERATIONS["kv_append"].reference(tensor(k), tensor(v), by_reference, counts)
    assert cache.lengths.tolist() == by_reference.lengths.tolist() == plain.lengths.tolist()
    for held, exact, same in zip(cache.view()[:2], plain.view()[:2], by_reference.view()[:2], strict=True):
        for row, length in enumerate(cache.lengths.tolist()):
            one, wanted, other = (x.numpy()[row, :length] for x in (held, exact, same))
            most = np.abs(wanted).max(-1, keepdims=True, initial=0)
            assert (np.abs(one - wanted) <= 0.501 * most / 127 + 1e-30).all()
            assert np.allclose(one, other, rtol=1e-6, atol=1e-30)


def test_int8_rows_are_moved_with_their_steps():
    k, v = draw((3, 40, 2, 16), 0), draw((3, 40, 2, 16), 1)
    cache = KVCache(4, 2, 16, 50, dtype="int8")
    cache.select([0, 1, 2])
    cache.append(tensor(k), tensor(v), [40, 17, 3])
    before = [x.numpy().copy() for x in cache.view()[:2]]
    assert np.array_equal(cache.rows(2).view()[0].numpy(), before[0][:2])
    cache.select([2, 0, 0, 1])
    for now, then in zip(cache.view()[:2], before, strict=True):
        for row, (source, length) in enumerate(((2, 3), (0, 40), (0, 40), (1, 17))):
            assert np.array_equal(now.numpy()[row, :length], then[source, :length])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_int8_passes_on_what_is_not_finite(bad):
    k, v, q = (draw((1, 5, 1, 16), seed) for seed in range(3))
    v[0, 2, 0, 3] = bad
    cache = KVCache(1, 1, 16, 5, dtype="int8")
    cache.append(tensor(k), tensor(v))
    out = ops.attention(tensor(q), cache, causal=True).numpy()
    assert np.isfinite(out[0, :2]).all()
    assert np.isnan(out[0, 2:]).all()


def test_made_wrongly():
    with pytest.raises(ShapeError, match="KVCache"):
        KVCache(1, 2, 8, 0)
    with pytest.raises(DTypeError, match="float16"):
        KVCache(1, 2, 8, 10, dtype="int32")


@pytest.mark.parametrize("n", [4, 40])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_attention_over_a_cache_of_ragged_rows(dtype, n):
    k, v, q = draw((3, 90, 2, 16), 0), draw((3, 90, 2, 16), 1), draw((3, n, 4, 16), 2)
    lengths = [90, 57, 41]
    cache = KVCache(3, 2, 16, 100, dtype=dtype)
    cache.append(tensor(k), tensor(v), lengths)
    out = ops.attention(tensor(q), cache, causal=True).numpy()
    k, v, _ = cache.view()
    for row, length in enumerate(lengths):
        alone = [tensor(x.numpy()[row : row + 1, :length].astype(np.float32)) for x in (k, v)]
        expected = OPERATIONS["attention"].reference(tensor(q[row : row + 1]), *alone, causal=True).numpy()
        assert np.allclose(out[row], expected[0], atol=1e-6)
