"""The grammar of timestamps: what random logits write under the rules is always well-formed."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.models.whisper.decoding import Prompt, Search, decode
from tallow.models.whisper.rules import Rules
from tests.models.whisper_kit import ToyDecoder, ids, tokens

TIMES = 40
BEGIN = tokens().timestamp_begin
SIZE = BEGIN + TIMES
WORD, OTHER, BLANK = ids("hello")[0], ids("world")[0], ids("Ġ")[0]


def rules(timestamps=True, suppress=(), first=(BLANK,), initial=None):
    return Rules(tokens(), suppress, first, timestamps=timestamps, max_initial_timestamp=initial)


def allowed(history, logits=None, **options):
    """The ids that may come after a history, at equal logits unless given."""
    values = np.zeros((1, SIZE), np.float32) if logits is None else logits[None].astype(np.float32)
    rules(**options).apply(values, [history])
    return set(np.flatnonzero(values[0] > -np.inf).tolist())


def words_only():
    """Logits that make all timestamps together less likely than a word."""
    logits = np.zeros(SIZE)
    logits[BEGIN:] = -20
    return logits


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2, None]), st.sampled_from([0.0, 1.0]))
def test_whatever_is_written_is_well_formed(seed, initial, temperature):
    never = [id for id in range(BEGIN) if id not in (WORD, OTHER, BLANK, tokens().end)]
    rule = rules(suppress=never, initial=initial)
    prompt = Prompt([tokens().start], 0, tokens().no_speech, tokens().end, limit=30)
    found = decode(ToyDecoder(SIZE, seed), prompt, rule, Search(temperature), random.Random(seed)).tokens

    assert found[0] >= BEGIN, "it begins with a timestamp"
    if initial is not None:
        assert found[0] <= BEGIN + round(initial / 0.02)
    assert all(id < BEGIN for id in found[1:2]), "text or the end follows it"
    assert not set(found) & set(never)
    stamps = [id for id in found if id >= BEGIN]
    assert stamps == sorted(stamps), "time never runs back"
    runs = [list(run) for run in split_at_pairs(found)]
    for run in runs[:-1]:
        assert run[0] >= BEGIN
        assert run[-1] > run[0], "a segment takes time"
        assert all(id < BEGIN for id in run[1:-1])
        assert len(run) > 2, "a segment has text"


def split_at_pairs(found):
    run = [found[0]]
    for previous, id in itertools.pairwise(found):
        if previous >= BEGIN and id >= BEGIN:
            yield run
            run = []
        run.append(id)
    yield run


def test_the_first_token_is_a_timestamp_that_is_not_too_late():
    assert allowed([]) == set(range(BEGIN, SIZE))
    assert allowed([], initial=0.1) == set(range(BEGIN, BEGIN + 6))


def test_text_follows_a_first_timestamp():
    after = allowed(ids(0.0))
    assert after == set(range(BEGIN)) - {tokens().no_timestamps}


def test_a_pair_is_completed_or_the_text_ends():
    end_of_segment = allowed(ids(0.0, "hello", 0.4), words_only())
    assert end_of_segment == {*range(tokens().end, tokens().no_timestamps), *range(BEGIN + 20, SIZE)}
    assert allowed(ids(0.0, "hello", 0.4, 0.4), words_only()) == set(range(BEGIN)) - {tokens().no_timestamps}


def test_the_next_timestamp_is_later_than_the_segment_began():
    after = allowed(ids(0.2, "hello"), words_only())
    assert after == set(range(BEGIN + 11, SIZE)) | (set(range(BEGIN)) - {tokens().no_timestamps})


def test_timestamps_that_are_together_likelier_than_any_word_win():
    logits = np.full(SIZE, -10.0)
    logits[WORD], logits[BEGIN:] = 0.0, -3.0  # 39 of e^-3 are more than 1
    assert all(id >= BEGIN for id in allowed(ids(0.0, "hello"), logits))
    logits[BEGIN:] = -4.0  # 39 of e^-4 are less
    assert WORD in allowed(ids(0.0, "hello"), logits)


def test_blanks_and_the_end_are_forbidden_first_only():
    options = {"timestamps": False, "first": (BLANK, tokens().end)}
    assert not {BLANK, tokens().end} & allowed([], **options)
    assert {BLANK, tokens().end} <= allowed(ids("hello"), **options)


def test_suppressed_tokens_are_never_written_and_neither_is_the_one_for_no_timestamps():
    for history in ([], ids("hello")):
        assert not {WORD, tokens().no_timestamps} & allowed(history, suppress=(WORD,), timestamps=False)


def test_each_row_has_its_own_history():
    logits = np.zeros((2, SIZE), np.float32)
    rules().apply(logits, [[], ids(0.0)])
    assert np.isneginf(logits[0, :BEGIN]).all()
    assert np.isneginf(logits[1, BEGIN:]).all()


def test_rows_and_histories_must_be_as_many():
    with pytest.raises(ValueError):
        rules().apply(np.zeros((2, SIZE), np.float32), [[]])
