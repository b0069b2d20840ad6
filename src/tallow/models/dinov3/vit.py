"""DINOv3's vision transformers, from ViT-S to ViT-7B.

Source: Siméoni et al. 2025, "DINOv3"; Dosovitskiy et al. 2021, "An image is worth 16×16 words"; Darcet et al. 2024,
"Vision transformers need registers".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tallow import ops
from tallow.device import Device
from tallow.errors import ArgumentError, ShapeError, WeightsError
from tallow.models.config_reader import ConfigReader
from tallow.models.dinov3.pictures import Picture, PictureConfig, Preparation
from tallow.models.dinov3.vision import UNREAD, Size, VisionModel
from tallow.models.spec import Spec
from tallow.nn import Conv2d, GatedMLP, LayerNorm, Linear, Module, StackedLinear
from tallow.runtime.resident import use
from tallow.runtime.sizes import Sizes
from tallow.tensor import Tensor
from tallow.trace import span
from tallow.weights.var_builder import VarBuilder

if TYPE_CHECKING:
    from tallow.weights.checkpoint import Checkpoint

Array = np.ndarray[Any, Any]
Angles = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DINOv3ViTConfig:
    """Sizes of a vision transformer, under the names that ``config.json`` has for them.

    Attributes:
        patch_size: side of a patch, in pixels.
        hidden_size: width of a token.
        intermediate_size: width inside an MLP.
        num_hidden_layers: layers.
        num_attention_heads: heads of each.
        num_register_tokens: tokens without a place, beside the class token.
        use_gated_mlp: whether MLPs are gated by SiLU; else they have one GELU.
        rope_theta: base of the rotary frequencies.
        layer_norm_eps: of every norm.
        query_bias, key_bias, value_bias, proj_bias, mlp_bias: which projections have biases.
        image_size: what it was trained on last, in pixels.
    """

    patch_size: int = 16
    hidden_size: int = 384
    intermediate_size: int = 1536
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    num_register_tokens: int = 0
    use_gated_mlp: bool = False
    rope_theta: float = 100.0
    layer_norm_eps: float = 1e-5
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    image_size: int = 224

    @property
    def head_dim(self) -> int:
        """Features of a head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> DINOv3ViTConfig:
        """Take the sizes out of ``config.json``. Raises WeightsError for what is senseless or computed otherwise."""
        reader = ConfigReader(config, "DINOv3")
        gated = reader.flag("use_gated_mlp", False)
        reader.expect("hidden_act", "silu" if gated else "gelu")
        reader.expect("num_channels", 3)
        sizes: dict[str, Any] = {key: reader.size(key, getattr(cls, key)) for key in (
            "patch_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size"
        )}  # fmt: skip
        biases = ("query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias")
        found = cls(
            **sizes,
            num_register_tokens=reader.index("num_register_tokens", 0, 1024),
            use_gated_mlp=gated,
            rope_theta=reader.real("rope_theta", 100.0),
            layer_norm_eps=reader.real("layer_norm_eps", 1e-5),
            **{key: reader.flag(key, getattr(cls, key)) for key in biases},
        )
        if found.hidden_size % (4 * found.num_attention_heads):
            raise WeightsError(
                f"config.json of a DINOv3: {found.num_attention_heads} num_attention_heads must divide hidden_size "
                f"{found.hidden_size} into multiples of 4"
            )
        return found


class Embeddings(Module):
    """A picture's tokens: the class token, the registers, its patches.

    Args:
        config: sizes.
        vb: weights ``cls_token``, ``register_tokens`` and ``patch_embeddings``.
    """

    def __init__(self, config: DINOv3ViTConfig, vb: VarBuilder) -> None:
        dim, patch, registers = config.hidden_size, config.patch_size, config.num_register_tokens
        tokens = [vb.get((1, 1, dim), "cls_token")]
        if registers:
            tokens.append(vb.get((1, registers, dim), "register_tokens"))
        self.placeless = ops.concat(tokens, axis=1)  # (1, 1 + registers, dim)
        self.patches = Conv2d(3, dim, patch, vb.pp("patch_embeddings"), stride=patch)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, 1 + registers + patches, dim), patches row by row."""
        x = self.patches(pixels.to(self.placeless.dtype))  # (b, dim, h / patch, w / patch)
        b, dim, rows, columns = x.shape
        placeless = ops.broadcast_to(self.placeless, (b, *self.placeless.shape[1:]))
        return ops.concat([placeless, x.permute(0, 2, 3, 1).reshape(b, rows * columns, dim)], axis=1)


@functools.lru_cache(maxsize=64)
def rotary_angles(rows: int, columns: int, placeless: int, head_dim: int, theta: float) -> tuple[Array, Array]:
    """Cosines and sines by which queries and keys are turned, each (1, placeless + rows · columns, head_dim / 2).

    A patch's place is that of its middle, from -1 to 1 in either direction; the first half of the angles goes with its
    height, the second with its side. Tokens without a place are turned by nothing.

    Source: Siméoni et al. 2025, section 3.2; computed in float32, as there.
    """
    frequencies = 1 / np.float32(theta) ** np.arange(0, 1, 4 / head_dim, dtype=np.float32)  # (head_dim / 4,)
    down, right = (2 * (np.arange(n, dtype=np.float32) + np.float32(0.5)) / n - 1 for n in (rows, columns))
    places = np.stack(np.meshgrid(down, right, indexing="ij"), axis=-1).reshape(-1, 2, 1).astype(np.float32)
    angles = np.float32(2 * math.pi) * places * frequencies  # (rows · columns, 2, head_dim / 4)
    angles = np.concatenate([np.zeros((placeless, head_dim // 2), np.float32), angles.reshape(-1, head_dim // 2)])
    return np.cos(angles)[None], np.sin(angles)[None]


@functools.lru_cache(maxsize=64)
def angles_on(device: Device, rows: int, columns: int, placeless: int, head_dim: int, theta: float) -> Angles:
    """``rotary_angles`` as tensors on a device."""
    cos, sin = (Tensor(values).to(device) for values in rotary_angles(rows, columns, placeless, head_dim, theta))
    return cos, sin


class Attention(Module):
    """Multi-head self-attention with rotary positions.

    Args:
        config: sizes.
        vb: weights ``{q,k,v,o}_proj``.
        scale: what the result is multiplied by, feature by feature, before the residual is added: (dim,).
    """

    def __init__(self, config: DINOv3ViTConfig, vb: VarBuilder, scale: Tensor) -> None:
        dim = config.hidden_size
        self.num_heads = config.num_attention_heads
        biased = {"q_proj": config.query_bias, "k_proj": config.key_bias, "v_proj": config.value_bias}
        self.qkv = StackedLinear(dim, dict.fromkeys(biased, dim), vb, bias=[name for name in biased if biased[name]])
        self.out = Linear(dim, dim, vb.pp("o_proj"), bias=config.proj_bias, scale=scale)

    def __call__(self, x: Tensor, angles: Angles, residual: Tensor) -> Tensor:
        """(b, n, dim) -> (b, n, dim), the residual added."""
        q, k, v = self.project(x)
        return self.out(ops.attention(q, k, v, rotary=angles).reshape(x.shape), residual=residual)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (b, n, heads, head_dim), not yet turned to their places."""
        b, n, dim = x.shape
        q, k, v = (y.reshape(b, n, self.num_heads, dim // self.num_heads) for y in self.qkv(x))
        return q, k, v


class MLP(Module):
    """Two linear layers with a GELU between.

    Args:
        config: sizes.
        vb: weights ``up_proj`` and ``down_proj``.
        scale: what the result is multiplied by, feature by feature, before the residual is added: (dim,).
    """

    def __init__(self, config: DINOv3ViTConfig, vb: VarBuilder, scale: Tensor) -> None:
        dim, hidden = config.hidden_size, config.intermediate_size
        self.up = Linear(dim, hidden, vb.pp("up_proj"), bias=config.mlp_bias)
        self.down = Linear(hidden, dim, vb.pp("down_proj"), bias=config.mlp_bias, scale=scale)

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        """(…, dim) -> (…, dim), the residual added."""
        return self.down(self.up(x, activation="gelu"), residual=residual)


class Layer(Module):
    """Attention, then an MLP: each on normalised input, scaled feature by feature, and added to the stream.

    Args:
        config: sizes.
        vb: weights ``norm1``, ``attention``, ``layer_scale1.lambda1``, ``norm2``, ``mlp``, ``layer_scale2.lambda1``.

    Source: Touvron et al. 2021, "Going deeper with image transformers", for the scales.
    """

    def __init__(self, config: DINOv3ViTConfig, vb: VarBuilder) -> None:
        dim, hidden = config.hidden_size, config.intermediate_size
        self.norm1 = LayerNorm(dim, vb.pp("norm1"), config.layer_norm_eps)
        scales = [vb.get((dim,), f"layer_scale{i}.lambda1", "float32") for i in (1, 2)]
        self.attention = Attention(config, vb.pp("attention"), scales[0])
        self.norm2 = LayerNorm(dim, vb.pp("norm2"), config.layer_norm_eps)
        mlp = vb.pp("mlp")
        if config.use_gated_mlp:
            self.mlp: GatedMLP | MLP = GatedMLP(dim, hidden, mlp, bias=config.mlp_bias, scale=scales[1])
        else:
            self.mlp = MLP(config, mlp, scales[1])

    def __call__(self, x: Tensor, angles: Angles) -> Tensor:
        """(b, n, dim) -> (b, n, dim)."""
        x = self.attention(self.norm1(x), angles, residual=x)
        return self.mlp(self.norm2(x), residual=x)


class AttentionMap(NamedTuple):
    """Where a layer looks.

    Attributes:
        weights: (heads, n, n), how much each of n tokens takes from each, or (n, n) of one head. Rows sum to 1. Tokens
            are the class token, the registers, and the patches row by row.
        grid: rows and columns of patches.
    """

    weights: Tensor
    grid: tuple[int, int]

    @property
    def class_token(self) -> Tensor:
        """What the class token takes from each patch: (heads, rows, columns), or (rows, columns) of one head."""
        rows, columns = self.grid
        return self.weights[..., 0, -rows * columns :].reshape(*self.weights.shape[:-2], rows, columns)


class DINOv3ViT(VisionModel):
    """A vision transformer: ``tl.load("facebook/dinov3-vits16-pretrain-lvd1689m").embed(["a.jpg", "b.jpg"])``.

    Args:
        config: sizes.
        vb: weights ``embeddings``, ``layer`` and ``norm``.
        pictures: how pictures become pixels; None for a model that is only given pixels.
    """

    Config = DINOv3ViTConfig

    def __init__(self, config: DINOv3ViTConfig, vb: VarBuilder, pictures: PictureConfig | None = None) -> None:
        super().__init__(config.patch_size, config.num_register_tokens, config.hidden_size, vb.device, pictures)
        self.config = config
        self.embeddings = Embeddings(config, vb.pp("embeddings"))
        self.layers = [Layer(config, vb.pp(f"layer.{i}")) for i in range(config.num_hidden_layers)]
        self.norm = LayerNorm(config.hidden_size, vb.pp("norm"), config.layer_norm_eps)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, vb: VarBuilder) -> DINOv3ViT:
        """Build the model from an opened checkpoint."""
        pictures = PictureConfig.from_dict(*checkpoint.processor("image_processor"))
        return cls(DINOv3ViTConfig.from_dict(checkpoint.config), vb, pictures)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Tokens of pictures: (b, 3, h, w) normalised -> (b, 1 + registers + patches, dim), after the last norm."""
        angles = self.angles(pixels)
        x = self.embeddings(pixels)
        for layer in self.layers:
            x = layer(x, angles)
        return self.norm(x)

    def angles(self, pixels: Tensor) -> Angles:
        """Cosines and sines for pictures of that size: see ``rotary_angles``."""
        height, width = pixels.shape[-2:]
        if pixels.ndim != 4 or height < self.unit or width < self.unit or height % self.unit or width % self.unit:
            raise ShapeError(f"pixels of shape {pixels.shape}; expected (b, 3, h, w), h and w multiples of {self.unit}")
        rows, columns, config = height // self.unit, width // self.unit, self.config
        return angles_on(self.device, rows, columns, 1 + self.registers, config.head_dim, config.rope_theta)

    def attention(
        self,
        image: Picture,
        head: int | None = None,
        *,
        layer: int = -1,
        size: Size | None = None,
        proportional: bool = False,
        fast_decode: bool = False,
    ) -> AttentionMap:
        """Where a layer looks in a picture.

        Args:
            image: one, of the kinds that ``embed`` takes.
            head: which head; None for all.
            layer: which layer, counted from the end if negative.
            size: what it is resized to, as for ``embed``.
            proportional: whether it keeps its proportions, as for ``embed``.
            fast_decode: whether a large JPEG is decoded smaller, as for ``embed``.

        Raises:
            MediaError: for a picture that cannot be read.
            ArgumentError: for a head, a layer or a size that there isn't.
        """
        heads, layers = self.config.num_attention_heads, len(self.layers)
        if not -layers <= layer < layers or (head is not None and not 0 <= head < heads):
            raise ArgumentError(f"attention: head {head} of layer {layer}; there are {heads} heads and {layers} layers")
        pixels = self._batch([Preparation(self.pictures, self.unit, size, proportional, fast_decode)(image)])
        with span("attention"), use(self):
            angles, x = self.angles(pixels), self.embeddings(pixels)
            for earlier in self.layers[: layer % layers]:
                x = earlier(x, angles)
            chosen = self.layers[layer]
            q, k = (ops.rope(y, *angles) for y in chosen.attention.project(chosen.norm1(x))[:2])
            weights = ops.attention_weights(q, k, heads=None if head is None else [head])[0].to("cpu")
        grid = pixels.shape[2] // self.unit, pixels.shape[3] // self.unit
        return AttentionMap(weights if head is None else weights[0], grid)


def vision_transformer_sizes(config: Mapping[str, Any]) -> Sizes:
    """DINOv3's vision transformers, looking at pictures of the size that they were trained on last."""
    d, f, layers = (config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    patch, size = config.get("patch_size", 16), config.get("image_size", 224)
    registers = config.get("num_register_tokens", 0)
    inner = 2 if config.get("use_gated_mlp") else 1
    tokens = 1 + registers + (size // patch) ** 2
    return Sizes(
        matrices=layers * (4 * d * d + (inner + 1) * d * f),
        tables=0,
        scales=layers * (5 * d + inner * f),
        tensors=3 * patch * patch * d + (4 + registers) * d + layers * (11 * d + inner * f),
        cache_per_row=0,
        cache_per_token=0,
        context=tokens,
        results=tokens * (8 * d + (inner + 1) * f),
        live=tokens * (2 * d + (inner + 1) * f),
        fixed=15_000_000,  # Pillow and a picture 9, modules 6
    )


SPEC = Spec(
    DINOv3ViT,
    model_types=("dinov3_vit",),
    sizes=vision_transformer_sizes,
    unread={**UNREAD, r"rope_embeddings\.(inv_freq|periods)": "a buffer; the config says it"},
)
