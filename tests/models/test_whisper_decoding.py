"""Greedy, sampling and beam search over a toy decoder, against exhaustive search and by hand."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.models.whisper.decoding import Decoded, Prompt, Search, decode, log_softmax, top
from tests.models.whisper_kit import ToyDecoder

END, VOCABULARY, PROMPT = 4, 5, [1, 2]


class NoRules:
    def apply(self, logits, histories):
        assert len(logits) == len(histories)


def run(decoder, search, limit=4, rules=None, seed=0):
    prompt = Prompt(PROMPT, start=0, no_speech=3, end=END, limit=limit)
    return decode(decoder, prompt, rules or NoRules(), search, random.Random(seed))


def score_of(decoder, tokens, limit):
    """Sum of log-probabilities of a candidate, the end included unless the limit stopped it."""
    total, row = 0.0, list(PROMPT)
    for id in [*tokens, END][:limit]:
        total += float(log_softmax(decoder.logits(row))[id])
        row.append(id)
    return total


def every_candidate(limit):
    for length in range(limit + 1):
        yield from (list(ids) for ids in itertools.product(range(VOCABULARY - 1), repeat=length))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0.0, 0.6, 1.0]))
def test_a_beam_wide_enough_finds_the_best_of_all_candidates(seed, penalty):
    limit = 3
    decoder = ToyDecoder(VOCABULARY, seed)

    def rank(tokens):
        length = max(len(tokens), 1)
        divisor = length if penalty is None else ((5 + len(tokens)) / 6) ** penalty
        return score_of(decoder, tokens, limit) / divisor

    best = max(every_candidate(limit), key=rank)
    found = run(decoder, Search(beam_size=200, length_penalty=penalty), limit)
    assert found.tokens == best
    assert found.score == pytest.approx(score_of(decoder, best, limit), rel=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_greedy_takes_the_likeliest_token_at_each_step(seed):
    decoder = ToyDecoder(VOCABULARY, seed)
    row, expected = list(PROMPT), []
    while len(expected) < 6:
        id = int(decoder.logits(row).argmax())
        if id == END:
            break
        expected.append(id)
        row.append(id)
    found = run(decoder, Search(), limit=6)
    assert found.tokens == expected
    assert found.score == pytest.approx(score_of(decoder, expected, 6), rel=1e-5)
    assert found.avg_logprob == pytest.approx(found.score / (len(expected) + 1))


@pytest.mark.parametrize("seed", range(20))
def test_a_narrow_beam_scores_no_better_than_a_full_one(seed):
    wide = run(ToyDecoder(VOCABULARY, seed), Search(beam_size=200, length_penalty=0.0), limit=4)
    for size in (2, 3, 5):
        narrow = run(ToyDecoder(VOCABULARY, seed), Search(beam_size=size, length_penalty=0.0), limit=4)
        assert narrow.score <= wide.score + 1e-5


def test_beam_search_stops_when_enough_candidates_have_ended_and_patience_makes_it_go_on():
    def steps(patience):
        decoder = ToyDecoder(VOCABULARY, 3, scale=0.5)
        run(decoder, Search(beam_size=2, patience=patience), limit=40)
        return decoder.steps

    assert steps(1.0) < steps(4.0) < 40


def test_the_limit_ends_a_candidate_that_does_not_end_by_itself():
    class Endless(NoRules):
        def apply(self, logits, histories):
            logits[:, END] = -np.inf

    for search in (Search(), Search(beam_size=3), Search(temperature=1.0, best_of=3)):
        decoder = ToyDecoder(VOCABULARY)
        found = run(decoder, search, limit=7, rules=Endless())
        assert len(found.tokens) == 7
        assert decoder.steps == 6, "the last token needs no further step"


def test_a_seed_fixes_a_sample_and_samples_differ():
    samples = [run(ToyDecoder(VOCABULARY), Search(temperature=1.0), limit=8, seed=s).tokens for s in range(30)]
    again = [run(ToyDecoder(VOCABULARY), Search(temperature=1.0), limit=8, seed=s).tokens for s in range(30)]
    assert samples == again
    assert len({tuple(sample) for sample in samples}) > 5


def test_samples_follow_the_distribution_at_their_temperature():
    decoder = ToyDecoder(VOCABULARY, scale=1.0)
    logits = decoder.logits(PROMPT)
    for temperature in (0.5, 1.0):
        rng = random.Random(7)
        prompt = Prompt(PROMPT, 0, 3, END, limit=1)
        drawn = [decode(decoder, prompt, NoRules(), Search(temperature), rng).tokens for _ in range(3000)]
        counts = np.bincount([t[0] if t else END for t in drawn], minlength=VOCABULARY) / len(drawn)
        np.testing.assert_allclose(counts, np.exp(log_softmax(logits / temperature)), atol=0.04)


def test_an_impossible_token_is_never_drawn():
    class OnlyTwo(NoRules):
        def apply(self, logits, histories):
            logits[:, [0, 1, 3, 4]] = -np.inf

    class Corner(random.Random):
        def __init__(self, value):
            self.value = value
            super().__init__(0)

        def random(self):
            return self.value

    prompt = Prompt(PROMPT, 0, 3, END, limit=3)
    for value in (0.0, 0.5, 1 - 2**-53):
        found = decode(ToyDecoder(VOCABULARY), prompt, OnlyTwo(), Search(0.7), Corner(value))
        assert found.tokens == [2, 2, 2]


def test_the_likeliest_of_several_samples_is_kept():
    one = [run(ToyDecoder(VOCABULARY), Search(1.0, best_of=1), seed=s) for s in range(40)]
    many = [run(ToyDecoder(VOCABULARY), Search(1.0, best_of=8), seed=s) for s in range(40)]

    def mean(results):
        return np.mean([r.score / max(len(r.tokens), 1) for r in results])

    assert mean(many) > mean(one) + 0.3


def test_the_probability_of_no_speech_is_read_at_the_start_token():
    decoder = ToyDecoder(VOCABULARY, 5)
    prompt = Prompt([0, 1, 2], start=1, no_speech=3, end=END, limit=2)
    found = decode(decoder, prompt, NoRules(), Search(), random.Random(0))
    assert found.no_speech_prob == pytest.approx(float(np.exp(log_softmax(decoder.logits([0, 1])))[3]))


def test_a_decoding_without_tokens_counts_its_end():
    assert Decoded([], -2.0, 0.1).avg_logprob == -2.0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 8), st.integers(0, 10**6))
def test_top_agrees_with_a_full_sort(length, count, seed):
    values = np.random.default_rng(seed).integers(0, 50, length).astype(np.float32)
    expected = np.argsort(-values, kind="stable")[:count]
    np.testing.assert_array_equal(values[top(values, count)], values[expected])
    assert len(set(top(values, count).tolist())) == min(count, length)


def test_log_softmax_of_forbidden_tokens_is_minus_infinity_and_the_rest_sums_to_one():
    result = log_softmax(np.array([[1.0, -np.inf, 1000.0], [0.0, 0.0, -np.inf]], np.float32))
    assert result[0, 1] == -np.inf
    np.testing.assert_allclose(np.exp(result).sum(axis=1), 1, rtol=1e-6)
