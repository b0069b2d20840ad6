import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.engine.sampling import Sampler, Sampling, candidates
from tallow.errors import ArgumentError

LOGITS = np.float32([0.5, 3.0, -1.0, 2.0, 3.0, 0.0])


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max())
    return e / e.sum()


def test_greedy_takes_the_first_of_the_likeliest():
    assert Sampler(Sampling(), []).choose(LOGITS) == 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-20, 20, width=16), min_size=1, max_size=30),  # no two so near that their exponentials tie
    st.floats(0.1, 3), st.integers(0, 12), st.floats(0.05, 1), st.floats(0, 1),
)  # fmt: skip
def test_cuts_by_their_definitions(values, temperature, top_k, top_p, min_p):
    logits = np.float32(values)
    ids, probabilities = candidates(logits, Sampling(temperature, top_k, top_p, min_p))
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    order = order[:top_k] if top_k else order
    expected = softmax(logits[order] / np.float64(temperature))
    kept = len(order) if top_p == 1 else int(np.searchsorted(expected.cumsum(), top_p)) + 1
    order, expected = order[:kept], expected[:kept]
    allowed = {i for i, p in zip(order, expected, strict=True) if p >= min_p * expected[0]}
    difference = allowed ^ set(ids.tolist())
    if difference:  # only where rounding decides
        sums = expected.cumsum()
        assert np.isclose(sums, top_p, rtol=1e-9).any() or np.isclose(expected, min_p * expected[0], rtol=1e-9).any()
    else:
        full = dict(zip(order, expected, strict=True))
        ours = dict(zip(ids.tolist(), probabilities / probabilities.sum(), strict=True))
        total = sum(full[i] for i in ours)
        for id, probability in ours.items():
            assert probability == pytest.approx(full[id] / total, rel=1e-9)


def test_draws_follow_the_probabilities():
    sampler = Sampler(Sampling(temperature=0.7, seed=1), [])
    counts = np.bincount([sampler.choose(LOGITS) for _ in range(20_000)], minlength=6) / 20_000
    np.testing.assert_allclose(counts, softmax(LOGITS / 0.7), atol=0.015)


def test_a_seed_and_a_place_fix_the_draws():
    def draws(**how):
        row = how.pop("row", 0)
        sampler = Sampler(Sampling(temperature=1.0, **how), [], row)
        return [sampler.choose(LOGITS) for _ in range(40)]

    assert draws(seed=5) == draws(seed=5)
    assert draws(seed=5) != draws(seed=6)
    assert draws(seed=5) != draws(seed=5, row=1)
    assert draws(seed=-1) == draws(seed=2**64 - 1)
    assert draws() != draws()


def test_what_cannot_come_never_comes():
    logits = np.full(50, -np.inf, np.float32)
    logits[[7, 30]] = [1.0, 0.0]
    for how in ({}, {"top_k": 10}, {"top_p": 0.99}, {"min_p": 0.01}):
        sampler = Sampler(Sampling(temperature=5.0, seed=0, **how), [])
        assert {sampler.choose(logits) for _ in range(60)} == {7, 30}


def test_what_is_no_number_or_infinite():
    logits = np.float32([0.0, np.nan, 1.0, -np.inf])
    for how in ({}, {"top_k": 3}, {"top_p": 0.99}, {"min_p": 0.01}):
        sampler = Sampler(Sampling(temperature=5.0, seed=0, **how), [])
        assert {sampler.choose(logits) for _ in range(60)} == {0, 2}
        assert sampler.choose(np.float32([0.0, np.inf, 1.0])) == 1


def test_repetition_penalty_counts_prompt_and_answer():
    sampler = Sampler(Sampling(repetition_penalty=2.0), [1, 2, 1])
    sampler.accept(4)
    np.testing.assert_array_equal(sampler._adjust(LOGITS), np.float32([0.5, 1.5, -2.0, 2.0, 1.5, 0.0]))
    assert sampler.choose(LOGITS) == 3


def test_presence_and_frequency_penalties_count_the_answer():
    sampler = Sampler(Sampling(presence_penalty=0.5, frequency_penalty=0.25), [1])
    for id in (4, 4, 3):
        sampler.accept(id)
    np.testing.assert_array_equal(sampler._adjust(LOGITS), np.float32([0.5, 3.0, -1.0, 1.25, 2.0, 0.0]))


def test_bias_comes_first_and_logits_are_not_changed():
    before = LOGITS.copy()
    sampler = Sampler(Sampling(logit_bias={0: 4.0, 1: -100}, repetition_penalty=2.0), [0])
    np.testing.assert_array_equal(sampler._adjust(LOGITS), np.float32([2.25, -97.0, -1.0, 2.0, 3.0, 0.0]))
    np.testing.assert_array_equal(LOGITS, before)
    with pytest.raises(ArgumentError, match="logit_bias names token 6; the model has 6"):
        Sampler(Sampling(logit_bias={6: 1.0}), []).choose(LOGITS)


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"temperature": "hot"},
        {"top_k": -1}, {"top_k": 1.5}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 2},
        {"repetition_penalty": 0}, {"presence_penalty": float("nan")}, {"frequency_penalty": None}, {"seed": 1.5},
        {"logit_bias": {"a": 1.0}}, {"logit_bias": {1: float("nan")}}, {"temperature": True},
    ],
)  # fmt: skip
def test_settings_that_cannot_be(how):
    with pytest.raises(ArgumentError, match=next(iter(how))):
        Sampling(**how)
