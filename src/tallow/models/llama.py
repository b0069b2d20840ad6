"""Llama (Touvron et al. 2023; Grattafiori et al. 2024, "The Llama 3 herd of models"), and what is built like it:
SmolLM2, and Mistral, which adds a sliding window.

A pre-norm decoder with rotary positions, grouped-query attention and a gated MLP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallow.engine.kv_cache import DecoderCache, ForwardContext
from tallow.models.config_reader import MAX, ConfigReader
from tallow.models.decoder import decoder_spec
from tallow.models.language_model import Head, LanguageModel
from tallow.models.spec import Export
from tallow.nn import Embedding, GatedMLP, Linear, Module, RMSNorm, RotaryEmbedding, StackedLinear
from tallow.tensor import Tensor
from tallow.text.language import Text
from tallow.weights.adapters.decoder import ATTENTION, MLP
from tallow.weights.adapters.gguf import GGUFNames, llama_rows
from tallow.weights.var_builder import VarBuilder

# What a Mistral has where its config.json has no such key; a null is a value of its own.
_MISTRAL = {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096}


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes, under the names that Hugging Face's ``config.json`` has for them.

    Attributes:
        biases: names of the projections that have one.
        window: how many positions each one sees, itself included; None for all.
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
    window: int | None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> LlamaConfig:
        """Take the sizes out of a ``config.json``.

        Raises:
            WeightsError: if one is missing or senseless, or the model computes something else than Llama does.
        """
        if config.get("model_type") == "mistral":
            config = _MISTRAL | dict(config)
        reader = ConfigReader(config, "Llama")
        reader.expect("hidden_act", "silu")
        heads, kv_heads = reader.heads()
        theta, scaling = reader.rope()
        return cls(
            vocab_size=reader.size("vocab_size"),
            hidden_size=reader.size("hidden_size"),
            intermediate_size=reader.size("intermediate_size"),
            num_hidden_layers=reader.size("num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=reader.head_dim(),
            max_position_embeddings=reader.size("max_position_embeddings", 2048),
            rms_norm_eps=reader.real("rms_norm_eps", 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            biases=reader.biases({"attention_bias": ATTENTION, "mlp_bias": MLP}),
            tie_word_embeddings=reader.flag("tie_word_embeddings", False),
            window=reader.size("sliding_window", MAX) if config.get("sliding_window") else None,
        )


class Attention(Module):
    """Causal attention with grouped heads.

    Args:
        config: sizes.
        layer: which layer it is.
        vb: weights ``{q,k,v,o}_proj``.
    """

    def __init__(self, config: LlamaConfig, layer: int, vb: VarBuilder) -> None:
        d, kv = config.head_dim, config.num_key_value_heads * config.head_dim
        width, q = config.hidden_size, config.num_attention_heads * d
        self.layer, self.head_dim, self.window = layer, d, config.window
        self.qkv = StackedLinear(width, {"q_proj": q, "k_proj": kv, "v_proj": kv}, vb, bias=config.biases)
        self.out = Linear(q, width, vb.pp("o_proj"), bias="o_proj" in config.biases)

    def __call__(self, x: Tensor, residual: Tensor, ctx: ForwardContext) -> Tensor:
        """x (b, n, dim), residual likewise -> (b, n, dim), the residual added."""
        b, n, _ = x.shape
        q, k, v = (y.reshape(b, n, -1, self.head_dim) for y in self.qkv(x))  # (b, n, heads or kv_heads, head_dim)
        y = ctx.attend(self.layer, q, k, v, self.window)
        return self.out(y.reshape(b, n, -1), residual=residual)


class Block(Module):
    """Attention, then the MLP, each on normalised input and added to the stream.

    Args:
        config: sizes.
        layer: which layer it is.
        vb: weights ``self_attn``, ``mlp``, ``input_layernorm`` and ``post_attention_layernorm``.
    """

    def __init__(self, config: LlamaConfig, layer: int, vb: VarBuilder) -> None:
        self.norm1 = RMSNorm(config.hidden_size, vb.pp("input_layernorm"), config.rms_norm_eps)
        self.attention = Attention(config, layer, vb.pp("self_attn"))
        self.norm2 = RMSNorm(config.hidden_size, vb.pp("post_attention_layernorm"), config.rms_norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, vb.pp("mlp"), bias=config.biases)

    def __call__(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        """(b, n, dim) -> (b, n, dim)."""
        x = self.attention(self.norm1(x), x, ctx)
        return self.mlp(self.norm2(x), x)


class Llama(LanguageModel):
    """A Llama: ``tl.load("HuggingFaceTB/SmolLM2-135M-Instruct").chat("Why is the sky blue?")``.

    Args:
        config: sizes.
        vb: weights under Hugging Face's names, ``model.embed_tokens`` and on.
        text: tokenizer, chat template and what goes with them; None for a model that only computes.
    """

    Config = LlamaConfig

    def __init__(self, config: LlamaConfig, vb: VarBuilder, text: Text | None = None) -> None:
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


SPEC = decoder_spec(
    Llama, "llama", gguf=GGUFNames("llama", row_order=llama_rows), export=Export("Llama", biases=(ATTENTION, MLP))
)
