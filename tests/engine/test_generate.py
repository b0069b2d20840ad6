import dataclasses
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow import _cpu, ops
from tallow.engine.generate import generate, read_padded
from tallow.engine.request import Options, Request
from tallow.engine.result import TokenLogprob
from tallow.engine.step import Decoder
from tallow.errors import ArgumentError, TemplateError, WeightsError
from tallow.tensor import Tensor
from tallow.text.language import Text

from .small_model import small_model, vocabulary

PROMPTS = ["the cat sat", "don't stop", "naïve café — 東京は", "the cat sat on the mat, the cat sat on the"]


@pytest.fixture(scope="module")
def model():
    return small_model()


def by_hand(model, prompt, count):
    """Greedy decoding, everything read again for every token."""
    ids = model.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    for _ in range(count):
        hidden = model.forward(Tensor(np.array([ids])), model.new_cache(1, len(ids)))
        ids.append(int(model.logits(hidden).numpy()[0, -1].argmax()))
    return ids[len(ids) - count :]


def test_greedy_text_is_what_the_model_says(model):
    for prompt in PROMPTS:
        result = model.generate(prompt, max_tokens=12, ignore_eos=True)
        assert result.ids == by_hand(model, prompt, 12)
        assert result.text == model.tokenizer.decode(result.ids)
        assert result.finish_reason == "length"
        assert result.prompt_tokens == len(model.tokenizer.encode(prompt))


def test_ids_serve_as_a_prompt(model):
    ids = model.tokenizer.encode(PROMPTS[0])
    expected = model.generate(PROMPTS[0], max_tokens=5).ids
    for prompt in (ids, tuple(ids), np.array(ids), Tensor(np.array(ids)).numpy()):
        assert model.generate(prompt, max_tokens=5).ids == expected
    assert [r.ids for r in model.generate([ids, np.array(ids)], max_tokens=5)] == [expected, expected]


def test_a_list_gives_what_each_prompt_gives_alone(model):
    for how in (
        {},
        {"temperature": 0.9, "seed": 4, "top_p": 0.9},
        {"repetition_penalty": 1.3},
        {"prompt_lookup_tokens": 3},
    ):
        many = model.generate(PROMPTS, max_tokens=20, **how)
        alone = [model.generate([p] * (i + 1), max_tokens=20, **how)[i] for i, p in enumerate(PROMPTS)]
        assert [r.ids for r in many] == [r.ids for r in alone]
        assert [r.text for r in many] == [r.text for r in alone]


def test_answers_that_end_at_different_times(model):
    full = model.generate(PROMPTS, max_tokens=15, ignore_eos=True)
    stops = [r.ids[i] for r, i in zip(full, (2, 9, 4, 0), strict=True)]
    results = model.generate(PROMPTS, max_tokens=15, ignore_eos=True, stop=stops)
    for result, whole in zip(results, full, strict=True):
        first = next((i for i, id in enumerate(whole.ids) if id in stops), 15)
        assert result.ids == whole.ids[:first]
        assert result.finish_reason == ("stop" if first < 15 else "length")
    assert len({len(r.ids) for r in results}) > 1


def test_each_prompt_may_have_settings_of_its_own(model):
    """And what each gets is what it would get alone, in its place of the list."""
    own = [
        {"temperature": 0.9, "seed": 3, "logprobs": 2}, {"max_tokens": 4, "keep_special": ()},
        {"repetition_penalty": 1.4, "logprobs": 1}, {"stop": ["a"], "temperature": 0.5, "top_k": 5, "seed": 8},
    ]  # fmt: skip
    found = model.generate(PROMPTS, max_tokens=12, ignore_eos=True, per_prompt=own)
    for place, (result, asked) in enumerate(zip(found, own, strict=True)):
        shared = {"max_tokens": 12, "ignore_eos": True} | asked
        alone = model.generate(PROMPTS, per_prompt=[shared] * 4)[place]
        assert (result.ids, result.text, result.finish_reason) == (alone.ids, alone.text, alone.finish_reason)
        assert (result.logprobs is None) == ("logprobs" not in asked)
        assert all(len(each.top) == asked["logprobs"] for each in result.logprobs or ())
    assert len(found[1].ids) == 4


def test_settings_that_are_not_of_each_prompt(model):
    with pytest.raises(ArgumentError, match="expected settings for each of 4 prompts, found 1"):
        model.generate(PROMPTS, per_prompt=[{}])
    with pytest.raises(ArgumentError, match="'stream' is no setting of a prompt; there are max_tokens, temperature"):
        model.generate(PROMPTS[:1], per_prompt=[{"stream": True}])
    with pytest.raises(ArgumentError, match="temperature must be at least 0"):
        model.generate(PROMPTS[:1], per_prompt=[{"temperature": -1}])


@pytest.mark.parametrize("lookup", [1, 2, 7])
@pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "seed": 7}, {"repetition_penalty": 1.2}, {"logprobs": 2}])
def test_guesses_change_nothing(model, lookup, how):
    plain = model.generate(PROMPTS, max_tokens=40, ignore_eos=True, **how)
    guessed = model.generate(PROMPTS, max_tokens=40, ignore_eos=True, prompt_lookup_tokens=lookup, **how)
    assert [(r.ids, r.text, r.finish_reason, r.logprobs) for r in plain] == [
        (r.ids, r.text, r.finish_reason, r.logprobs) for r in guessed
    ]


def test_guesses_are_used(model, monkeypatch):
    steps = []
    inner = model.forward
    monkeypatch.setattr(
        model, "forward", lambda ids, *rest: steps.append(ids.shape[1]) or inner(ids, *rest), raising=False
    )
    ids = model.generate(PROMPTS[0], max_tokens=60, ignore_eos=True, prompt_lookup_tokens=4).ids
    assert max(steps[1:]) > 1  # it repeats itself, as greedy decoding of small models does
    assert len(steps) < 60 == len(ids)


def test_chunks_of_the_prompt_change_nothing(model):
    def write(chunk):
        requests = [
            Request(model.tokenizer.encode(p) * 3, row, Options(max_tokens=8), model.text, len(model.tokenizer), 200)
            for row, p in enumerate(PROMPTS)
        ]
        list(generate(model, requests, Decoder(model, model.new_cache(4, 200)), chunk))
        return [request.ids for request in requests]

    assert write(1) == write(7) == write(16) == write(1000)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_bits_depend_on_nothing_beside_a_prompt(model, data):
    """Logits after every token: read alone, at once and by one thread, or in any company, chunks and threads."""
    prompts = data.draw(st.lists(st.lists(st.integers(0, 299), min_size=1, max_size=60), min_size=1, max_size=6))
    forced = data.draw(st.lists(st.integers(0, 299), min_size=3, max_size=3))  # the answer of all, token by token
    held = data.draw(st.integers(0, min(map(len, prompts)) - 1))  # tokens that the cache has from before
    chunk, count = data.draw(st.integers(1, 64)), data.draw(st.integers(1, 5))
    kind = data.draw(st.sampled_from(["float32", "float16", "int8"]))
    before = _cpu.get_num_threads()
    try:
        _cpu.set_num_threads(1)
        alone = [logits_of(model, [prompt], forced, 1000, model.new_cache(1, 70, kind))[:, 0] for prompt in prompts]
        _cpu.set_num_threads(count)
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        cache = model.new_cache(len(prompts), 70, kind)
        if held:
            model.forward(Tensor(np.array([prompts[i][:held] for i in order])), cache)
        together = logits_of(model, [prompts[i][held:] for i in order], forced, chunk, cache)
        for place, i in enumerate(order):
            assert np.array_equal(together[:, place], alone[i])
    finally:
        _cpu.set_num_threads(before)


def logits_of(model, prompts, forced, chunk, cache):
    """(1 + tokens, prompts, vocab): what the model says after each prompt, and after each token forced upon all."""
    found = [model.logits(read_padded(model, prompts, cache, chunk)).numpy()]
    for id in forced:
        hidden = model.forward(Tensor(np.full((len(prompts), 1), id)), cache)
        found.append(model.logits(hidden[:, -1]).numpy())
    return np.stack(found)


def test_streams_give_the_same_text(model):
    for how in ({}, {"prompt_lookup_tokens": 3}, {"stop": ["e", "zz"]}):
        expected = model.generate(PROMPTS, max_tokens=20, **how)
        texts = [""] * 4
        stream = model.generate(PROMPTS, max_tokens=20, stream=True, **how)
        for row, piece in stream:
            assert piece
            texts[row] += piece
        assert texts == [r.text for r in expected] == [r.text for r in stream.result()]
        single = model.generate(PROMPTS[0], max_tokens=20, stream=True, **how)
        assert "".join(single) == expected[0].text == single.result().text
        assert single.result() is single.result()


def test_a_stream_that_is_left_or_cancelled(model):
    stream = model.generate(PROMPTS[0], max_tokens=50, ignore_eos=True, stream=True)
    pieces = [next(stream), next(stream)]
    stream.cancel()
    assert list(stream) == []
    result = stream.result()
    assert result.finish_reason == "cancelled"
    assert result.text.startswith("".join(pieces))
    assert len(result.ids) < 50
    waiting = model.generate(PROMPTS[0], max_tokens=3, stream=True)
    assert waiting.result().text == model.generate(PROMPTS[0], max_tokens=3).text  # reads it to the end


def test_an_event_cancels_between_tokens(model):
    event = threading.Event()
    stream = model.generate(PROMPTS[:2], max_tokens=50, ignore_eos=True, stream=True, cancel=event)
    next(stream)
    event.set()
    results = stream.result()
    assert {r.finish_reason for r in results} == {"cancelled"}
    assert all(len(r.ids) <= 2 for r in results)
    assert model.generate(PROMPTS[0], cancel=event).ids == []


def test_stop_strings(model):
    whole = model.generate(PROMPTS[0], max_tokens=30, ignore_eos=True).text
    stop = whole[6:8]
    result = model.generate(PROMPTS[0], max_tokens=30, ignore_eos=True, stop=stop)
    assert result.text == whole[: whole.find(stop)]
    assert result.finish_reason == "stop"
    assert model.generate(PROMPTS[0], max_tokens=30, stop=["never there", stop], ignore_eos=True).text == result.text


def test_the_end_of_the_answer(model):
    ids = model.generate(PROMPTS[0], max_tokens=10, ignore_eos=True).ids
    ended = small_model()
    ended.text = Text(vocabulary(), None, frozenset({ids[4]}))
    result = ended.generate(PROMPTS[0], max_tokens=10)
    cut = ids.index(ids[4])
    assert (result.ids, result.finish_reason) == (ids[:cut], "stop")
    assert ended.generate(PROMPTS[0], max_tokens=10, ignore_eos=True).ids == ids


def test_log_probabilities(model):
    result = model.generate(PROMPTS[0], max_tokens=4, logprobs=3, temperature=1.0, seed=2)
    ids = model.tokenizer.encode(PROMPTS[0]) + result.ids
    hidden = model.forward(Tensor(np.array([ids])), model.new_cache(1, 50))
    expected = ops.log_softmax(model.logits(hidden)).numpy()[0, -5:-1]
    for place, entry in enumerate(result.logprobs):
        assert entry.id == result.ids[place]
        assert entry.logprob == pytest.approx(expected[place, entry.id], abs=1e-5)
        assert [id for id, _ in entry.top] == np.argsort(-expected[place], kind="stable")[:3].tolist()
    assert model.generate(PROMPTS[0], max_tokens=2).logprobs is None
    assert model.generate(PROMPTS[0], max_tokens=2, logprobs=0).logprobs[0].top == ()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.9, "seed": 3},
        {"repetition_penalty": 1.3},
        {"temperature": 0.7, "prompt_lookup_tokens": 3, "seed": 1},
    ],
)
@pytest.mark.parametrize("logprobs", [0, 1, 5, 20, 10**6])
def test_log_probabilities_of_every_row_of_a_list(model, how, logprobs):
    options = {"max_tokens": 9, "ignore_eos": True} | how
    plain = model.generate(PROMPTS, **options)
    results = model.generate(PROMPTS, logprobs=logprobs, **options)
    assert [result.ids for result in results] == [result.ids for result in plain]
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = model.tokenizer.encode(prompt) + result.ids
        scores = ops.log_softmax(model.logits(model.forward(Tensor(np.array([ids])), model.new_cache(1, 60)))).numpy()[
            0
        ]
        for entry, row in zip(result.logprobs, scores[-len(result.ids) - 1 : -1], strict=True):
            top = [id for id, _ in entry.top]
            assert len(set(top)) == min(logprobs, model.config.vocab_size) == len(top)
            np.testing.assert_allclose([value for _, value in entry.top], np.sort(row)[::-1][: len(top)], atol=1e-5)
            np.testing.assert_allclose([value for _, value in entry.top], row[top], atol=1e-5)
            assert entry.logprob == pytest.approx(row[entry.id], abs=1e-5)


@pytest.mark.parametrize("how", [{}, {"temperature": 0.9}])
def test_log_probabilities_belong_to_the_recorded_step(model, monkeypatch, how):
    """No step gives its logits to Python where the likeliest token comes."""
    given = []
    add = Request.add
    monkeypatch.setattr(Request, "add", lambda self, scores: given.append(type(scores)) or add(self, scores))
    model.generate(PROMPTS[0], max_tokens=6, logprobs=2, ignore_eos=True, **how)
    expected = TokenLogprob if not how else np.ndarray  # what is drawn at random is drawn by NumPy on the CPU
    assert given == [np.ndarray, *[expected] * 5]


def test_the_authors_settings_are_the_defaults():
    model = small_model(defaults={"temperature": 0.8, "top_k": 5})
    plain = small_model()
    assert (
        model.generate("the", seed=1, max_tokens=9).ids
        == plain.generate("the", seed=1, max_tokens=9, temperature=0.8, top_k=5).ids
    )
    assert model.generate("the", temperature=0, max_tokens=9).ids == plain.generate("the", max_tokens=9).ids


def test_the_context_is_an_end():
    model = small_model(context=20)
    ids = [1] * 15
    result = model.generate(ids, max_tokens=100, ignore_eos=True)
    assert (len(result.ids), result.finish_reason) == (5, "length")
    with pytest.raises(ArgumentError, match=r"prompt has 20 tokens.*context holds 20.*truncate=True"):
        model.generate([1] * 20)
    cut = model.generate(list(range(30)), max_tokens=4, truncate=True, ignore_eos=True)
    assert cut.prompt_tokens == 16
    assert cut.ids == model.generate(list(range(14, 30)), max_tokens=4, ignore_eos=True).ids
    assert model.generate(list(range(30)), max_tokens=500, truncate=True).prompt_tokens == 10


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "empty"), ([], "list of prompts is empty"), ([[]], "prompt is empty"), ([10**6], "holds 1000000"),
        ([-1], "holds -1"), ([1, "a"], "holds 'a'"), (["the", ""], "empty"), ([1, True], "holds True"),
        ([[1.5]], "holds 1.5"),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be(model, prompt, said):
    with pytest.raises(ArgumentError, match=said):
        model.generate(prompt)


@pytest.mark.parametrize(
    "how",
    [{"temperature": -1}, {"max_tokens": -1}, {"max_tokens": 2.5}, {"stop": ""}, {"stop": ["a", None]}, {"stop": -4},
     {"logprobs": -1}, {"prompt_lookup_tokens": -1}, {"top_k": -3}],
)  # fmt: skip
def test_settings_that_cannot_be(model, how):
    with pytest.raises(ArgumentError, match=next(iter(how))):
        model.generate("the", **how)


def test_nothing_asked_for(model):
    result = model.generate("the", max_tokens=0)
    assert (result.ids, result.text, result.finish_reason) == ([], "", "length")
    assert list(model.generate("the", max_tokens=0, stream=True)) == []


def test_a_model_without_a_tokenizer_takes_and_gives_ids(model):
    bare = small_model()
    bare.text = Text()
    result = bare.generate([1, 2, 3], max_tokens=4)
    assert (result.ids, result.text) == (model.generate([1, 2, 3], max_tokens=4, ignore_eos=True).ids, "")
    calls = [lambda: bare.generate("a"), lambda: bare.tokenizer, lambda: bare.embed("a")]
    for call in [*calls, lambda: bare.generate([1], stop="x")]:
        with pytest.raises(WeightsError, match="has no tokenizer"):
            call()
    with pytest.raises(TemplateError, match="no chat template"):
        bare.chat("hi")


def test_threads_share_a_model(model):
    expected = [model.generate(p, max_tokens=20, temperature=0.7, seed=1).ids for p in PROMPTS]
    got = [None] * 4

    def work(i):
        got[i] = model.generate(PROMPTS[i], max_tokens=20, temperature=0.7, seed=1).ids

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


def test_results_say_how_long_it_took(model):
    result = model.generate("the", max_tokens=5, ignore_eos=True)
    assert result.timings.prefill > 0 < result.timings.decode
    assert result.tokens_per_second == pytest.approx(4 / result.timings.decode)
    assert dataclasses.replace(result, ids=[]).tokens_per_second == 0


def test_what_the_reader_does_between_two_pieces_is_not_counted(monkeypatch):
    model = small_model()

    def seconds(pause, prompts):
        now = [0.0]

        def tick():
            now[0] += 1.0  # a second passes whenever the clock is looked at
            return now[0]

        monkeypatch.setattr(sys.modules[generate.__module__], "time", SimpleNamespace(perf_counter=tick))
        stream = model.generate(prompts, max_tokens=6, ignore_eos=True, stream=True)
        for _ in stream:
            now[0] += pause
        return [(one.timings.prefill, one.timings.decode) for one in stream.result()]

    for prompts in (["the cat"], ["the cat", "a mat sat"]):
        assert seconds(1000.0, prompts) == seconds(0.0, prompts)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_smaller_cache(model, dtype):
    options = {"max_tokens": 12, "cache_dtype": dtype, "ignore_eos": True}
    alone = model.generate("the", **options).ids
    assert len(alone) == 12
    assert [result.ids for result in model.generate(["the", "a longer one", "the"], **options)][::2] == [alone, alone]
