from hypothesis import given
from hypothesis import strategies as st

from tallow.engine.prompt_lookup import PromptLookup


def test_guesses_what_followed_last_time():
    lookup = PromptLookup([1, 2, 3, 4, 5, 9, 2, 3])
    assert lookup.guess(2) == [4, 5]
    assert lookup.guess(10) == [4, 5, 9, 2, 3]
    assert lookup.guess(0) == []
    lookup.add(7)
    assert lookup.guess(3) == []


def test_the_longer_agreement_and_the_later_place_win():
    assert PromptLookup([1, 2, 3, 8, 2, 3, 6, 1, 2, 3]).guess(1) == [8]
    assert PromptLookup([2, 3, 8, 2, 3, 6, 2, 3]).guess(1) == [6]


@given(st.lists(st.integers(0, 2), max_size=20), st.integers(0, 5))
def test_guesses_stood_in_the_text(ids, most):
    guess = PromptLookup(ids).guess(most)
    assert len(guess) <= most
    assert not guess or any(ids[i : i + len(guess)] == guess for i in range(len(ids)))
