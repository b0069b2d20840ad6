"""A language model small enough for tests, with random weights and a vocabulary of its own."""

import functools

from tallow.models.qwen3 import Qwen3, Qwen3Config
from tallow.text.chat_template import ChatTemplate
from tallow.text.gguf_tokenizer import gguf_tokenizer
from tallow.text.language import Text
from tallow.weights.var_builder import VarBuilder
from tests.text.conversations import TEMPLATES
from tests.text.vocabularies import as_gguf, byte_level


@functools.cache
def vocabulary():
    return gguf_tokenizer(as_gguf(byte_level(), "qwen2"), "the test's vocabulary")


def small_model(*, context=256, template="qwen3", defaults=None, seed=0, **changes):
    tokenizer = vocabulary()
    config = Qwen3Config.from_dict(
        {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": context,
         "tie_word_embeddings": True} | changes
    )  # fmt: skip
    ends = frozenset({tokenizer.id("<|im_end|>")})
    text = Text(tokenizer, ChatTemplate(TEMPLATES[template]), ends, defaults)
    return Qwen3(config, VarBuilder.random(seed), text)
