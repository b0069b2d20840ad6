"""Whole DINOv3 checkpoints of a few hundred kilobytes, with random weights, in Hugging Face's layout."""

import json

import numpy as np
from PIL import Image

from tallow.models.registry import find_class
from tallow.weights.safetensors import save_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.engine.published import Recording

VIT = {
    "model_type": "dinov3_vit", "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 3, "num_register_tokens": 4, "patch_size": 8, "image_size": 32, "hidden_act": "gelu",
}  # fmt: skip
CONFIGS = {
    "vit": VIT,
    "gated": VIT | {"use_gated_mlp": True, "hidden_act": "silu", "query_bias": False, "value_bias": False},
    "convnext": {
        "model_type": "dinov3_convnext", "hidden_sizes": [16, 24, 40], "depths": [1, 2, 1], "image_size": 32,
        "hidden_act": "gelu",
    },
}  # fmt: skip
PICTURES = {
    "image_processor_type": "DINOv3ViTImageProcessorFast", "do_resize": True, "do_rescale": True, "do_normalize": True,
    "do_center_crop": None, "size": {"height": 32, "width": 32}, "resample": 2, "rescale_factor": 1 / 255,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip


def weights(kind="vit", seed=0):
    """Tensors by Hugging Face's names."""
    source = Recording(seed)
    model_class = find_class(CONFIGS[kind]["model_type"])
    model_class(model_class.Config.from_dict(CONFIGS[kind]), VarBuilder(source))
    if CONFIGS[kind]["model_type"] == "dinov3_vit":
        source.draw("embeddings.mask_token", (1, 1, 48))  # which only training uses
    return source.drawn


def write(folder, kind="vit", dtype=np.float32, **changes):
    """Write ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``; the folder."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[kind] | changes))
    (folder / "preprocessor_config.json").write_text(json.dumps(PICTURES))
    tensors = {name: value.astype(dtype) for name, value in weights(kind).items()}
    save_safetensors(tensors, folder / "model.safetensors")
    return folder


def photo(height, width, seed=0):
    """Colours that change slowly, under noise: (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width] / 20
    waves = np.stack([np.sin(x), np.cos(y + x / 2), np.sin(y) * np.cos(x)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 10, (height, width, 3))
    return (128 + 90 * waves + noise).clip(0, 255).astype(np.uint8)


SIZES = [(224, 224), (48, 80), (518, 32)]
EVERY = 5  # rows and columns between the pixels that goldens hold


def pictures():
    """Pictures of several sizes and modes, as Pillow's images."""
    sizes = {"large": (601, 457), "small": (10, 13), "pixel": (1, 1), "line": (1, 300), "tall": (701, 90)}
    found = {name: Image.fromarray(photo(*size)) for name, size in sizes.items()}
    noise = np.random.default_rng(7).integers(0, 256, (333, 222, 3)).astype(np.uint8)
    found["noise"] = Image.fromarray(noise)
    found["grey"] = Image.fromarray(noise[..., 0])
    found["palette"] = Image.frombytes("P", (222, 333), noise[..., 1].tobytes())
    found["palette"].putpalette(np.random.default_rng(8).integers(0, 256, 768).tolist())
    return found
