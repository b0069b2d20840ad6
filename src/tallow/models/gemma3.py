"""Gemma 3 (Gemma Team 2025, "Gemma 3 technical report"): dense language models whose layers mostly see a window.

A decoder with a norm before and one after each part, whose weights are added to 1; grouped-query attention whose
queries and keys are normalised head by head; a gated MLP with GELU. Five layers in six see a window and have rotary
positions of their own base. Embeddings are scaled by the root of their width, and are the output projection too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallow.engine.kv_cache import DecoderCache, ForwardContext
from tallow.errors import WeightsError
from tallow.models.config_reader import ConfigReader
from tallow.models.decoder import decoder_spec
from tallow.models.language_model import Head, LanguageModel
from tallow.models.spec import Export
from tallow.nn import Embedding, GatedMLP, Linear, Module, RMSNorm, RotaryEmbedding, StackedLinear
from tallow.tensor import Tensor
from tallow.text.language import Text
from tallow.weights.adapters.decoder import ATTENTION
from tallow.weights.adapters.gguf import LAYER, GGUFNames, GGUFSettings
from tallow.weights.var_builder import VarBuilder

_LAYERS_OF_27B = 62  # whose scores are scaled otherwise
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_SOFTCAP = "final_logit_softcapping"


@dataclass(frozen=True)
class Gemma3Config:
    """Sizes, under the names that Hugging Face's ``config.json`` has for them.

    Attributes:
        local_rope_theta, local_rope_scaling: of the rotary positions of layers that see a window.
        biases: names of the projections that have one.
        windows: for each layer how many positions it sees, itself included; None for all.
        query_pre_attn_scalar: scores are divided by its root.
        final_logit_softcapping: what logits stay below, bent by tanh; None for none.
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
    local_rope_theta: float
    local_rope_scaling: Mapping[str, Any] | None
    biases: frozenset[str]
    tie_word_embeddings: bool
    windows: tuple[int | None, ...]
    query_pre_attn_scalar: float
    final_logit_softcapping: float | None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Gemma3Config:
        """Take the sizes out of a ``config.json``.

        Raises:
            WeightsError: if one is missing or senseless, or the model computes something else than Gemma 3 does.
        """
        reader = ConfigReader(config, "Gemma 3")
        layers = reader.size("num_hidden_layers")
        if "layer_types" not in reader.config:
            pattern = reader.size("sliding_window_pattern", reader.size("_sliding_window_pattern", 6))
            kinds = [_LOCAL if i % pattern else _GLOBAL for i in range(1, layers + 1)]
            reader = ConfigReader({**config, "layer_types": kinds}, "Gemma 3")
        reader.expect("hidden_activation", "gelu_pytorch_tanh")
        reader.expect("attn_logit_softcapping", None)
        reader.expect("use_bidirectional_attention", False)
        heads, kv_heads = reader.heads()
        (theta, scaling), (local_theta, local_scaling) = _rotary(reader)
        windows = ConfigReader({"sliding_window": 4096, **reader.config, "use_sliding_window": True}, "Gemma 3")
        return cls(
            vocab_size=reader.size("vocab_size"),
            hidden_size=reader.size("hidden_size"),
            intermediate_size=reader.size("intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=reader.size("head_dim", 256),
            max_position_embeddings=reader.size("max_position_embeddings", 131072),
            rms_norm_eps=reader.real("rms_norm_eps", 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            local_rope_theta=local_theta,
            local_rope_scaling=local_scaling,
            biases=reader.biases({"attention_bias": ATTENTION}),
            tie_word_embeddings=reader.flag("tie_word_embeddings", True),
            windows=windows.windows(layers),
            query_pre_attn_scalar=reader.real("query_pre_attn_scalar", 256.0),
            final_logit_softcapping=reader.real(_SOFTCAP, 0.0) if _SOFTCAP in reader.config else None,
        )


def _rotary(reader: ConfigReader) -> list[tuple[float, dict[str, Any] | None]]:
    """Base and scaling of the rotary frequencies of layers that see all, and of those that see a window."""
    shared = {"partial_rotary_factor": reader.real("partial_rotary_factor", 1.0)}
    kinds = ConfigReader(reader.section("rope_parameters"), "Gemma 3")
    if kinds.config.keys() - {_LOCAL, _GLOBAL}:
        raise WeightsError("config.json of a Gemma 3: rope_parameters must be an object for each kind of layer")
    theta, local_theta = reader.real("rope_theta", 1e6), reader.real("rope_local_base_freq", 1e4)
    everywhere = {"rope_theta": theta, **kinds.section(_GLOBAL), **reader.section("rope_scaling")}
    local = {"rope_theta": local_theta, **kinds.section(_LOCAL)}
    return [ConfigReader({"rope_parameters": shared | each}, "Gemma 3").rope() for each in (everywhere, local)]


class Attention(Module):
    """Causal attention with grouped heads, queries and keys normalised.

    Args:
        config: sizes.
        layer: which layer it is.
        vb: weights ``{q,k,v,o}_proj`` and ``{q,k}_norm``.
    """

    def __init__(self, config: Gemma3Config, layer: int, vb: VarBuilder) -> None:
        d, kv = config.head_dim, config.num_key_value_heads * config.head_dim
        width, q = config.hidden_size, config.num_attention_heads * d
        self.layer, self.head_dim, self.window = layer, d, config.windows[layer]
        self.scale = config.query_pre_attn_scalar**-0.5
        self.qkv = StackedLinear(width, {"q_proj": q, "k_proj": kv, "v_proj": kv}, vb, bias=config.biases)
        self.q_norm = RMSNorm(d, vb.pp("q_norm"), config.rms_norm_eps, offset=1.0)
        self.k_norm = RMSNorm(d, vb.pp("k_norm"), config.rms_norm_eps, offset=1.0)
        self.out = Linear(q, width, vb.pp("o_proj"), bias="o_proj" in config.biases)

    def __call__(self, x: Tensor, rope: RotaryEmbedding, ctx: ForwardContext) -> Tensor:
        """(b, n, dim) -> (b, n, dim)."""
        b, n, _ = x.shape
        q, k, v = (y.reshape(b, n, -1, self.head_dim) for y in self.qkv(x))  # (b, n, heads or kv_heads, head_dim)
        y = ctx.attend(self.layer, q, k, v, self.window, norms=(self.q_norm, self.k_norm), rope=rope, scale=self.scale)
        return self.out(y.reshape(b, n, -1))


class Block(Module):
    """Attention, then the MLP, each between two norms and added to the stream.

    Args:
        config: sizes.
        layer: which layer it is.
        vb: weights ``self_attn``, ``mlp``, ``input_layernorm``, ``post_attention_layernorm``,
            ``pre_feedforward_layernorm`` and ``post_feedforward_layernorm``.
    """

    def __init__(self, config: Gemma3Config, layer: int, vb: VarBuilder) -> None:
        width, eps = config.hidden_size, config.rms_norm_eps
        self.is_local = config.windows[layer] is not None
        self.norm1 = RMSNorm(width, vb.pp("input_layernorm"), eps, offset=1.0)
        self.attention = Attention(config, layer, vb.pp("self_attn"))
        self.norm2 = RMSNorm(width, vb.pp("post_attention_layernorm"), eps, offset=1.0)
        self.norm3 = RMSNorm(width, vb.pp("pre_feedforward_layernorm"), eps, offset=1.0)
        self.mlp = GatedMLP(width, config.intermediate_size, vb.pp("mlp"), bias=config.biases, activation="gelu_tanh")
        self.norm4 = RMSNorm(width, vb.pp("post_feedforward_layernorm"), eps, offset=1.0)

    def __call__(self, x: Tensor, rope: RotaryEmbedding, ctx: ForwardContext) -> Tensor:
        """(b, n, dim) -> (b, n, dim)."""
        x = x + self.norm2(self.attention(self.norm1(x), rope, ctx))
        return x + self.norm4(self.mlp(self.norm3(x)))


class Gemma3(LanguageModel):
    """A Gemma 3: ``tl.load("google/gemma-3-1b-it").chat("Why is the sky blue?")``.

    Args:
        config: sizes.
        vb: weights under Hugging Face's names, ``model.embed_tokens`` and on.
        text: tokenizer, chat template and what goes with them; None for a model that only computes.
    """

    Config = Gemma3Config

    def __init__(self, config: Gemma3Config, vb: VarBuilder, text: Text | None = None) -> None:
        self.config, self.text = config, text or Text()
        inner = vb.pp("model")
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, inner.pp("embed_tokens"))
        self.blocks = [Block(config, i, inner.pp(f"layers.{i}")) for i in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config.hidden_size, inner.pp("norm"), config.rms_norm_eps, offset=1.0)
        self.scale = float(self.norm.dtype.numpy.type(config.hidden_size**0.5))  # rounded as embeddings are
        self.head = Head(self.embed_tokens, config.tie_word_embeddings, vb)
        rotary = functools.partial(RotaryEmbedding, config.head_dim, config.max_position_embeddings, device=vb.device)
        self.rope = rotary(theta=config.rope_theta, scaling=config.rope_scaling)
        self.local_rope = rotary(theta=config.local_rope_theta, scaling=config.local_rope_scaling)

    def forward(self, ids: Tensor, cache: DecoderCache, counts: Sequence[int] | None = None) -> Tensor:
        """Read tokens: (b, n) integers -> (b, n, dim), normalised. See ``LanguageModel.forward``."""
        ctx = cache.forward_context(self.rope, ids.shape[1], counts)
        x = self.embed_tokens(ids) * self.scale
        for block in self.blocks:
            x = block(x, self.local_rope if block.is_local else self.rope, ctx)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, dim) -> (…, vocab)."""
        y, cap = self.head(hidden), self.config.final_logit_softcapping
        return y if cap is None else (y * (1 / cap)).tanh() * cap


def _gguf_config(settings: GGUFSettings) -> dict[str, Any]:
    """What llama.cpp knows of a Gemma 3 by the number of its layers, and what files say beside the usual."""
    layers = settings.size("block_count")
    config: dict[str, Any] = {"query_pre_attn_scalar": settings.size("attention.key_length", default=256)}
    if layers == _LAYERS_OF_27B:
        config["query_pre_attn_scalar"] = settings.size("embedding_length") / settings.size("attention.head_count")
    if settings.has("final_logit_softcapping"):
        config["final_logit_softcapping"] = settings.real("final_logit_softcapping")
    if settings.has("rope.freq_base_swa"):
        config["rope_local_base_freq"] = settings.real("rope.freq_base_swa")
    return config


def _gguf_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The way back, for models that are as llama.cpp takes them to be."""
    windows, layers = config["windows"], config["num_hidden_layers"]
    if [window is None for window in windows] != [i % 6 == 0 for i in range(1, layers + 1)]:
        raise WeightsError("has layers that see all at other places than every sixth, which llama.cpp expects")
    scalar = config["hidden_size"] / config["num_attention_heads"] if layers == _LAYERS_OF_27B else config["head_dim"]
    stretched = (config["local_rope_scaling"] or {}).get("rope_type", "default") != "default"
    if config["query_pre_attn_scalar"] != scalar or stretched:
        raise WeightsError("has a query_pre_attn_scalar or a RoPE scaling of windows that llama.cpp has no key for")
    found: dict[str, Any] = {"rope.freq_base_swa": float(config["local_rope_theta"])}
    if any(windows):
        found["attention.sliding_window"] = next(filter(None, windows))
    if config["final_logit_softcapping"]:
        found["final_logit_softcapping"] = float(config["final_logit_softcapping"])
    return found


# Source: llama.cpp, ``src/llama-model.cpp`` (hyperparameters of LLM_ARCH_GEMMA3), ``gguf-py/gguf/tensor_mapping.py``.
_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_GGUF = GGUFNames(
    "gemma3",
    layer=LAYER | _NORMS,
    norm_offset=1.0,
    config=_gguf_config,
    settings=_gguf_settings,
)
SPEC = decoder_spec(Gemma3, "gemma3_text", gguf=_GGUF, export=Export("Gemma3", biases=(ATTENTION,)))
