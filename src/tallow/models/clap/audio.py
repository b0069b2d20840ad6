"""HTSAT, CLAP's sound encoder (Chen et al. 2022, "HTS-AT: a hierarchical token-semantic audio Transformer").

A Swin Transformer over a log-mel spectrogram that is folded into a square. With feature fusion (Wu et al. 2023,
"Large-scale contrastive language-audio pretraining with feature fusion", section 3.3) three crops of a long recording
are mixed into the patches of its summary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tallow import ops
from tallow.device import Device
from tallow.errors import ShapeError
from tallow.models.clap import windows
from tallow.models.clap.config import AudioConfig
from tallow.nn import BatchNorm, Conv2d, LayerNorm, Linear, Module, StackedLinear
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder

Array = np.ndarray[Any, Any]


class WindowAttention(Module):
    """Multi-head attention inside windows, with a learned bias for every relative position.

    Args:
        dim: width.
        num_heads: heads; must divide ``dim``.
        side: patches along an edge of the square.
        window: patches along an edge of a window.
        shift: by how many the windows are shifted.
        vb: weights ``self.{query,key,value}``, ``self.relative_position_bias_table`` and ``output.dense``.

    Source: Liu et al. 2021, "Swin Transformer", section 3.2.
    """

    def __init__(self, dim: int, num_heads: int, side: int, window: int, shift: int, vb: VarBuilder) -> None:
        self.num_heads, self.positions = num_heads, window * window
        self.qkv = StackedLinear(dim, {"query": dim, "key": dim, "value": dim}, vb.pp("self"), bias=True)
        self.out = Linear(dim, dim, vb.pp("output.dense"))
        table = vb.pp("self").get(((2 * window - 1) ** 2, num_heads), "relative_position_bias_table")
        between = Tensor(windows.relative_positions(window)).to(table.device)
        bias = ops.take(table, between, axis=0).permute(2, 0, 1).unsqueeze(0)  # (1, heads, n, n)
        if shift:
            bias = bias + Tensor(windows.shift_mask(side, window, shift)).to(table.device).unsqueeze(1)
        self.mask = bias.contiguous()  # (windows or 1, heads, n, n)

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        """x (b, side², dim) in the order of windows, residual likewise -> (b, side², dim), the residual added."""
        b, rows, dim = x.shape
        q, k, v = (y.reshape(-1, self.positions, self.num_heads, dim // self.num_heads) for y in self.qkv(x))
        y = ops.attention(q, k, v, mask=self.mask)  # every clip has the same masks
        return self.out(y.reshape(b, rows, dim), residual=residual)


class Block(Module):
    """Attention inside windows, then an MLP, each on normalised input and added to the stream.

    Args:
        config: sizes.
        stage: which stage it belongs to.
        shift: by how many patches its windows are shifted.
        vb: weights ``layernorm_before``, ``attention``, ``layernorm_after``, ``intermediate.dense``, ``output.dense``.
    """

    def __init__(self, config: AudioConfig, stage: int, shift: int, vb: VarBuilder) -> None:
        dim, heads = config.patch_embeds_hidden_size << stage, config.num_attention_heads[stage]
        side, hidden = config.spec_size // config.patch_size >> stage, int(config.mlp_ratio * dim)
        self.norm1 = LayerNorm(dim, vb.pp("layernorm_before"), config.layer_norm_eps)
        self.attention = WindowAttention(dim, heads, side, config.window_size, shift, vb.pp("attention"))
        self.norm2 = LayerNorm(dim, vb.pp("layernorm_after"), config.layer_norm_eps)
        self.fc1 = Linear(dim, hidden, vb.pp("intermediate.dense"))
        self.fc2 = Linear(hidden, dim, vb.pp("output.dense"))

    def __call__(self, x: Tensor) -> Tensor:
        """(b, side², dim) -> (b, side², dim), rows in the order of the block's windows."""
        x = self.attention(self.norm1(x), x)
        return self.fc2(self.fc1(self.norm2(x), activation="gelu"), residual=x)


class Stage(Module):
    """Blocks whose windows are shifted every other time, on patches that are first merged four to one.

    Args:
        config: sizes.
        stage: which it is. The first merges nothing.
        before: which patch stands at each row of what comes in.
        vb: weights ``layers.N.blocks`` of this stage and ``layers.N.downsample`` of the one before it.

    Attributes:
        order: which patch stands at each row of what goes out.
    """

    def __init__(self, config: AudioConfig, stage: int, before: Array, vb: VarBuilder) -> None:
        dim, side = config.patch_embeds_hidden_size << stage, config.spec_size // config.patch_size >> stage
        window = config.window_size
        shifts = [i % 2 * (window // 2) if side > window else 0 for i in range(config.depths[stage])]
        blocks = vb.pp(f"layers.{stage}.blocks")
        self.blocks = [Block(config, stage, shift, blocks.pp(i)) for i, shift in enumerate(shifts)]
        if stage:
            merge = vb.pp(f"layers.{stage - 1}.downsample")
            self.merge_norm = LayerNorm(2 * dim, merge.pp("norm"))
            self.merge = Linear(2 * dim, dim, merge.pp("reduction"), bias=False)
        orders = [windows.window_order(side, window, shift) for shift in shifts]
        gathers = [windows.positions(a)[b] for a, b in zip([before, *orders], orders, strict=False)]
        if stage:
            gathers[0] = windows.positions(before)[windows.merge_order(2 * side)[orders[0]]]  # (rows, 4)
        self.gathers = [Tensor(rows).to(vb.device) for rows in gathers]
        self.order = orders[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """(b, rows, dim) -> (b, side², dim of this stage)."""
        for rows, block in zip(self.gathers, self.blocks, strict=True):
            x = ops.take(x, rows, axis=1)  # (b, side², dim), merging: (b, side², 4, dim of the stage before)
            if x.ndim == 4:
                x = self.merge(self.merge_norm(x.reshape(*x.shape[:2], -1)))
            x = block(x)
        return x


class Fusion(Module):
    """Mixes two maps of features, at every place as attention to place and whole says.

    Args:
        dim: channels.
        ratio: by how much the attention narrows them.
        vb: weights ``local_att.{0,1,3,4}`` and ``global_att.{1,2,4,5}``: convolutions and batch norms.

    Source: Dai et al. 2021, "Attentional feature fusion".
    """

    def __init__(self, dim: int, ratio: int, vb: VarBuilder) -> None:
        def branch(vb: VarBuilder, first: int) -> list[Module]:
            inner = dim // ratio
            narrow, wide = Conv2d(dim, inner, 1, vb.pp(first)), Conv2d(inner, dim, 1, vb.pp(first + 3))
            return [narrow, BatchNorm(inner, vb.pp(first + 1)), wide, BatchNorm(dim, vb.pp(first + 4))]

        self.local = branch(vb.pp("local_att"), 0)
        self.whole = branch(vb.pp("global_att"), 1)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """x and y (b, dim, h, w) -> (b, dim, h, w)."""

        def attend(layers: list[Module], z: Tensor) -> Tensor:
            narrow, narrow_norm, wide, wide_norm = layers
            return wide_norm(wide(ops.relu(narrow_norm(narrow(z)))))  # type: ignore[no-any-return]

        both = x + y
        weight = ops.sigmoid(attend(self.local, both) + attend(self.whole, both.mean((2, 3), keepdims=True)))
        return x * weight * 2.0 + y * (1.0 - weight) * 2.0


class PatchEmbedding(Module):
    """Patches of the folded spectrogram as rows; with feature fusion, those of three crops mixed in.

    Args:
        config: sizes.
        vb: weights ``proj``, ``norm`` and, with fusion, ``mel_conv2d`` and ``fusion_model``.
    """

    def __init__(self, config: AudioConfig, vb: VarBuilder) -> None:
        dim, patch = config.patch_embeds_hidden_size, config.patch_size
        self.proj = Conv2d(1, dim, patch, vb.pp("proj"), stride=patch)
        self.norm = LayerNorm(dim, vb.pp("norm"))
        self.fusion = None
        if config.enable_fusion:  # a crop's patches are three times as long: three crops are as wide as the summary
            size = (patch, 3 * patch)
            self.crop_proj = Conv2d(1, dim, size, vb.pp("mel_conv2d"), stride=size)
            self.fusion = Fusion(dim, config.aff_block_r, vb.pp("fusion_model"))

    def __call__(self, image: Tensor, crops: Tensor | None, longer: Sequence[int]) -> Tensor:
        """Embed.

        Args:
            image: (b, 1, side, side).
            crops: (k, 3, side, side) of the clips that have any.
            longer: which k of the b those are.

        Returns:
            (b, patches, dim)
        """
        x = self.proj(image.to(self.norm.weight.dtype))  # (b, dim, side / patch, side / patch)
        if self.fusion is not None and crops is not None:
            k, dim, wide = len(longer), x.shape[1], x.shape[3]
            parts = self.crop_proj(crops.reshape(3 * k, 1, *crops.shape[2:]))  # (3 k, dim, high, about wide / 3)
            parts = ops.concat(parts.reshape(k, 3, *parts.shape[1:]).unstack(axis=1), axis=3)
            rest = ops.zeros((k, dim, x.shape[2], wide - parts.shape[3]), device=x.device)
            mixed = self.fusion(ops.stack([x[i] for i in longer]), ops.concat([parts, rest], axis=3))
            rows = dict(zip(longer, mixed.unstack(axis=0), strict=True))
            x = ops.stack([rows.get(i, x[i]) for i in range(x.shape[0])])
        return self.norm(x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1]))


class AudioEncoder(Module):
    """HTSAT: spectrograms of clips to one vector each.

    Args:
        config: sizes.
        vb: weights ``batch_norm``, ``patch_embed``, ``layers`` and ``norm``.
    """

    def __init__(self, config: AudioConfig, vb: VarBuilder) -> None:
        self.config = config
        self.batch_norm = BatchNorm(config.num_mel_bins, vb.pp("batch_norm"))
        self.patch_embedding = PatchEmbedding(config, vb.pp("patch_embed"))
        order = np.arange((config.spec_size // config.patch_size) ** 2)
        self.stages: list[Stage] = []
        for i in range(len(config.depths)):
            self.stages.append(Stage(config, i, order, vb))
            order = self.stages[-1].order
        self.norm = LayerNorm(config.hidden_size, vb.pp("norm"))

    def __call__(self, mel: Tensor, longer: Sequence[int] = ()) -> Tensor:
        """Encode clips.

        Args:
            mel: (b, channels, frames, bands) log-mel, in decibels: one channel; or a summary and three crops, which
                count for the clips of ``longer`` only.
            longer: which clips are parts of longer recordings, by their numbers; none for a model without fusion.

        Returns:
            (b, hidden_size), the mean over all patches.
        """
        crops = None
        if longer:
            if not self.config.enable_fusion or mel.shape[1] != 4:
                raise ShapeError(f"crops need a model with feature fusion and 4 channels, found {mel.shape[1]}")
            crops = self.fold(ops.stack([mel[i, 1:] for i in longer]))
        x = self.patch_embedding(self.fold(mel.narrow(1, 0, 1)), crops, longer)
        for stage in self.stages:
            x = stage(x)
        return self.norm(x).mean(1)

    def fold(self, mel: Tensor) -> Tensor:
        """Spectrograms as squares: (b, c, frames, bands) -> (b, c, side, side), stretches of time under each other."""
        b, c, frames, bands = mel.shape
        side = self.config.spec_size
        ratio = side // self.config.num_mel_bins
        if bands != self.config.num_mel_bins or not 0 < frames <= side * ratio:
            raise ShapeError(
                f"spectrograms of shape {mel.shape}; expected (b, c, frames, {self.config.num_mel_bins}) of at most "
                f"{side * ratio} frames"
            )
        x = self.batch_norm(mel, axis=3)
        if frames < side * ratio:
            x = _stretched(x, side * ratio)
        x = x.reshape(b, c, ratio, side, bands).transpose(3, 4)
        return x.reshape(b, c, side, side)


def _stretched(x: Tensor, frames: int) -> Tensor:
    """(b, c, frames, bands) with more frames, by bicubic interpolation whose ends stay in place."""
    total = None
    for rows, weights in _taps_on(x.device, x.shape[2], frames):
        part = ops.take(x, rows, axis=2) * weights
        total = part if total is None else total + part
    assert total is not None
    return total


@functools.lru_cache(maxsize=8)
def _taps_on(device: Device, source: int, target: int) -> list[tuple[Tensor, Tensor]]:
    """``_taps`` as tensors on a device, pair by pair."""
    return [
        (Tensor(rows).to(device), Tensor(weights).to(device))
        for rows, weights in zip(*_taps(source, target), strict=True)
    ]


@functools.lru_cache(maxsize=8)
def _taps(source: int, target: int) -> tuple[Array, Array]:
    """The four frames that make up each new one, (4, target), and their weights, (4, target, 1).

    Positions are computed in float32, as PyTorch does: a spectrogram is steep, and the difference can be seen.

    Source: Keys 1981, "Cubic convolution interpolation", with a = -0.75.
    """
    a, step = np.float32(-0.75), np.float32(source - 1) / np.float32(target - 1)
    at = np.arange(target, dtype=np.float32) * step
    first = np.floor(at)
    t = at - first

    def near(x: Array) -> Array:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Array) -> Array:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    weights = np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)]).astype(np.float32)
    rows = first.astype(np.int64) + np.arange(-1, 3)[:, None]
    return np.clip(rows, 0, source - 1), weights[:, :, None]
