import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.errors import ArgumentError, ShapeError, TallowError
from tallow.ops.kv_cache import KVCache
from tests.ops.both import both, relative_error, tensor

some = settings(max_examples=30, deadline=None)


def draw(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax_rows(scores):
    """Of each row; zeros where every score is -inf."""
    highest = scores.max(-1, keepdims=True)
    e = np.exp(scores - np.where(np.isneginf(highest), 0, highest))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def formula(q, k, v, scale=None, causal=False, mask=None, lengths=None, window=None):
    """Attention one row, head and query at a time, in float64."""
    (b, n, heads, d), m, group = q.shape, k.shape[1], q.shape[2] // k.shape[2]
    added = np.broadcast_to(np.zeros(()) if mask is None else mask, (b, heads, n, m))
    out = np.zeros(q.shape)
    for row, head, query in np.ndindex(b, heads, n):
        held = m if lengths is None else lengths[row]
        seen = max(0, held - (n - 1 - query)) if causal else held
        first = 0 if window is None else max(0, seen - window)
        if seen:
            keys, values = (x[row, first:seen, head // group].astype(np.float64) for x in (k, v))
            scores = keys @ q[row, query, head].astype(np.float64) * (d**-0.5 if scale is None else scale)
            out[row, query, head] = softmax_rows(scores + added[row, head, query, first:seen]) @ values
    return out


sizes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 70), st.integers(1, 3), st.integers(1, 3))


@both("attention")
@given(sizes, st.sampled_from([8, 24, 32, 40]), st.booleans(), st.booleans(), st.integers(0, 99))
@some
def test_attention(op, size, d, causal, ragged, seed):
    b, n, m, kv_heads, group = size
    q, k, v = (
        draw((b, n, kv_heads * group, d), seed),
        draw((b, m, kv_heads, d), seed + 1),
        draw((b, m, kv_heads, d), seed),
    )
    lengths = np.random.default_rng(seed).integers(0, m + 1, b) if ragged else None
    out = op(
        tensor(q), tensor(k), tensor(v), causal=causal, lengths=None if lengths is None else tensor(lengths, np.int64)
    )
    assert out.dtype.name == "float32"
    assert relative_error(out, formula(q, k, v, causal=causal, lengths=lengths)) < 2e-6


def hide_outside(k, v, n, window, lengths=None):
    """Put no numbers where no query sees them: before the first one's window, and behind a row's length."""
    for row in range(k.shape[0]):
        held = k.shape[1] if lengths is None else lengths[row]
        for x in (k, v):
            x[row, : max(0, held - (n - 1) - window)] = np.nan
            x[row, held:] = np.nan


@both("attention")
@given(sizes, st.integers(1, 80), st.booleans(), st.booleans(), st.integers(0, 99))
@some
def test_a_window(op, size, window, ragged, masked, seed):
    b, n, m, kv_heads, group = size
    q, k, v = (draw((b, length, heads, 16), seed + i) for i, (length, heads) in
               enumerate([(n, kv_heads * group), (m, kv_heads), (m, kv_heads)]))  # fmt: skip
    lengths = np.random.default_rng(seed).integers(0, m + 1, b) if ragged else None
    options = {"causal": True, "window": window, "mask": draw((n, m), seed) if masked else None, "lengths": lengths}
    expected = formula(q, k, v, **options)
    hide_outside(k, v, n, window, lengths)
    given = {name: x if isinstance(x, bool | int) or x is None else tensor(x, x.dtype) for name, x in options.items()}
    assert relative_error(op(tensor(q), tensor(k), tensor(v), **given), expected) < 2e-6


@both("attention")
def test_a_window_of_one_is_the_position_itself(op):
    q, k, v = (draw((2, 5, 3, 8), i) for i in range(3))
    np.testing.assert_allclose(op(tensor(q), tensor(k), tensor(v), causal=True, window=1).numpy(), v, rtol=1e-6)
    wide = op(tensor(q), tensor(k), tensor(v), causal=True, window=1 << 40).numpy()
    np.testing.assert_array_equal(wide, op(tensor(q), tensor(k), tensor(v), causal=True).numpy())


@both("attention")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"causal": True, "window": 0}, "at least 1"),
        ({"causal": True, "window": -3}, "at least 1"),
        ({"causal": True, "window": 2.5}, "at least 1"),
        ({"window": 4}, "causal=True"),
    ],
)
def test_windows_that_mean_nothing(op, options, message):
    x = tensor(draw((1, 3, 1, 8), 0))
    with pytest.raises(ArgumentError, match=message):
        op(x, x, x, **options)


def test_the_weights_of_a_window():
    q, k = tensor(draw((1, 4, 2, 8), 0)), tensor(draw((1, 6, 1, 8), 1))
    weights = ops.attention_weights(q, k, causal=True, window=2).numpy()
    seen = np.arange(6) - np.arange(2, 6)[:, None]
    assert ((weights > 0) == ((seen <= 0) & (seen > -2))).all()


@both("attention")
@pytest.mark.parametrize("shape", [(2, 6, 5, 20), (1, 6, 5, 20), (2, 1, 5, 20), (5, 20), (20,), (2, 6, 1, 1), ()])
@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_is_broadcast_and_added(op, shape, causal):
    q, k, v, mask = draw((2, 5, 6, 16), 0), draw((2, 20, 2, 16), 1), draw((2, 20, 2, 16), 2), draw(shape, 3)
    out = op(tensor(q), tensor(k), tensor(v), mask=tensor(mask), causal=causal, scale=0.5)
    assert relative_error(out, formula(q, k, v, scale=0.5, mask=mask, causal=causal)) < 2e-6


@both("attention")
def test_queries_that_see_no_key_give_zeros(op):
    q, k, v = draw((2, 4, 2, 8), 0), draw((2, 3, 2, 8), 1), draw((2, 3, 2, 8), 2)
    mask = np.zeros((4, 3), np.float32)
    mask[1] = -np.inf
    masked = op(tensor(q), tensor(k), tensor(v), mask=tensor(mask)).numpy()
    assert (masked[:, 1] == 0).all()
    assert (masked[:, [0, 2, 3]] != 0).any(-1).all()
    causal = op(tensor(q), tensor(k), tensor(v), causal=True).numpy()  # the first query lies before the first key
    assert (causal[:, 0] == 0).all()
    short = op(tensor(q), tensor(k), tensor(v), lengths=tensor([0, 3], np.int64)).numpy()
    assert (short[0] == 0).all()
    assert np.allclose(short[1], formula(q, k, v)[1], atol=1e-6)
    none = op(tensor(q), tensor(k[:, :0]), tensor(v[:, :0])).numpy()
    assert none.shape == q.shape
    assert (none == 0).all()


@both("attention")
@pytest.mark.parametrize("shape", [(0, 4, 2, 8), (2, 0, 2, 8), (2, 4, 0, 8)])
def test_nothing_to_attend_with(op, shape):
    kv = draw((shape[0], 3, 2, 8), 0)
    assert op(tensor(draw(shape, 0)), tensor(kv), tensor(kv)).shape == shape


@both("attention")
def test_keys_that_do_not_count_may_hold_anything(op):
    q, k, v = draw((1, 3, 2, 8), 0), draw((1, 80, 2, 8), 1), draw((1, 80, 2, 8), 2)
    expected = op(tensor(q), tensor(k[:, :67]), tensor(v[:, :67])).numpy()
    k[:, 67:], v[:, 67:] = np.nan, np.inf
    out = op(tensor(q), tensor(k), tensor(v), lengths=tensor([67], np.int64)).numpy()
    assert np.allclose(out, expected, atol=1e-6)


@both("attention")
def test_nan_reaches_what_it_takes_part_in(op):
    q, k, v = draw((1, 4, 2, 8), 0), draw((1, 70, 2, 8), 1), draw((1, 70, 2, 8), 2)
    whole = op(tensor(q), tensor(k), tensor(v)).numpy()
    for name, index in (("k", (0, 67, 1, 3)), ("v", (0, 1, 1, 3)), ("q", (0, 2, 0, 0))):
        arrays = {"q": q.copy(), "k": k.copy(), "v": v.copy()}
        arrays[name][index] = np.nan
        out = op(*(tensor(arrays[x]) for x in "qkv")).numpy()
        hurt = {"k": np.s_[:, :, 1], "v": np.s_[:, :, 1, 3], "q": np.s_[:, 2, 0]}[name]
        assert np.isnan(out[hurt]).all()
        clean = ~np.isnan(out)
        assert clean.sum() == out.size - out[hurt].size
        assert np.allclose(out[clean], whole[clean], atol=1e-6)


@both("attention")
@pytest.mark.parametrize("factor", [1e3, 1e8, 1e18])
def test_huge_scores_choose_one_key(op, factor):
    q, k, v = draw((1, 7, 2, 16), 0) * np.float32(factor), draw((1, 150, 2, 16), 1), draw((1, 150, 2, 16), 2)
    best = np.einsum("bnhd,bmhd->bhnm", q.astype(np.float64), k).argmax(-1)  # (b, heads, n)
    expected = np.stack([v[0, best[0, h], h] for h in range(2)], axis=1)[None]
    assert relative_error(op(tensor(q), tensor(k), tensor(v)), expected) < 1e-6


@both("attention")
def test_scores_that_rise_from_key_to_key_are_rescaled(op):
    q, v = np.ones((1, 2, 1, 8), np.float32), draw((1, 400, 1, 8), 0)
    k = np.broadcast_to(np.linspace(-300, 300, 400, dtype=np.float32)[None, :, None, None], v.shape)
    assert relative_error(op(tensor(q), tensor(k), tensor(v), scale=1.0), formula(q, k, v, scale=1.0)) < 2e-6


@both("attention")
def test_an_infinite_score_is_nan_as_in_softmax(op):
    q, k, v = np.ones((1, 1, 1, 8), np.float32), np.ones((1, 3, 1, 8), np.float32), np.ones((1, 3, 1, 8), np.float32)
    k[0, 1, 0, 0] = np.inf
    assert np.isnan(op(tensor(q), tensor(k), tensor(v)).numpy()).all()


@both("attention")
@given(st.permutations(range(4)), st.booleans(), st.integers(0, 9))
@some
def test_any_strides(op, order, reverse, seed):
    def strided(shape, seed):
        """An array of this shape whose axes lie in memory in another order, backwards, and with gaps."""
        wide = draw([2 * shape[axis] for axis in order], seed)
        view = wide.transpose(np.argsort(order))[tuple(slice(None, None, -2 if reverse else 2) for _ in shape)]
        assert view.shape == shape
        return view

    q, k, v = strided((2, 3, 4, 16), seed), strided((2, 30, 2, 16), seed + 1), strided((2, 30, 2, 16), seed + 2)
    out = op(tensor(q), tensor(k), tensor(v), causal=True)
    assert relative_error(out, formula(q, k, v, causal=True)) < 2e-6


@both("attention")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types_are_rounded_once(op, dtype):
    q, k, v = (tensor(draw((1, 5, 2, 8), i)).astype(dtype) for i in range(3))
    out = op(q, k, v)
    assert out.dtype.name == dtype
    arrays = (x.astype("float64").numpy() for x in (q, k, v))
    tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-14}[dtype]
    assert relative_error(out, formula(*arrays)) < tolerance


@both("attention")
@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (((1, 2, 3, 8), (1, 2, 2, 8), (1, 2, 2, 8)), {}),
        (((1, 2, 2, 8), (1, 2, 0, 8), (1, 2, 0, 8)), {}),
        (((1, 2, 2, 8), (1, 2, 2, 9), (1, 2, 2, 9)), {}),
        (((1, 2, 2, 8), (1, 2, 2, 8), (1, 3, 2, 8)), {}),
        (((1, 2, 2, 8), (2, 2, 2, 8), (2, 2, 2, 8)), {}),
        (((2, 2, 8), (2, 2, 8), (2, 2, 8)), {}),
        (((1, 2, 2, 8), (1, 2, 2, 8), (1, 2, 2, 8)), {"lengths": tensor([1, 1], np.int64)}),
        (((1, 2, 2, 8), (1, 2, 2, 8), (1, 2, 2, 8)), {"mask": tensor(np.zeros((3, 2)))}),
    ],
)
def test_shapes_that_do_not_fit(op, shapes, options):
    with pytest.raises(TallowError):
        op(*(tensor(np.zeros(shape)) for shape in shapes), **options)


@both("attention")
@pytest.mark.parametrize("rows", [1, 2])
def test_queries_and_keys_are_turned_before(op, rows):
    q, k, v = (tensor(draw((2, 9, 2, 8), seed)) for seed in range(3))
    angles = draw((rows, 9, 4), 3)
    rotary = tensor(np.cos(angles)), tensor(np.sin(angles))
    expected = ops.attention(ops.rope(q, *rotary), ops.rope(k, *rotary), v, causal=True).numpy()
    assert relative_error(op(q, k, v, causal=True, rotary=rotary), expected) < 1e-6
    with pytest.raises(ShapeError, match="rope"):
        op(q, k[:, :5], v[:, :5], rotary=rotary)


@both("attention")
def test_a_cache_whose_keys_were_to_be_turned_is_refused(op):
    cache = KVCache(1, 2, 8, 4)
    x = tensor(np.zeros((1, 1, 2, 8)))
    cache.append(x, x)
    with pytest.raises(ShapeError, match="KVCache"):
        op(x, cache, rotary=(tensor(np.ones((1, 1, 4))), tensor(np.zeros((1, 1, 4)))))


@both("attention")
def test_a_cache_with_values_beside_it_is_refused(op):
    cache = KVCache(1, 2, 8, 4)
    x = tensor(np.zeros((1, 1, 2, 8)))
    cache.append(x, x)
    with pytest.raises(ShapeError, match="KVCache"):
        op(x, cache, x)


def test_weights_are_what_attention_mixes_with():
    q, k, v = draw((2, 5, 6, 16), 0), draw((2, 20, 2, 16), 1), draw((2, 20, 2, 16), 2)
    weights = ops.attention_weights(tensor(q), tensor(k), causal=True, lengths=tensor([20, 9], np.int64)).numpy()
    mixed = np.einsum("bhnm,bmhd->bnhd", weights, np.repeat(v, 3, axis=2))
    expected = ops.attention(tensor(q), tensor(k), tensor(v), causal=True, lengths=tensor([20, 9], np.int64))
    assert relative_error(expected, mixed) < 1e-6
    some_heads = ops.attention_weights(
        tensor(q), tensor(k), causal=True, lengths=tensor([20, 9], np.int64), heads=[4, 1]
    )
    assert np.array_equal(some_heads.numpy(), weights[:, [4, 1]])
