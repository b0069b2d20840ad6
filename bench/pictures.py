"""A vision transformer on disk, and photos to look at, for the benchmarks of the `tallow embed` command."""

import json
import os
import shutil

import numpy as np

from tallow.models.dinov3 import DINOv3ViT
from tallow.weights.random import RandomSource
from tallow.weights.safetensors import save_safetensors
from tallow.weights.var_builder import VarBuilder

SIZES = {"vits16": (384, 6), "vitb16": (768, 12)}
PHOTO = (3000, 4000)
DIFFERENT = 20  # photos; the others are copies of them


class _Drawn(RandomSource):
    def __init__(self):
        super().__init__(0)
        self.tensors = {}

    def draw(self, name, shape):
        self.tensors[name] = super().draw(name, shape)
        return self.tensors[name]


def publish(folder, size):
    """Write a ViT of a published size and random weights, in float32 and the published layout."""
    dim, heads = SIZES[size]
    config = {"model_type": "dinov3_vit", "hidden_size": dim, "intermediate_size": 4 * dim, "num_hidden_layers": 12,
              "num_attention_heads": heads, "num_register_tokens": 4}  # fmt: skip
    drawn = _Drawn()
    DINOv3ViT(DINOv3ViT.Config.from_dict(config), VarBuilder(drawn))
    save_safetensors(drawn.tensors, os.path.join(folder, "model.safetensors"))
    pictures = {"size": {"height": 224, "width": 224}}
    for name, value in {"config.json": config, "preprocessor_config.json": pictures}.items():
        with open(os.path.join(folder, name), "w") as file:
            json.dump(value, file)


def photo(seed):
    """12 megapixels with details of every size, each octave half as strong as the next larger one, and some grain."""
    from PIL import Image

    random, (height, width) = np.random.default_rng(seed), PHOTO
    picture = np.full((height, width, 3), 128, np.float32)
    for octave in range(2, 11):
        coarse = random.standard_normal((3 << octave, 4 << octave, 3), np.float32)
        for i in range(3):
            layer = Image.fromarray(coarse[..., i]).resize((width, height), Image.Resampling.BICUBIC)
            picture[..., i] += np.asarray(layer) * (64 / 1.7 ** (octave - 2))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def take_photos(folder, count):
    """Fill a folder with JPEGs, where they are not there yet: their names."""
    os.makedirs(folder, exist_ok=True)
    names = [os.path.join(folder, f"{i:04}.jpg") for i in range(count)]
    for i, name in enumerate(names):
        if os.path.exists(name):
            continue
        if i < DIFFERENT:
            photo(i).save(name, quality=90)
        else:
            shutil.copyfile(names[i % DIFFERENT], name)
    return names
