"""A small language model on disk, in the layout in which models are published."""

import json

from tallow.models.registry import find_class
from tallow.weights.random import RandomSource
from tallow.weights.safetensors import save_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.text.conversations import TEMPLATES
from tests.text.vocabularies import byte_level

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256}  # fmt: skip


class Recording(RandomSource):
    """Random weights that remember what was asked for."""

    def __init__(self, seed):
        super().__init__(seed)
        self.drawn = {}

    def draw(self, name, shape):
        self.drawn[name] = super().draw(name, shape)
        return self.drawn[name]


def publish(folder, architecture="qwen3", template="qwen3", **changes):
    """Write a model with random weights; the folder."""
    encoder = byte_level()
    config = {"model_type": architecture, "vocab_size": encoder.get_vocab_size(), "tie_word_embeddings": True}
    config |= SIZES | changes
    source = Recording(7)
    model_class = find_class(architecture)
    model_class(model_class.Config.from_dict(config), VarBuilder(source))
    save_safetensors(source.drawn, folder / "model.safetensors")
    encoder.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "chat_template": TEMPLATES[template]}
    for name, value in {"config.json": config, "tokenizer_config.json": settings}.items():
        (folder / name).write_text(json.dumps(value))
    return folder
