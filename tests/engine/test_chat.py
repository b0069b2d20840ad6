import json

import pytest

from tallow import Tensor
from tallow.errors import ArgumentError, TemplateError
from tallow.text.chat_template import ChatTemplate
from tallow.text.gguf_tokenizer import gguf_tokenizer
from tallow.text.language import Text
from tests.text.conversations import WEATHER, user
from tests.text.vocabularies import as_gguf, byte_level

from .small_model import small_model, vocabulary


@pytest.fixture(scope="module")
def model():
    return small_model(context=3000)


def test_the_prompt_is_the_template_rendered(model):
    rendered = model.text.template.render("the cat")
    assert rendered == "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"
    expected = model.generate(rendered, max_tokens=8)
    for messages in ("the cat", [user("the cat")]):
        result = model.chat(messages, max_tokens=8)
        assert (result.ids, result.text) == (expected.ids, expected.text)
    off = model.chat("the cat", max_tokens=8, enable_thinking=False)
    assert off.ids == model.generate(rendered + "<think>\n\n</think>\n\n", max_tokens=8).ids


def test_several_conversations(model):
    many = model.chat([[user("the cat")], [user("a mat")]], max_tokens=6)
    assert [r.ids for r in many] == [model.chat(m, max_tokens=6).ids for m in ("the cat", "a mat")]


def test_tools_reach_the_template(model):
    with_tools = model.chat("the cat", tools=[WEATHER], max_tokens=2)
    assert with_tools.prompt_tokens == len(
        model.tokenizer.encode(model.text.template.render("the cat", tools=[WEATHER]), special=True)
    )


TEMPLATE = "{{ tools }}{{ messages[0].content }}{{ '<tool_call>' if 0 }}</think>"


def saying(text, tokenizer=None, template=TEMPLATE):
    """A model that says a text, whatever it is asked."""
    tokenizer = tokenizer or vocabulary()
    ids = [*tokenizer.encode(text, special=True), tokenizer.id("<|im_end|>")]
    model = small_model(context=3000, vocab_size=len(tokenizer))
    model.text = Text(tokenizer, ChatTemplate(template), frozenset({ids[-1]}))
    plain = model.logits
    said = iter(ids)

    def logits(hidden):
        scores = plain(hidden).numpy().copy()  # which is not recorded: this function must be called at each step
        scores[..., next(said)] += 1e4
        return Tensor(scores)

    model.logits = logits
    return model


def test_reasoning_and_tool_calls_are_taken_apart():
    call = {"name": "weather", "arguments": {"city": "x", "days": 2}}
    text = f"<think>\nhm\n</think>\n\nLet me look.\n<tool_call>\n{json.dumps(call)}\n</tool_call>"
    result = saying(text).chat("a", tools=[WEATHER])
    assert (result.text, result.reasoning, result.finish_reason) == ("Let me look.", "hm", "stop")
    assert [(c.name, c.arguments) for c in result.tool_calls] == [("weather", {"city": "x", "days": 2})]
    assert result.message() == {
        "role": "assistant", "content": "Let me look.", "reasoning_content": "hm",
        "tool_calls": [{"type": "function", "function": call}],
    }  # fmt: skip
    untold = saying(text).chat("a")
    assert untold.tool_calls == []
    assert "<tool_call>" in untold.text
    assert "".join(saying(text).chat("a", stream=True)) == text


def test_marks_of_calls_that_are_special_tokens_are_seen():
    encoder = byte_level()
    marks = ["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"]
    encoder.add_special_tokens(marks)
    metadata = as_gguf(encoder, "qwen2")
    metadata["tokenizer.ggml.token_type"][-3:] = 3  # control
    tokenizer = gguf_tokenizer(metadata, "the test's vocabulary")
    assert {tokenizer.added[mark] for mark in marks} <= tokenizer.special
    template = "{{ tools }}{{ '[TOOL_CALLS]name[ARGS]' if 0 }}"
    call = '[TOOL_CALLS]weather[CALL_ID]abc123def[ARGS]{"city": "x"}'
    result = saying(f"Well.<|im_start|>{call * 2}", tokenizer, template).chat("a", tools=[WEATHER])
    assert result.tool_calls == [("weather", {"city": "x"}, "abc123def")] * 2
    assert result.text == "Well."  # and other special tokens are left out, as ever
    said = result.message()["tool_calls"][0]
    assert (said["id"], said["function"]["name"]) == ("abc123def", "weather")
    assert "".join(saying(call, tokenizer, template).chat("a", tools=[WEATHER], stream=True)) == call
    kept = saying(call, tokenizer, template).chat("a", keep_special="[ARGS]")
    assert (kept.text, kept.tool_calls) == ('weatherabc123def[ARGS]{"city": "x"}', [])
    both = saying(f"<|im_start|>{call}", tokenizer, template).chat("a", tools=[WEATHER], keep_special="<|im_start|>")
    assert (both.text, len(both.tool_calls)) == ("<|im_start|>", 1)
    untold = saying(call, tokenizer, template).chat("a")
    assert (untold.text, untold.tool_calls) == ('weatherabc123def{"city": "x"}', [])


def test_tools_that_no_template_reads_are_an_error():
    model = small_model(template="smollm2")
    with pytest.raises(TemplateError, match="reads no tools, so the model would never see them"):
        model.chat("a", tools=[WEATHER])
    assert model.chat("a", tools=[], max_tokens=1).ids
    source = "{% for tool in tools %}{{ tool.function.name }}{% endfor %}"
    assert model.chat("a", tools=[WEATHER], chat_template=source, max_tokens=3).ids == (
        model.generate("weather", max_tokens=3).ids
    )


def test_the_template_is_chosen():
    model = small_model()
    model.text = Text(model.tokenizer, ChatTemplate({"default": "one", "tool_use": "two{{ tools }}", "rag": "three"}))

    def read(**options):
        return model.chat("a", max_tokens=0, **options).prompt_tokens

    counts = {name: len(model.tokenizer.encode(name)) for name in ("one", "three")}
    assert read() == read(tools=[WEATHER], chat_template="{{ tools and 'one' }}") == counts["one"]
    assert read(chat_template="rag") == counts["three"]
    assert read(tools=[WEATHER]) > 20
    with pytest.raises(TemplateError, match="no 'tools' among"):
        read(chat_template="tools")
    with pytest.raises(TemplateError, match="reads no tools"):
        read(tools=[WEATHER], chat_template="default")
    model.text = Text(model.tokenizer)
    with pytest.raises(TemplateError, match="has no chat template"):
        read()
    assert read(chat_template="{{ 'one' }}") == counts["one"]


def test_an_answer_cut_off_while_thinking():
    result = saying("<think>\nthe cat sat on the mat").chat("a", max_tokens=6)
    assert (result.text, result.finish_reason) == ("", "length")
    assert result.reasoning.startswith("the")


def test_errors(model):
    with pytest.raises(TemplateError, match="alternate"):
        small_model(template="alternating").chat([{"role": "assistant", "content": "a"}])
    with pytest.raises(ArgumentError, match="expected messages"):
        model.chat([])
    with pytest.raises(ArgumentError, match="expected messages"):
        model.chat(["a"])
    with pytest.raises(TypeError, match="colour"):
        model.chat("a", colour="red")
