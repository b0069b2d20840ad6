"""Rendered conversations against Transformers."""

import pytest

from tallow.errors import TallowError
from tallow.text.chat_template import ChatTemplate
from tests.text.conversations import CONVERSATIONS, OPTIONS, TEMPLATES, TOKENS

transformers = pytest.importorskip("transformers", reason="needs the extra `oracle`")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.oracle


SEEN = "{% for m in messages %}{{ m|tojson }} {{ m.content is defined }} {{ m.content is none }}\n{% endfor %}"
ARGUMENTS = [{"type": "function", "function": {"name": "weather", "arguments": given}} for given in
             ({"city": "x", "days": None}, '{"city": "x"}', "", None)]  # fmt: skip
MESSAGES = {
    "content of None": {"content": None},
    "no content": {},
    "empty content": {"content": ""},
    "calls of None": {"content": "a", "tool_calls": None},
    "no calls": {"content": None, "tool_calls": []},
    "calls": {"content": None, "tool_calls": ARGUMENTS},
    "an id of None": {"content": "a", "tool_calls": [{"id": None, **ARGUMENTS[0]}], "name": None},
    "parts": {"content": [{"type": "text", "text": None}, None]},
    "reasoning of None": {"content": "a", "reasoning_content": None, "thinking": "hm"},
}


@pytest.fixture(scope="module")
def tokenizer():
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **TOKENS)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_the_same_text_or_an_error_on_both_sides(tokenizer, name, conversation, options):
    messages, given = CONVERSATIONS[conversation], {"add_generation_prompt": True} | OPTIONS[options]
    try:
        expected = tokenizer.apply_chat_template(messages, chat_template=TEMPLATES[name], tokenize=False, **given)
    except Exception:
        with pytest.raises(TallowError):
            ChatTemplate(TEMPLATES[name], TOKENS).render(messages, **given)
    else:
        assert ChatTemplate(TEMPLATES[name], TOKENS).render(messages, **given) == expected


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
def test_a_template_sees_the_same_messages(tokenizer, message):
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", **message}]
    expected = tokenizer.apply_chat_template(messages, chat_template=SEEN, tokenize=False)
    assert ChatTemplate(SEEN).render(messages, add_generation_prompt=False) == expected
