import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.errors import ArgumentError, ShapeError
from tests.ops.both import both, tensor


def expected(row, chosen, k):
    """By the definition, in float64."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = row.astype(np.float64) - row.max()
        scores = shifted - np.log(np.exp(shifted).sum())
    if np.isnan(scores).any():
        return [chosen, *range(min(k, len(row)))], np.full(1 + min(k, len(row)), np.nan)
    ids = [chosen, *np.argsort(-row, kind="stable")[:k].tolist()]
    return ids, scores[ids]


def check(op, logits, chosen, k):
    ids, values = op(tensor(logits), tensor(chosen, np.int64), k)
    assert (ids.dtype.name, values.dtype.name) == ("int64", "float32")
    for row, id, found, scores in zip(logits, chosen, ids.tolist(), values.numpy(), strict=True):
        right, exact = expected(row, id, k)
        assert found == right
        np.testing.assert_allclose(scores, exact, rtol=2e-6, atol=2e-6)


@both("top_logprobs")
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 4), vocab=st.integers(1, 70), k=st.integers(0, 80), spread=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_by_the_definition(op, rows, vocab, k, spread, seed):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, vocab)).astype(np.float32) * np.float32(spread)
    check(op, logits, rng.integers(0, vocab, rows), k)
    check(op, np.round(logits), rng.integers(0, vocab, rows), k)  # many equals: -0 among them


@both("top_logprobs")
@pytest.mark.parametrize("k", [0, 1, 5, 20, 300])
@pytest.mark.parametrize("vocab", [16384, 16385, 49152, 151936])
def test_usual_vocabularies(op, vocab, k):
    logits = np.random.default_rng(vocab).standard_normal((2, vocab)).astype(np.float32) * 4
    check(op, logits, [vocab - 1, 7], k)
    logits[:, 5::3] = -np.inf
    logits[0, : vocab // 2] = -np.inf  # whole stretches
    check(op, logits, [5, 7], k)
    check(op, np.round(logits), [5, 7], k)


@both("top_logprobs")
@pytest.mark.parametrize("vocab", [6, 40000])
def test_rows_without_probabilities(op, vocab):
    logits = np.zeros((5, vocab), np.float32)
    logits[0, 4], logits[1, 2], logits[2], logits[3, 5], logits[3, 1] = np.nan, np.inf, -np.inf, np.nan, -np.inf
    check(op, logits, [4, 0, 1, 2, 3], 3)


@both("top_logprobs")
def test_a_token_outside_the_vocabulary(op):
    ids, values = op(tensor(np.zeros((3, 4))), tensor([-1, 4, 3], np.int64), 1)
    assert ids.tolist() == [[-1, 0], [4, 0], [3, 0]]
    assert np.isnan(values.numpy()[:, 0]).tolist() == [True, True, False]


@both("top_logprobs")
def test_operands_that_do_not_fit(op):
    for logits, chosen in (((2, 5), 3), ((5,), 5), ((2, 0), 2)):
        with pytest.raises(ShapeError, match="top_logprobs: logits"):
            op(tensor(np.zeros(logits)), tensor(np.zeros(chosen), np.int64), 1)
    with pytest.raises(ArgumentError, match="k must be at least 0"):
        op(tensor(np.zeros((1, 2))), tensor([0], np.int64), -1)
