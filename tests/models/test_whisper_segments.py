"""Cutting a window's tokens into segments, and where the next window begins."""

import pytest

from tallow.models.whisper.segments import confine, cut
from tallow.text.transcript import Word
from tests.models.whisper_kit import ids, tokens


def spans(result):
    return [(round(s.start, 2), round(s.end, 2), s.text) for s in result.segments]


def run(*items, offset=10.0, duration=30.0):
    return cut(ids(*items), tokens(), offset=offset, duration=duration)


def test_segments_end_where_a_pair_of_timestamps_stands_and_the_unfinished_one_waits():
    result = run(0.0, "hello", 2.0, 2.0, "world", 5.0, 5.0, "yes")
    assert spans(result) == [(10, 12, " hello"), (12, 15, " world")]
    assert result.onward == pytest.approx(5.0)
    assert not result.silent_after


def test_one_timestamp_at_the_end_means_that_the_rest_is_silent():
    result = run(0.0, "hello", 2.0, 2.0, "world", 5.0)
    assert spans(result) == [(10, 12, " hello"), (12, 15, " world")]
    assert result.onward == 30.0
    assert result.silent_after


def test_a_single_segment_ends_at_its_timestamp():
    result = run(0.0, "hello", 4.0)
    assert spans(result) == [(10, 14, " hello")]
    assert result.onward == 30.0
    assert result.silent_after


def test_text_without_timestamps_is_one_segment_as_long_as_the_sound():
    result = run("hello", "world", duration=7.5)
    assert spans(result) == [(10, 17.5, " hello world")]
    assert result.onward == 7.5
    assert not result.silent_after


def test_a_segment_that_only_begins_lasts_to_the_end_of_the_sound():
    assert spans(run(0.0, "hello", duration=7.5)) == [(10, 17.5, " hello")]


def test_a_gap_between_segments_stays_a_gap():
    assert spans(run(0.0, "hello", 2.0, 3.5, "world", 5.0, 5.0)) == [(10, 12, " hello"), (13.5, 15, " world")]


def test_nothing_written_is_one_empty_segment():
    result = run(duration=3.0)
    assert spans(result) == [(10, 13, "")]


def test_times_stay_within_the_sound():
    segments = run(0.0, "hello", 2.0, 2.0, "world", 5.0, 6.0, "yes", 8.0, duration=3.5).segments
    segments[1].words = [Word(12.0, 13.0, " wor", 1.0), Word(13.4, 15.0, "ld", 1.0), Word(15.0, 15.0, ".", 1.0)]
    kept = confine(segments, start=10.0, end=13.5)
    assert [(s.start, s.end) for s in kept] == [(10, 12), (12, 13.5)]
    assert [(word.start, word.end) for word in kept[1].words] == [(12, 13), (13.4, 13.5), (13.5, 13.5)]


def test_words_that_begin_behind_the_sound_are_not_lost():
    kept = confine(run(1.0, "hello", 2.0, duration=0.5).segments, start=10.0, end=10.5)
    assert [(s.start, s.end, s.text) for s in kept] == [(10, 10.5, " hello")]


def test_segments_keep_their_tokens():
    result = run(0.0, "hello", 2.0, 2.0, "world", 5.0, 5.0)
    assert [s.tokens for s in result.segments] == [ids(0.0, "hello", 2.0), ids(2.0, "world", 5.0)]
