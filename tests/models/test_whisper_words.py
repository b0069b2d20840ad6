"""Word times: the warping path against exhaustive search, the filter against NumPy's median, punctuation by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.models.whisper.words import SpokenWord, align, first_frames, median_filter, merge_punctuation, place_words
from tallow.text.transcript import Segment
from tests.models.whisper_kit import ids, tokens


def paths(rows, frames):
    """Every monotonic path from corner to corner, as lists of (row, frame)."""
    if rows == 1 or frames == 1:
        yield [(i, 0) for i in range(rows)] if frames == 1 else [(0, j) for j in range(frames)]
        return
    for back_row, back_frame in ((1, 0), (0, 1), (1, 1)):
        for path in paths(rows - back_row, frames - back_frame):
            yield [*path, (rows - 1, frames - 1)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_the_warping_path_is_the_cheapest_of_all(rows, frames, seed):
    cost = np.random.default_rng(seed).normal(size=(rows, frames))
    best = min(paths(rows, frames), key=lambda path: sum(cost[at] for at in path))
    expected = [min(j for i, j in best if i == row) for row in range(rows)]
    assert first_frames(cost).tolist() == expected


def test_the_path_follows_a_diagonal_of_attention():
    cost = np.full((4, 40), 0.1)
    for row in range(4):
        cost[row, 10 * row : 10 * row + 10] = -1
    assert first_frames(cost).tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_path_through_nonsense_still_ends(value):
    result = first_frames(np.full((4, 5), value))
    assert result.shape == (4,)
    assert (np.diff(result) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 30), st.sampled_from([1, 3, 5, 7]), st.integers(0, 10**6))
def test_the_median_filter_is_a_median_with_mirrored_ends(length, width, seed):
    values = np.random.default_rng(seed).normal(size=(2, 3, length)).astype(np.float32)
    reach = width // 2
    padded = np.pad(values, [(0, 0), (0, 0), (reach, reach)], mode="reflect")
    expected = np.median(np.stack([padded[..., i : i + length] for i in range(width)]), axis=0)
    np.testing.assert_array_equal(median_filter(values, width), expected)


def test_all_orders_of_seven_values_have_the_same_median():
    orders = np.array(list(itertools.islice(itertools.permutations(range(7)), 0, 5040, 7)), np.float32)
    assert (median_filter(orders, 7)[:, 3] == 3).all()


def test_a_sequence_shorter_than_the_filter_stays_as_it_is():
    values = np.array([[3.0, 1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(median_filter(values, 7), values)


def test_words_get_the_times_at_which_attention_reaches_them():
    first, frames = 2, 60
    words = [(" hello", ids("hello")), (" world", ids("world", "ing"))]
    weights = np.full((3, first + 3 + 2, frames), 1e-4, np.float32)
    for row in range(4):  # the token before the text and its three tokens look at 15 frames each
        weights[:, first + row, 15 * row : 15 * row + 15] = 0.06
    logits = np.zeros((first + 5, tokens().end), np.float32)
    logits[first + 1, ids("world")[0]] = 50
    spoken = align(words, weights, logits, first)
    assert [w.text for w in spoken] == [" hello", " world"]
    assert [(w.start, w.end) for w in spoken] == [
        (0.0, pytest.approx(0.3, abs=0.07)),
        (spoken[0].end, pytest.approx(0.9, abs=0.07)),
    ]
    even = 1 / tokens().end
    assert spoken[0].probability == pytest.approx(even, rel=1e-4)
    assert spoken[1].probability == pytest.approx((1 + even) / 2, rel=1e-4)


def test_no_words_need_no_alignment():
    assert align([], np.zeros((2, 3, 10), np.float32), np.zeros((3, tokens().end), np.float32), 1) == []


def test_attention_that_is_the_same_everywhere_still_gives_ordered_times():
    spoken = align(
        [(" hello", ids("hello"))], np.ones((2, 4, 1), np.float32), np.zeros((4, tokens().end), np.float32), 1
    )
    assert [(w.start, w.end) for w in spoken] == [(0.0, 0.0)]


def spoken(*items):
    return [SpokenWord(text, ids(*names), start, end, 0.9) for text, names, start, end in items]


def test_punctuation_joins_the_word_that_it_belongs_to():
    words = spoken(
        (' "', ["!"], 0, 0.1), (" hello", ["hello"], 0.1, 0.5), (",", [","], 0.5, 0.6), (".", ["."], 0.6, 0.7)
    )
    merged = merge_punctuation(words, '"', ",.")
    assert [(w.text, w.start, w.end) for w in merged] == [(' " hello,.', 0.1, 0.5)]
    assert merged[0].tokens == ids("!", "hello", ",", ".")


def test_punctuation_at_the_edges_has_no_word_to_join():
    words = spoken((",", [","], 0, 0.1), (' "', ["!"], 0.1, 0.2))
    assert [w.text for w in merge_punctuation(words, '"', ",")] == [",", ' "']


def segment(start, end, *items):
    found = ids(*items)
    return Segment(0, start, end, tokens().text(found), found)


def test_words_go_to_the_segments_that_their_tokens_are_in():
    segments = [segment(10.0, 11.0, 0.0, "hello", 1.0), segment(11.0, 12.0, 1.0, "world", "ing", 2.0)]
    words = spoken((" hello", ["hello"], 0.2, 0.9), (" worlding", ["world", "ing"], 1.1, 1.8))
    end = place_words(segments, words, tokens(), offset=10.0, last_speech=9.9)
    assert [[w.text for w in s.words] for s in segments] == [[" hello"], [" worlding"]]
    assert [(s.start, s.end) for s in segments] == [(10.2, 10.9), (11.1, 11.8)]
    assert end == 11.8


def test_punctuation_that_joins_a_word_of_the_segment_before_shifts_no_words():
    segments = [
        segment(0.0, 1.0, 0.0, "hello", 1.0),
        segment(1.0, 2.0, 1.0, ".", "world", 2.0),
        segment(2.0, 3.0, 2.0, "yes", 3.0),
    ]
    words = spoken(
        (" hello", ["hello"], 0, 0.9),
        (".", ["."], 0.9, 1),
        (" world", ["world"], 1.1, 1.9),
        (" yes", ["yes"], 2.1, 2.9),
    )
    place_words(segments, words, tokens(), offset=0.0, last_speech=0.0)
    assert [[w.text for w in s.words] for s in segments] == [[" hello."], [" world"], [" yes"]]


def test_a_first_word_that_swallowed_the_pause_before_it_is_shortened():
    words = spoken((" hello", ["hello"], 0.0, 5.0), (" world", ["world"], 5.0, 5.4), (" yes", ["yes"], 5.4, 5.8))
    segments = [segment(4.6, 5.8, 0.0, "hello", "world", "yes", 5.8)]
    place_words(segments, words, tokens(), offset=0.0, last_speech=0.0)
    first = segments[0].words[0]
    assert first.end == 5.0
    assert 4.0 <= first.start < 4.7
    assert segments[0].start == first.start


def test_a_last_word_much_longer_than_the_segment_ends_with_the_segment():
    words = spoken((" hello", ["hello"], 0.0, 0.4), (" world", ["world"], 0.4, 0.8), (" yes", ["yes"], 0.8, 9.0))
    segments = [segment(0.0, 1.4, 0.0, "hello", "world", "yes", 1.4)]
    place_words(segments, words, tokens(), offset=0.0, last_speech=0.0)
    assert segments[0].words[-1].end == pytest.approx(1.4)
    assert segments[0].end == 1.4


def test_a_segment_without_words_keeps_its_times():
    segments = [segment(0.0, 1.0, 0.0, "hello", 1.0)]
    assert place_words(segments, [], tokens(), offset=0.0, last_speech=7.0) == 7.0
    assert (segments[0].start, segments[0].end, segments[0].words) == (0.0, 1.0, [])
