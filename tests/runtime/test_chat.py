import json

import pytest

from tallow import Tensor
from tallow.errors import ArgumentError, TemplateError
from tallow.text.chat_template import ChatTemplate
from tallow.text.language import Text
from tests.text.conversations import WEATHER, user

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


def saying(text):
    """A model that says a text, whatever it is asked."""
    tokenizer = vocabulary()
    ids = [*tokenizer.encode(text, special=True), tokenizer.id("<|im_end|>")]
    model = small_model(context=3000)
    model.text = Text(tokenizer, ChatTemplate("{{ messages[0].content }}</think>"), frozenset({ids[-1]}))
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
