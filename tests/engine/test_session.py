import numpy as np
import pytest

from tallow.engine.kv_cache import DecoderCache
from tallow.errors import ArgumentError, OutOfMemoryError
from tallow.ops import KVCache

from .small_model import small_model

LONG = "the cat sat on the mat, the cat ran, " * 3


@pytest.fixture
def model():
    return small_model(context=400)


def test_what_was_read_is_not_read_again(model):
    session = model.session()
    first = session.generate(LONG, max_tokens=6)
    assert first.reused_tokens == 0
    assert first.ids == model.generate(LONG, max_tokens=6).ids
    longer = model.tokenizer.encode(LONG) + first.ids + [5, 6]
    second = session.generate(longer, max_tokens=6)
    assert second.reused_tokens == len(longer) - 3  # all but the last answered token, which was never read, and the new
    assert second.ids == model.generate(longer, max_tokens=6).ids
    other = longer[:20] + [9] * 5
    third = session.generate(other, max_tokens=6)
    assert third.reused_tokens == 20
    assert third.ids == model.generate(other, max_tokens=6).ids


def test_the_same_prompt_again(model):
    session = model.session()
    once = session.generate(LONG, max_tokens=6, temperature=0.9, seed=1)
    again = session.generate(LONG, max_tokens=6, temperature=0.9, seed=1)
    assert again.ids == once.ids
    assert again.reused_tokens == again.prompt_tokens - 1


@pytest.mark.parametrize("how", [{}, {"prompt_lookup_tokens": 5}])
def test_answers_that_were_left_early_do_no_harm(model, how):
    session = model.session()
    for count in range(1, 12):
        stream = session.generate(LONG, max_tokens=40, stream=True, ignore_eos=True, **how)
        for _, _ in zip(range(count), stream, strict=False):
            pass
        stream.cancel()
        ids = model.tokenizer.encode(LONG) + stream.result().ids[:count]
        expected = model.generate(ids, max_tokens=8, ignore_eos=True).ids
        assert session.generate(ids, max_tokens=8, ignore_eos=True, **how).ids == expected


def test_a_new_turn_ends_the_stream_of_the_one_before(model):
    session = model.session()
    left = session.generate(LONG, max_tokens=40, stream=True, ignore_eos=True)
    next(left)
    other = model.tokenizer.encode(LONG)[:20] + [9] * 5
    begun = session.generate(other, max_tokens=12, stream=True, ignore_eos=True)
    next(begun)
    assert list(left) == []
    assert left.result().finish_reason == "cancelled"
    del left
    assert begun.result().ids == model.generate(other, max_tokens=12, ignore_eos=True).ids
    last = session.generate(other, max_tokens=12, stream=True, ignore_eos=True)
    next(last)
    session.reset()
    assert list(last) == []


def test_a_turn_while_an_answer_is_being_written_is_refused(model, monkeypatch):
    expected, session, hidden, refusals = model.generate(LONG, max_tokens=6).ids, model.session(), model.forward, []

    def busy(*args):
        if not refusals:
            refusals.append("")
            with pytest.raises(ArgumentError, match="one caller at a time") as refused:
                session.generate([1, 2, 3], max_tokens=2)
            refusals[0] = str(refused.value)
        return hidden(*args)

    monkeypatch.setattr(model, "forward", busy)
    assert session.generate(LONG, max_tokens=6).ids == expected
    assert "llm.session()" in refusals[0]


def test_a_stream_whose_model_has_been_unloaded_can_be_left():
    model = small_model()
    stream = model.session().generate([1, 2, 3], max_tokens=8, temperature=0, ignore_eos=True, stream=True)
    next(stream)
    vars(model).clear()  # as tl.unload does
    stream.cancel()
    assert stream.result().finish_reason == "cancelled"


def test_random_prefixes(model):
    session = model.session()
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 300, 60).tolist()
    for _ in range(15):
        prompt = ids[: rng.integers(1, 60)] + rng.integers(0, 300, rng.integers(0, 5)).tolist()
        got = session.generate(prompt, max_tokens=int(rng.integers(0, 6)), prompt_lookup_tokens=int(rng.integers(0, 4)))
        assert got.ids == model.generate(prompt, max_tokens=len(got.ids) or 1).ids[: len(got.ids)]


def test_a_conversation(model):
    session = model.session()
    first = session.chat("the cat", max_tokens=5)
    assert session.messages == [{"role": "user", "content": "the cat"}, first.message()]
    second = session.chat({"role": "user", "content": "sat"}, max_tokens=5)
    assert second.reused_tokens > 0
    assert second.ids == model.chat([*session.messages[:2], {"role": "user", "content": "sat"}], max_tokens=5).ids
    assert len(session.messages) == 4
    session.reset()
    assert session.messages == []
    assert session.chat("the cat", max_tokens=5).text == first.text


def test_a_streamed_conversation(model):
    session = model.session()
    text = "".join(session.chat("the cat", max_tokens=5, stream=True))
    assert session.messages[-1]["content"] == text
    session.chat("sat", max_tokens=3, stream=True).cancel()
    assert len(session.messages) == 2  # an answer that nobody waited for is not part of the conversation


def test_a_session_follows_one_prompt(model):
    with pytest.raises(ArgumentError, match="one prompt"):
        model.session().generate(["a", "b"])


def test_several_prompts_with_a_session_are_refused_before_anything_is_computed(model, monkeypatch):
    session = model.session()
    expected = session.generate(LONG, max_tokens=3).ids
    monkeypatch.setattr(model, "forward", None)
    with pytest.raises(ArgumentError, match="one prompt or conversation, found 2"):
        model.generate(["a", "b"], session=session)
    with pytest.raises(ArgumentError, match="one prompt or conversation, found 2"):
        model.generate([[1, 2], [3]], session=session, stream=True, max_tokens=0)
    talks = [[{"role": "user", "content": text}] for text in "ab"]
    with pytest.raises(ArgumentError, match="one prompt or conversation, found 2"):
        model.chat(talks, session=session)
    monkeypatch.undo()
    assert session.messages == []
    again = session.generate(LONG, max_tokens=3)
    assert (again.ids, again.reused_tokens) == (expected, again.prompt_tokens - 1)
    assert [one.ids for one in model.generate([LONG], session=session, max_tokens=3)] == [expected]


def test_another_models_session_is_refused(model):
    other = small_model(context=400, num_hidden_layers=1)
    with pytest.raises(ArgumentError, match="made by another model"):
        model.generate("a", session=other.session())


def test_a_failed_prompt_leaves_the_session_as_it_was(model):
    session = model.session()
    expected = session.generate(LONG, max_tokens=3).ids
    with pytest.raises(ArgumentError):
        session.generate(LONG * 100)
    assert session.generate(LONG, max_tokens=3).ids == expected


def test_a_cache_that_cannot_grow_is_as_it_was_and_says_what_it_wanted(monkeypatch):
    def no_room(cache, capacity):
        raise OutOfMemoryError("no room")

    monkeypatch.setattr(KVCache, "resized", no_room)
    cache = DecoderCache(3, 1, 2, 16, 96)
    layers = list(cache.layers)
    with pytest.raises(
        OutOfMemoryError, match=r"keys and values of 1 × 960,000 tokens take 737 MB, cpu has .* MB free"
    ):
        cache.grow(960_000)
    assert cache.layers == layers
    assert cache.capacity == 96
    cache.grow(96)  # nothing to do
