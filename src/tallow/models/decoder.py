"""What decoders have in common: the names in their files, their sizes, and the tensors that they leave unread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallow.models.spec import Export, Spec
from tallow.runtime.sizes import Sizes
from tallow.weights.adapters.decoder import from_huggingface
from tallow.weights.adapters.gguf import GGUFNames

UNREAD = {
    r"(.*\.)?rotary_emb\.inv_freq": "a buffer that older versions of Transformers saved; the config says it",
    r"lm_head\.weight": "the embedding's table under another name, where the config ties them",
}


def decoder_sizes(config: Mapping[str, Any]) -> Sizes:
    """Qwen and Llama: attention with grouped heads and a gated MLP; prompts are read in chunks."""
    d, f, layers, vocab = (
        config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    )
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or d // heads
    kv = (config.get("num_key_value_heads") or heads) * head_dim
    q = heads * head_dim
    tables = vocab * d * (1 if config.get("tie_word_embeddings") else 2)
    matrices = layers * (d * (2 * q + 2 * kv) + 3 * d * f) + tables
    return Sizes(
        matrices=matrices,
        tables=tables,
        scales=matrices // 16,  # one for each group of inputs (models/language_model.py)
        tensors=layers * (2 * d + q + 2 * kv) + d,
        cache_per_row=0,
        cache_per_token=2 * layers * kv,
        context=config.get("max_position_embeddings") or 2048,
        results=vocab,
        live=vocab,
        fixed=700 * vocab + 15_000_000,  # the tokenizer, measured; modules
        results_per_token=2 * d + max(2 * q + 3 * kv, 3 * f),
    )


def decoder_spec(model: Any, *model_types: str, gguf: GGUFNames, export: Export) -> Spec:
    """The entry of a decoder whose sizes and names are the usual ones."""
    return Spec(model, model_types, decoder_sizes, UNREAD, from_huggingface, gguf, export=export)
