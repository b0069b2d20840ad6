"""Attention: each kernel against the reference implementation in float32 on the CPU."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallow as tl
from tallow import ops
from tallow.ops import KVCache
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import TOLERANCE, error, in_any_order, needs_gpu, numbers
from tests.backends.cuda.test_kernels import DTYPES, check, poisoned, some  # noqa: F401

pytestmark = needs_gpu


@pytest.fixture(params=["this card's", "portable"])
def attention_kernels(request, monkeypatch):
    """Attention by kernels for this very card, where it has any, and by those of every card."""
    from tallow.backends.cuda import attention

    if request.param == "portable":
        monkeypatch.setattr(attention, "_ON_HOPPER", {})


ATTENTION = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    b=st.integers(1, 3), n=st.sampled_from([1, 2, 5, 17, 64, 65, 130]),
    m=st.sampled_from([1, 3, 63, 64, 200, 515, 1300]),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1), (3, 3)]), d=st.sampled_from([8, 16, 24, 32, 64, 80, 128, 256]),
    causal=st.booleans(), masked=st.booleans(), shortened=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@ATTENTION
def test_attention(attention_kernels, dtype, b, n, m, heads, d, causal, masked, shortened, seed):
    generator = np.random.default_rng(seed)
    q, k, v = (numbers(b, size, count, d, seed=seed + i)
               for i, (size, count) in enumerate([(n, heads[0]), (m, heads[1]), (m, heads[1])]))  # fmt: skip
    mask = np.where(generator.random((b, 1, n, m)) < 0.3, -np.inf, generator.standard_normal((b, 1, n, m)))
    lengths = generator.integers(0, m + 1, b)

    def run(op, q, k, v):
        place = q.device
        return op(
            q, k, v, causal=causal, mask=Tensor(mask.astype(np.float32)).to(place) if masked else None,
            lengths=Tensor(lengths).to(place) if shortened else None,
        )  # fmt: skip

    check("attention", run, q, k, v, dtype=dtype, tolerance=2)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    b=st.integers(1, 3), n=st.sampled_from([1, 7, 33, 64, 70, 201, 300]), shared=st.booleans(),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 3)]), d=st.sampled_from([16, 64, 80, 128]), causal=st.booleans(),
    shortened=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@some
def test_attention_turns_queries_and_keys(attention_kernels, dtype, b, n, shared, heads, d, causal, shortened, seed):
    q, k, v = (numbers(b, n, count, d, seed=seed + i) for i, count in enumerate([heads[0], heads[1], heads[1]]))
    angles = numbers(1 if shared else b, n, d // 2, seed=seed + 3)
    lengths = np.random.default_rng(seed).integers(0, n + 1, b)

    def run(op, q, k, v):
        rotary = tuple(Tensor(turn(angles)).to(q.device) for turn in (np.cos, np.sin))
        held = Tensor(lengths).to(q.device) if shortened else None
        return op(q, k, v, causal=causal, lengths=held, rotary=rotary)

    check("attention", run, q, k, v, dtype=dtype, tolerance=2)


@pytest.fixture
def whole_heads(monkeypatch):
    """A block takes whole heads, however few, and of few queries too, on a card that has a kernel for that."""
    from tallow.backends.cuda import attention

    monkeypatch.setattr(attention, "_WHOLE_HEADS", 0)
    monkeypatch.setattr(attention, "_SPLIT_UP_TO", 0)


def check_whole_heads(dtype, b, n, m, heads, causal, turned, lengths, seed=0):
    """Attention of heads of 64 features; keys and values from `lengths` on, if given, are no numbers."""
    q, k, v = (numbers(b, size, count, 64, seed=seed + i)
               for i, (size, count) in enumerate([(n, heads[0]), (m, heads[1]), (m, heads[1])]))  # fmt: skip
    angles = numbers(1, n, 32, seed=seed + 3)
    for row, length in enumerate([] if lengths is None else lengths):
        k[row, length:], v[row, length:] = np.nan, np.nan

    def run(op, q, k, v):
        held = None if lengths is None else Tensor(np.array(lengths)).to(q.device)
        rotary = tuple(Tensor(turn(angles)).to(q.device) for turn in (np.cos, np.sin)) if turned else None
        return op(q, k, v, causal=causal, lengths=held, rotary=rotary)

    check("attention", run, q, k, v, dtype=dtype, tolerance=2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2)])
@pytest.mark.parametrize("m", [129, 197, 201, 208])
@pytest.mark.parametrize("n", [1, 64, 197, 201, 256])
def test_whole_heads(whole_heads, dtype, n, m, heads, causal):
    check_whole_heads(dtype, 2, n, m, heads, causal, False, None)
    check_whole_heads(dtype, 4, n, m, heads, causal, False, [m, 100, 0, 113], seed=9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2)])
@pytest.mark.parametrize("n", [129, 197, 201, 208])
def test_whole_heads_are_turned(whole_heads, dtype, n, heads, causal):
    check_whole_heads(dtype, 2, n, n, heads, causal, True, None)
    check_whole_heads(dtype, 4, n, n, heads, causal, True, [n, 100, 0, 113], seed=9)


@pytest.mark.parametrize("turned", [False, True])
def test_many_whole_heads(whole_heads, turned):
    """More than a card has room for at a time."""
    check_whole_heads("bfloat16", 40, 201, 201, (16, 16), False, turned, [201 - i % 3 for i in range(40)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 64, 100])
def test_masks_of_fewer_rows_are_repeated(dtype, n):
    q, k, v = (numbers(6, n, 4, 24, seed=i) for i in range(3))
    mask = numbers(2, 4, n, n)
    check("attention", lambda op, *x: op(*x, mask=Tensor(mask).to(x[0].device)), q, k, v, dtype=dtype, tolerance=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [64, 128])
def test_keys_that_do_not_count_may_hold_anything(attention_kernels, dtype, d):
    q, k, v = numbers(2, 3, 4, d), numbers(2, 90, 4, d, seed=1), numbers(2, 90, 4, d, seed=2)
    k[0, 50:], v[0, 50:] = np.nan, np.inf
    lengths = np.array([50, 90])
    for rows in (q, np.repeat(q, 20, axis=1)):
        check("attention", lambda op, *x: op(*x, lengths=Tensor(lengths).to(x[0].device)), rows, k, v, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 70])
def test_attention_to_what_begins_at_an_odd_address(attention_kernels, dtype, n):
    def odd(x):
        apart = tl.zeros((x.size + 1,), dtype=x.dtype, device=x.device)
        apart.storage[1:] = x.storage.reshape(-1)
        return apart[1:].reshape(x.shape)

    arrays = [numbers(2, n, 4, 64, seed=seed) for seed in range(3)]
    check("attention", lambda op, *x: op(*map(odd, x), causal=True), *arrays, dtype=dtype, tolerance=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_keys_of_long_rows_are_split_among_blocks(dtype, causal):
    q, k, v = (numbers(2, size, count, 64, seed=i) for i, (size, count) in enumerate([(3, 4), (1300, 2), (1300, 2)]))
    lengths = np.array([700, 1300])

    def run(op, q, k, v):
        return op(q, k, v, causal=causal, lengths=Tensor(lengths).to(q.device))

    check("attention", run, q, k, v, dtype=dtype, tolerance=2)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "d"), [(4, 2, 64), (2, 2, 24), (16, 2, 128)])
def test_caches(attention_kernels, stored, dtype, heads, kv_heads, d):
    cpu = KVCache(2, kv_heads, d, 300, "float32")
    card = in_any_order(KVCache(2, kv_heads, d, 300, stored, "cuda"))
    for step, (n, counts) in enumerate([(3, None), (70, [70, 9]), (1, None), (100, [0, 100]), (1, [1, 1])]):
        q, k, v = (numbers(2, n, count, d, seed=3 * step + i) for i, count in enumerate([heads, kv_heads, kv_heads]))
        q, k, v = (Tensor(x).to(dtype) for x in (q, k, v))
        cpu.append(k.to(stored).float(), v.to(stored).float(), counts)
        card.append(k.to("cuda"), v.to("cuda"), counts)
        assert card.lengths.tolist() == card.held.tolist() == cpu.lengths.tolist()
        expected = ops.attention(q.float(), cpu, causal=True)
        found = ops.attention(q.to("cuda"), card, causal=True)
        rows = [i for i in range(2) if counts is None or counts[i] == n]
        assert error(found[rows], expected[rows]) <= 2 * TOLERANCE[dtype]
        for window in (1, 80):
            expected = ops.attention(q.float(), cpu, causal=True, window=window)
            found = ops.attention(q.to("cuda"), card, causal=True, window=window)
            assert error(found[rows], expected[rows]) <= 2 * TOLERANCE[dtype]
    for change in (lambda c: c.truncate([20, 30]), lambda c: c.select([1, 0]), lambda c: c.select([1])):
        change(cpu), change(card)
        assert card.lengths.tolist() == card.held.tolist() == cpu.lengths.tolist()
        for mine, other in zip(card.view()[:2], cpu.view()[:2], strict=True):
            for row, length in enumerate(cpu.lengths.tolist()):
                assert error(mine[row, :length].float(), other[row, :length]) <= 1e-7
