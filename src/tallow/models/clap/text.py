"""RoBERTa, CLAP's text encoder (Liu et al. 2019, "RoBERTa: a robustly optimized BERT pretraining approach").

A Transformer whose layers are normalised behind each addition; a text is what it says of the text's first token.
"""

from __future__ import annotations

from tallow import ops
from tallow.models.clap.config import TextConfig
from tallow.nn import Embedding, LayerNorm, Linear, Module, StackedLinear
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder


class Layer(Module):
    """Attention, then an MLP, each added to its input and normalised.

    Args:
        config: sizes.
        vb: weights ``attention.self.{query,key,value}``, ``attention.output``, ``intermediate`` and ``output``.
    """

    def __init__(self, config: TextConfig, vb: VarBuilder) -> None:
        dim, hidden = config.hidden_size, config.intermediate_size
        self.num_heads = config.num_attention_heads
        self.qkv = StackedLinear(dim, {"query": dim, "key": dim, "value": dim}, vb.pp("attention.self"), bias=True)
        self.out = Linear(dim, dim, vb.pp("attention.output.dense"))
        self.norm1 = LayerNorm(dim, vb.pp("attention.output.LayerNorm"), config.layer_norm_eps)
        self.fc1 = Linear(dim, hidden, vb.pp("intermediate.dense"))
        self.fc2 = Linear(hidden, dim, vb.pp("output.dense"))
        self.norm2 = LayerNorm(dim, vb.pp("output.LayerNorm"), config.layer_norm_eps)

    def __call__(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(b, n, dim) -> (b, n, dim), of which the first ``lengths`` (b,) of each row count."""
        b, n, dim = x.shape
        q, k, v = (y.reshape(b, n, self.num_heads, -1) for y in self.qkv(x))  # each (b, n, heads, head_dim)
        y = ops.attention(q, k, v, lengths=lengths)
        x = self.norm1(self.out(y.reshape(b, n, dim), residual=x))
        return self.norm2(self.fc2(self.fc1(x, activation="gelu"), residual=x))


class TextEncoder(Module):
    """RoBERTa: token ids to one vector a text.

    Args:
        config: sizes.
        vb: weights ``embeddings``, ``encoder.layer.N`` and ``pooler.dense``.
    """

    def __init__(self, config: TextConfig, vb: VarBuilder) -> None:
        dim, inner = config.hidden_size, vb.pp("embeddings")
        self.words = Embedding(config.vocab_size, dim, inner.pp("word_embeddings"))
        positions = inner.get((config.max_position_embeddings, dim), "position_embeddings.weight")
        kinds = inner.get((config.type_vocab_size, dim), "token_type_embeddings.weight")
        # Positions are counted from behind the padding's; every token is of kind 0.
        self.positions = positions.narrow(0, config.pad_token_id + 1, config.context) + kinds[0]
        self.norm = LayerNorm(dim, inner.pp("LayerNorm"), config.layer_norm_eps)
        self.layers = [Layer(config, vb.pp(f"encoder.layer.{i}")) for i in range(config.num_hidden_layers)]
        self.pooler = Linear(dim, dim, vb.pp("pooler.dense"))

    def __call__(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Encode texts.

        Args:
            ids: (b, n) integers, padded behind.
            lengths: (b,) integers, how many of each row count.

        Returns:
            (b, dim)
        """
        x = self.norm(self.words(ids) + self.positions.narrow(0, 0, ids.shape[1]))
        for layer in self.layers:
            x = layer(x, lengths)
        return ops.tanh(self.pooler(x[:, 0]))
