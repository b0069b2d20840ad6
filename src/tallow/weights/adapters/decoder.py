"""Language models' weights from Hugging Face's files: their own names, whichever class saved them."""

from __future__ import annotations

from tallow.weights.adapters.mapped import MappedSource, Piece
from tallow.weights.source import Source

# Names of a layer's projections, as checkpoints have them.
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


def from_huggingface(source: Source) -> Source:
    """The names that ``…ForCausalLM`` writes: ``model.embed_tokens.weight``, ``model.layers.0.…``, ``lm_head.weight``.

    The bare model, as which embedding models are saved, writes the same without ``model.``.
    """
    bare = ("embed_tokens.", "layers.", "norm.")
    return MappedSource(source, {("model." if n.startswith(bare) else "") + n: Piece(n) for n in source.names()})
