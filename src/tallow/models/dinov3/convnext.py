"""DINOv3's ConvNeXts, tiny to large: convolutional students of the largest vision transformer.

Source: Siméoni et al. 2025, "DINOv3"; Liu et al. 2022, "A ConvNet for the 2020s".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tallow import ops
from tallow.errors import ShapeError, WeightsError
from tallow.models.config_reader import ConfigReader
from tallow.models.dinov3.pictures import PictureConfig
from tallow.models.dinov3.vision import UNREAD, VisionModel
from tallow.models.spec import Spec
from tallow.nn import Conv2d, LayerNorm, Linear, Module
from tallow.runtime.sizes import Sizes
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder

if TYPE_CHECKING:
    from tallow.weights.checkpoint import Checkpoint

_STEM = 4  # pixels along a side of what the first convolution takes for one


@dataclass(frozen=True)
class DINOv3ConvNextConfig:
    """Sizes of a ConvNeXt, under the names that ``config.json`` has for them.

    Attributes:
        hidden_sizes: width of each stage.
        depths: layers of each.
        layer_norm_eps: of every norm.
        image_size: what it was trained on last, in pixels.
    """

    hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (3, 3, 9, 3)
    layer_norm_eps: float = 1e-6
    image_size: int = 224

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> DINOv3ConvNextConfig:
        """Take the sizes out of ``config.json``. Raises WeightsError for what is senseless or computed otherwise."""
        reader = ConfigReader(config, "DINOv3")
        reader.expect("hidden_act", "gelu")
        reader.expect("num_channels", 3)
        found = cls(
            hidden_sizes=reader.sizes("hidden_sizes", cls.hidden_sizes),
            depths=reader.sizes("depths", cls.depths),
            layer_norm_eps=reader.real("layer_norm_eps", 1e-6),
            image_size=reader.size("image_size", 224),
        )
        if len(found.hidden_sizes) != len(found.depths) or len(found.depths) > 8:
            raise WeightsError(
                f"config.json of a DINOv3: {len(found.hidden_sizes)} hidden_sizes do not fit {len(found.depths)} depths"
            )
        return found


class Layer(Module):
    """A convolution of each channel by itself, then an MLP at every place, scaled and added to the stream.

    Args:
        dim: channels.
        eps: of its norm.
        vb: weights ``depthwise_conv``, ``layer_norm``, ``pointwise_conv1``, ``pointwise_conv2`` and ``gamma``.
    """

    def __init__(self, dim: int, eps: float, vb: VarBuilder) -> None:
        self.depthwise = Conv2d(dim, dim, 7, vb.pp("depthwise_conv"), padding=3, groups=dim)
        self.norm = LayerNorm(dim, vb.pp("layer_norm"), eps)
        self.fc1 = Linear(dim, 4 * dim, vb.pp("pointwise_conv1"))
        self.fc2 = Linear(4 * dim, dim, vb.pp("pointwise_conv2"), scale=vb.get((dim,), "gamma", "float32"))

    def __call__(self, x: Tensor) -> Tensor:
        """(b, h, w, dim) -> (b, h, w, dim)."""
        y = self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(self.fc1(self.norm(y), activation="gelu"), residual=x)


class Stage(Module):
    """Layers on a grid that is first made coarser: by 4 from the pixels on, by 2 from stage to stage.

    Args:
        config: sizes.
        stage: which it is.
        vb: weights ``downsample_layers.{0,1}`` and ``layers``.
    """

    def __init__(self, config: DINOv3ConvNextConfig, stage: int, vb: VarBuilder) -> None:
        dim, eps, down = config.hidden_sizes[stage], config.layer_norm_eps, vb.pp("downsample_layers")
        self.first = stage == 0
        if self.first:
            self.merge, self.norm = Conv2d(3, dim, _STEM, down.pp(0), stride=_STEM), LayerNorm(dim, down.pp(1), eps)
        else:
            before = config.hidden_sizes[stage - 1]
            self.norm, self.merge = LayerNorm(before, down.pp(0), eps), Conv2d(before, dim, 2, down.pp(1), stride=2)
        self.layers = [Layer(dim, eps, vb.pp(f"layers.{i}")) for i in range(config.depths[stage])]

    def __call__(self, x: Tensor) -> Tensor:
        """(b, h, w, dim of the stage before) -> (b, h / 2, w / 2, dim); from pixels (b, h, w, 3), by 4."""
        if not self.first:
            x = self.norm(x)
        x = self.merge(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if self.first:
            x = self.norm(x)
        for layer in self.layers:
            x = layer(x)
        return x


class DINOv3ConvNext(VisionModel):
    """A ConvNeXt: ``tl.load("facebook/dinov3-convnext-tiny-pretrain-lvd1689m").embed(["a.jpg", "b.jpg"])``.

    Its class token is the mean of its patches, and it has no registers.

    Args:
        config: sizes.
        vb: weights ``stages`` and ``layer_norm``.
        pictures: how pictures become pixels; None for a model that is only given pixels.
    """

    Config = DINOv3ConvNextConfig

    def __init__(self, config: DINOv3ConvNextConfig, vb: VarBuilder, pictures: PictureConfig | None = None) -> None:
        unit = _STEM << len(config.depths) - 1
        super().__init__(unit, 0, config.hidden_sizes[-1], vb.device, pictures)
        self.config = config
        self.stages = [Stage(config, i, vb.pp(f"stages.{i}")) for i in range(len(config.depths))]
        self.norm = LayerNorm(config.hidden_sizes[-1], vb.pp("layer_norm"), config.layer_norm_eps)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, vb: VarBuilder) -> DINOv3ConvNext:
        """Build the model from an opened checkpoint."""
        pictures = PictureConfig.from_dict(*checkpoint.processor("image_processor"))
        return cls(DINOv3ConvNextConfig.from_dict(checkpoint.config), vb, pictures)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Tokens of pictures: (b, 3, h, w) normalised -> (b, 1 + patches, dim), after the last norm."""
        height, width = pixels.shape[-2:]
        if pixels.ndim != 4 or not height or not width or height % self.unit or width % self.unit:
            raise ShapeError(f"pixels of shape {pixels.shape}; expected (b, 3, h, w), h and w multiples of {self.unit}")
        x = pixels.permute(0, 2, 3, 1)
        for stage in self.stages:
            x = stage(x)
        x = x.reshape(x.shape[0], -1, self.dim)
        return self.norm(ops.concat([x.mean(1, keepdims=True), x], axis=1))


def convnext_sizes(config: Mapping[str, Any]) -> Sizes:
    """DINOv3's ConvNeXts: stages on a grid of a quarter of the pixels' sides, halved from one to the next."""
    widths, depths = config.get("hidden_sizes") or (96, 192, 384, 768), config.get("depths") or (3, 3, 9, 3)
    places = (config.get("image_size", 224) // 4) ** 2
    merging = sum(4 * a * b + 2 * a + b for a, b in itertools.pairwise(widths))
    return Sizes(
        matrices=sum(8 * d * d * n for d, n in zip(widths, depths, strict=True)),
        tables=0,
        scales=sum(5 * d * n for d, n in zip(widths, depths, strict=True)),
        tensors=sum((49 + 9) * d * n for d, n in zip(widths, depths, strict=True)) + 51 * widths[0] + merging,
        cache_per_row=0,
        cache_per_token=0,
        context=places,
        # Inside an MLP: the stream, two more like it, what lies between (four), and the 8-bit form of the last two
        # products' inputs (one and a quarter). No stage can use what the one before has left: its sizes are others.
        results=sum(8 * (places >> 2 * i) * d for i, d in enumerate(widths)),
        live=7 * places * widths[0],
        fixed=15_000_000,  # Pillow and a picture 9, modules 6
    )


SPEC = Spec(
    DINOv3ConvNext,
    model_types=("dinov3_convnext",),
    sizes=convnext_sizes,
    unread=UNREAD,
)
