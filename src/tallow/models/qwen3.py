"""Qwen3 (Yang et al. 2025, "Qwen3 technical report"): dense language models, and embedding models made from them.

A pre-norm decoder with rotary positions, grouped-query attention whose queries and keys are normalised head by head,
and a gated MLP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallow.engine.kv_cache import DecoderCache, ForwardContext
from tallow.models.config_reader import ConfigReader
from tallow.models.decoder import decoder_spec
from tallow.models.language_model import Head, LanguageModel
from tallow.models.spec import Export
from tallow.nn import Embedding, GatedMLP, Linear, Module, RMSNorm, RotaryEmbedding, StackedLinear
from tallow.tensor import Tensor
from tallow.text.language import Text
from tallow.weights.adapters.decoder import ATTENTION
from tallow.weights.adapters.gguf import GGUFNames
from tallow.weights.var_builder import VarBuilder


@dataclass(frozen=True)
class Qwen3Config:
    """Sizes, under the names that Hugging Face's ``config.json`` has for them.

    Attributes:
        biases: names of the projections that have one.
        windows: for each layer how many positions it sees, itself included; None for all.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None
    biases: frozenset[str]
    tie_word_embeddings: bool
    windows: tuple[int | None, ...]

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Qwen3Config:
        """Take the sizes out of a ``config.json``.

        Raises:
            WeightsError: if one is missing or senseless, or the model computes something else than Qwen3 does.
        """
        reader = ConfigReader(config, "Qwen3")
        reader.expect("hidden_act", "silu")
        heads, kv_heads = reader.heads()
        theta, scaling = reader.rope()
        layers = reader.size("num_hidden_layers")
        return cls(
            vocab_size=reader.size("vocab_size"),
            hidden_size=reader.size("hidden_size"),
            intermediate_size=reader.size("intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=reader.size("head_dim", 128),
            max_position_embeddings=reader.size("max_position_embeddings", 32768),
            rms_norm_eps=reader.real("rms_norm_eps", 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            biases=reader.biases({"attention_bias": ATTENTION}),
            tie_word_embeddings=reader.flag("tie_word_embeddings", False),
            windows=reader.windows(layers),
        )


class Attention(Module):
    """Causal attention with grouped heads, queries and keys normalised.

    Args:
        config: sizes.
        layer: which layer it is.
        vb: weights ``{q,k,v,o}_proj`` and ``{q,k}_norm``.
    """

    def __init__(self, config: Qwen3Config, layer: int, vb: VarBuilder) -> None:
        d, kv = config.head_dim, config.num_key_value_heads * config.head_dim
        width, q = config.hidden_size, config.num_attention_heads * d
        self.layer, self.head_dim, self.window = layer, d, config.windows[layer]
        self.qkv = StackedLinear(width, {"q_proj": q, "k_proj": kv, "v_proj": kv}, vb, bias=config.biases)
        self.q_norm = RMSNorm(d, vb.pp("q_norm"), config.rms_norm_eps)
        self.k_norm = RMSNorm(d, vb.pp("k_norm"), config.rms_norm_eps)
        self.out = Linear(q, width, vb.pp("o_proj"), bias="o_proj" in config.biases)

    def __call__(self, x: Tensor, residual: Tensor, ctx: ForwardContext) -> Tensor:
        """x (b, n, dim), residual likewise -> (b, n, dim), the residual added."""
        b, n, _ = x.shape
        q, k, v = (y.reshape(b, n, -1, self.head_dim) for y in self.qkv(x))  # (b, n, heads or kv_heads, head_dim)
        y = ctx.attend(self.layer, q, k, v, self.window, norms=(self.q_norm, self.k_norm))
        return self.out(y.reshape(b, n, -1), residual=residual)


class Block(Module):
    """Attention, then the MLP, each on normalised input and added to the stream.

    Args:
        config: sizes.
        layer: which layer it is.
        vb: weights ``self_attn``, ``mlp``, ``input_layernorm`` and ``post_attention_layernorm``.
    """

    def __init__(self, config: Qwen3Config, layer: int, vb: VarBuilder) -> None:
        self.norm1 = RMSNorm(config.hidden_size, vb.pp("input_layernorm"), config.rms_norm_eps)
        self.attention = Attention(config, layer, vb.pp("self_attn"))
        self.norm2 = RMSNorm(config.hidden_size, vb.pp("post_attention_layernorm"), config.rms_norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, vb.pp("mlp"), bias=config.biases)

    def __call__(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        """(b, n, dim) -> (b, n, dim)."""
        x = self.attention(self.norm1(x), x, ctx)
        return self.mlp(self.norm2(x), x)


class Qwen3(LanguageModel):
    """A Qwen3: ``tl.load("Qwen/Qwen3-0.6B").chat("Why is the sky blue?")``.

    Args:
        config: sizes.
        vb: weights under Hugging Face's names, ``model.embed_tokens`` and on.
        text: tokenizer, chat template and what goes with them; None for a model that only computes.
    """

    Config = Qwen3Config

    def __init__(self, config: Qwen3Config, vb: VarBuilder, text: Text | None = None) -> None:
        self.config, self.text = config, text or Text()
        inner = vb.pp("model")
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, inner.pp("embed_tokens"))
        self.blocks = [Block(config, i, inner.pp(f"layers.{i}")) for i in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config.hidden_size, inner.pp("norm"), config.rms_norm_eps)
        self.head = Head(self.embed_tokens, config.tie_word_embeddings, vb)
        self.rope = RotaryEmbedding(
            config.head_dim, config.max_position_embeddings, theta=config.rope_theta, scaling=config.rope_scaling,
            device=vb.device,
        )  # fmt: skip

    def forward(self, ids: Tensor, cache: DecoderCache, counts: Sequence[int] | None = None) -> Tensor:
        """Read tokens: (b, n) integers -> (b, n, dim), normalised. See ``LanguageModel.forward``."""
        ctx = cache.forward_context(self.rope, ids.shape[1], counts)
        x = self.embed_tokens(ids)
        for block in self.blocks:
            x = block(x, ctx)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, dim) -> (…, vocab)."""
        return self.head(hidden)


SPEC = decoder_spec(Qwen3, "qwen3", gguf=GGUFNames("qwen3"), export=Export("Qwen3", biases=(ATTENTION,)))
