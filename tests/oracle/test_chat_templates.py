"""Rendered conversations against Transformers."""

import pytest

from tallow.errors import TallowError
from tallow.text.chat_template import ChatTemplate
from tests.text.conversations import CONVERSATIONS, OPTIONS, TEMPLATES, TOKENS

transformers = pytest.importorskip("transformers", reason="needs the extra `oracle`")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.oracle


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
