import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.engine.stopping import TextUntilStop

from .small_model import vocabulary


def feed(text, stops):
    """Tokens of single bytes, so that stop strings always run across tokens."""
    tokenizer = vocabulary()
    byte_ids = [tokenizer.encode(text[i]) for i in range(len(text))]
    ids = list(itertools.chain.from_iterable(byte_ids))
    until = TextUntilStop(tokenizer, stops)
    pieces = []
    for id in ids:
        pieces.append(until.add(id))
        if until.stopped:
            break
    pieces.append(until.end())
    assert "".join(pieces) == until.text
    return until.text, until.stopped, pieces


@settings(max_examples=200, deadline=None)
@given(st.text("abé😀", max_size=15), st.lists(st.text("abé", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(text, stops):
    found = [text.find(stop) for stop in stops if stop in text]
    got, stopped, _ = feed(text, stops)
    assert stopped == bool(found)
    # of stop strings that overlap, the one that is complete first counts
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if found:
        first_end = min(ends)[0]
        assert got == text[: min(begin for end, begin in ends if end == first_end)]
    else:
        assert got == text


def test_what_may_become_a_stop_string_is_held_back():
    _, _, pieces = feed("ab-ab-", ["b-a-"])
    assert pieces == ["a", "", "", "b-", "", "", "b-"] or "".join(pieces) == "ab-ab-"
    assert feed("xx\n\nyy", ["\n\n"])[2][:3] == ["x", "x", ""]


def test_special_tokens_are_kept_if_they_are_asked_for():
    tokenizer = vocabulary()
    ids = tokenizer.encode("a<|im_start|>b<|im_end|>", special=True)
    for keep, stops, expected in (
        ((), (), "ab"),
        (("<|im_start|>", "no token"), (), "a<|im_start|>b"),
        (("<|im_start|>",), ("start|>b",), "a<|im_"),
    ):
        until = TextUntilStop(tokenizer, stops, (), keep)
        for id in ids:
            until.add(id)
        until.end()
        assert until.text == expected


def test_characters_come_whole():
    tokenizer = vocabulary()
    until = TextUntilStop(tokenizer)
    pieces = [until.add(tokenizer.id(char)) for char in "ðŁĺĢ"]  # the four bytes of one emoji
    assert pieces == ["", "", "", "😀"]
    assert until.end() == ""
    broken = TextUntilStop(tokenizer)
    assert broken.add(tokenizer.id("ð")) == ""
    assert broken.end() == "\ufffd"


@pytest.mark.parametrize("stops", [(), ("a",)])
def test_without_a_tokenizer_there_is_no_text(stops):
    until = TextUntilStop(None, stops)
    assert (until.add(3), until.end(), until.text, until.stopped) == ("", "", "", False)
