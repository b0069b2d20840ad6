"""Whisper's networks (Radford et al. 2022, "Robust speech recognition via large-scale weak supervision").

An encoder reads 30 s of sound as a log-mel spectrogram; a decoder writes the text, token after token, attending to what
the encoder made of the sound. Both are pre-norm Transformers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tallow import ops
from tallow.models.whisper.config import WhisperConfig
from tallow.nn import Conv1d, Embedding, LayerNorm, Linear, Module
from tallow.ops import KVCache
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder

Array = np.ndarray[Any, Any]


class FusedLinear(Module):
    """Several projections of the same input in one product. Whisper's ``k`` has no bias; here it is zero.

    Args:
        dim: width of the input and of each output.
        names: which projections, such as ``"qkv"``.
        vb: weights ``{q,k,v}_proj.weight`` (dim, dim) and ``{q,v}_proj.bias`` (dim,).
    """

    def __init__(self, dim: int, names: str, vb: VarBuilder) -> None:
        self.weight = vb.weight((len(names) * dim, dim), [f"{name}_proj.weight" for name in names])
        bias = vb.get((dim,), "v_proj.bias")
        biases = {"q": lambda: vb.get((dim,), "q_proj.bias"), "k": lambda: ops.zeros_like(bias), "v": lambda: bias}
        self.bias = ops.concat([biases[name]() for name in names])

    def __call__(self, x: Tensor) -> Tensor:
        """(b, n, dim) -> (b, n, projections · dim)."""
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Its sizes and storage."""
        out, inner = self.weight.shape
        return f"{inner}, {out}, {self.weight.storage}"


class SelfAttention(Module):
    """Multi-head attention of a sequence to itself; with a cache, of its latest part to all of it.

    Args:
        dim: width.
        num_heads: heads; must divide ``dim``.
        vb: weights ``{q,k,v,out}_proj``.
    """

    def __init__(self, dim: int, num_heads: int, vb: VarBuilder) -> None:
        self.num_heads = num_heads
        self.qkv = FusedLinear(dim, "qkv", vb)
        self.out = Linear(dim, dim, vb.pp("out_proj"))

    def __call__(self, x: Tensor, residual: Tensor, cache: KVCache | None = None) -> Tensor:
        """x (b, n, dim), residual likewise -> (b, n, dim), the residual added; causal if there is a cache."""
        b, n, dim = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, -1).unstack(axis=2)  # each (b, n, heads, head_dim)
        if cache is None:
            y = ops.attention(q, k, v)
        else:
            cache.append(k, v)
            y = ops.attention(q, cache, causal=True)
        return self.out(y.reshape(b, n, dim), residual=residual)


class CrossAttention(Module):
    """Multi-head attention of the text to the sound.

    Args:
        dim: width.
        num_heads: heads; must divide ``dim``.
        vb: weights ``{q,k,v,out}_proj``.
    """

    def __init__(self, dim: int, num_heads: int, vb: VarBuilder) -> None:
        self.num_heads = num_heads
        self.q = Linear(dim, dim, vb.pp("q_proj"))
        self.kv = FusedLinear(dim, "kv", vb)
        self.out = Linear(dim, dim, vb.pp("out_proj"))

    def project_kv(self, sound: Tensor) -> KVCache:
        """Keys and values of the encoder's output (1, m, dim), made once for a window."""
        b, m, dim = sound.shape
        k, v = self.kv(sound).reshape(b, m, 2, self.num_heads, -1).unstack(axis=2)
        cache = KVCache(b, self.num_heads, dim // self.num_heads, m, sound.dtype, sound.device, filled=True)
        cache.append(k, v)
        return cache

    def __call__(self, x: Tensor, residual: Tensor, sound: KVCache) -> Tensor:
        """x (rows, n, dim), residual likewise -> (rows, n, dim), the residual added.

        Rows that attend to the same sound are one row of queries to it; there are as many for each sound.
        """
        rows, n, dim = x.shape
        q = self.q(x).reshape(sound.batch, -1, self.num_heads, dim // self.num_heads)
        return self.out(ops.attention(q, sound).reshape(rows, n, dim), residual=residual)

    def weights(self, x: Tensor, sound: KVCache, heads: Sequence[int], positions: int) -> Tensor:
        """Where some heads look: x (1, n, dim) -> (heads, n, positions), over the first positions of the sound."""
        n = x.shape[1]
        q = self.q(x).reshape(1, n, self.num_heads, -1)
        keys = sound.view()[0].narrow(1, 0, positions)
        return ops.attention_weights(q, keys, heads=heads).squeeze(0)


class MLP(Module):
    """Two linear maps with GELU between.

    Args:
        dim: width.
        hidden: width between.
        vb: weights ``fc1`` and ``fc2``.
    """

    def __init__(self, dim: int, hidden: int, vb: VarBuilder) -> None:
        self.fc1 = Linear(dim, hidden, vb.pp("fc1"))
        self.fc2 = Linear(hidden, dim, vb.pp("fc2"))

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        """(b, n, dim) -> (b, n, dim), the residual added."""
        return self.fc2(self.fc1(x, activation="gelu"), residual=residual)


class EncoderLayer(Module):
    """Self-attention and MLP, each on normalised input, added to what came in."""

    def __init__(self, config: WhisperConfig, vb: VarBuilder) -> None:
        dim = config.d_model
        self.attention_norm = LayerNorm(dim, vb.pp("self_attn_layer_norm"))
        self.attention = SelfAttention(dim, config.encoder_attention_heads, vb.pp("self_attn"))
        self.mlp_norm = LayerNorm(dim, vb.pp("final_layer_norm"))
        self.mlp = MLP(dim, config.encoder_ffn_dim, vb)

    def __call__(self, x: Tensor) -> Tensor:
        """(b, n, dim) -> (b, n, dim)."""
        x = self.attention(self.attention_norm(x), x)
        return self.mlp(self.mlp_norm(x), x)


class DecoderLayer(Module):
    """Causal self-attention, attention to the sound, and MLP, each on normalised input, added to what came in."""

    def __init__(self, config: WhisperConfig, vb: VarBuilder) -> None:
        dim, heads = config.d_model, config.decoder_attention_heads
        self.attention_norm = LayerNorm(dim, vb.pp("self_attn_layer_norm"))
        self.attention = SelfAttention(dim, heads, vb.pp("self_attn"))
        self.cross_norm = LayerNorm(dim, vb.pp("encoder_attn_layer_norm"))
        self.cross = CrossAttention(dim, heads, vb.pp("encoder_attn"))
        self.mlp_norm = LayerNorm(dim, vb.pp("final_layer_norm"))
        self.mlp = MLP(dim, config.decoder_ffn_dim, vb)

    def __call__(
        self, x: Tensor, text: KVCache, sound: KVCache, watch: Callable[[Tensor], None] | None = None
    ) -> Tensor:
        """x (rows, n, dim) -> (rows, n, dim); ``watch`` is shown what goes into the attention to the sound."""
        x = self.attention(self.attention_norm(x), x, text)
        y = self.cross_norm(x)
        if watch is not None:
            watch(y)
        x = self.cross(y, x, sound)
        return self.mlp(self.mlp_norm(x), x)


class Encoder(Module):
    """Two convolutions, the second of which halves the frames, and a stack of layers.

    Args:
        config: sizes.
        vb: weights ``conv1``, ``conv2``, ``embed_positions``, ``layers.N``, ``layer_norm``.
    """

    def __init__(self, config: WhisperConfig, vb: VarBuilder) -> None:
        dim = config.d_model
        self.conv1 = Conv1d(config.num_mel_bins, dim, 3, vb.pp("conv1"), padding=1)
        self.conv2 = Conv1d(dim, dim, 3, vb.pp("conv2"), stride=2, padding=1)
        self.positions = vb.pp("embed_positions").get((config.max_source_positions, dim), "weight")
        self.layers = [EncoderLayer(config, vb.pp("layers").pp(i)) for i in range(config.encoder_layers)]
        self.norm = LayerNorm(dim, vb.pp("layer_norm"))

    def __call__(self, mel: Tensor) -> Tensor:
        """(b, mels, 2 · positions) -> (b, positions, dim)."""
        x = mel.to(self.positions.dtype)
        x = self.conv2(self.conv1(x, activation="gelu"), activation="gelu")  # (b, dim, positions)
        x = x.transpose(1, 2) + self.positions.unsqueeze(0)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class Decoder(Module):
    """Token and position embeddings and a stack of layers; the output projection is the token embedding.

    Args:
        config: sizes.
        vb: weights ``embed_tokens``, ``embed_positions``, ``layers.N``, ``layer_norm``.
    """

    def __init__(self, config: WhisperConfig, vb: VarBuilder) -> None:
        dim = config.d_model
        self.tokens = Embedding(config.vocab_size, dim, vb.pp("embed_tokens"))
        self.positions = vb.pp("embed_positions").get((config.max_target_positions, dim), "weight")
        self.layers = [DecoderLayer(config, vb.pp("layers").pp(i)) for i in range(config.decoder_layers)]
        self.norm = LayerNorm(dim, vb.pp("layer_norm"))

    def __call__(
        self, ids: Tensor, text: list[KVCache], sound: list[KVCache], watch: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """ids (rows, n), the latest of a text whose earlier part the caches hold -> (rows, n, dim)."""
        positions = ops.next_positions(text[0].held, ids.shape[1])
        x = self.tokens(ids) + ops.embedding(positions, self.positions)
        for i, (layer, written, heard) in enumerate(zip(self.layers, text, sound, strict=True)):
            x = layer(x, written, heard, None if watch is None else functools.partial(watch, i))
        return self.norm(x)

    def new_caches(self, rows: int) -> list[KVCache]:
        """Caches for a text of up to ``rows`` candidates, one a layer; one row to begin with."""
        capacity, dim = self.positions.shape
        caches = []
        for layer in self.layers:
            heads = layer.attention.num_heads
            caches.append(KVCache(rows, heads, dim // heads, capacity, self.positions.dtype, self.positions.device))
            caches[-1].select([0])
        return caches

    def logits(self, x: Tensor) -> Tensor:
        """(…, dim) -> (…, vocabulary)."""
        return self.tokens.as_linear(x)
