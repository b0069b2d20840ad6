"""DINOv3, layer by layer, against what tools/make_dino_golden.py has had Transformers compute."""

from pathlib import Path

import numpy as np
import pytest

from tallow.models.dinov3 import DINOv3ConvNext, DINOv3ViT, PictureConfig
from tallow.models.dinov3.pictures import Preparation
from tallow.tensor import Tensor
from tallow.weights.safetensors import open_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.models import tiny_dino

GOLDEN = np.load(Path(__file__).parent / "golden" / "dinov3.npz")
PIXELS = np.random.default_rng(5).standard_normal((2, 3, 32, 48)).astype(np.float32)


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def made(model_class, kind, folder):
    tiny_dino.write(folder, kind)
    config = model_class.Config.from_dict(tiny_dino.CONFIGS[kind])
    return model_class(config, VarBuilder(open_safetensors(folder)), PictureConfig.from_dict(tiny_dino.PICTURES))


@pytest.fixture(scope="module", params=["vit", "gated"])
def pair(request, tmp_path_factory):
    """The name of the goldens, and the model."""
    return request.param, made(DINOv3ViT, request.param, tmp_path_factory.mktemp("dino"))


def test_every_layer(pair):
    kind, model = pair
    pixels = Tensor(PIXELS)
    angles, x = model.angles(pixels), model.embeddings(pixels)
    for i in range(len(model.layers) + 1):
        assert relative_error(x.numpy()[:, ::3], GOLDEN[f"{kind}/state{i}"]) < 2e-6, f"before layer {i}"
        if i < len(model.layers):
            x = model.layers[i](x, angles)
    assert relative_error(model(pixels).numpy()[:, ::3], GOLDEN[f"{kind}/tokens"]) < 2e-6


def test_attention(pair):
    kind, model = pair
    found = model.attention(Tensor(PIXELS[0]), 1, layer=1)
    assert found.grid == (4, 6)
    assert np.abs(found.weights.numpy() - GOLDEN[f"{kind}/attention"]).max() < 1e-6


def test_every_stage_of_a_convnext(tmp_path):
    model = made(DINOv3ConvNext, "convnext", tmp_path)
    x = Tensor(PIXELS).permute(0, 2, 3, 1)
    for i, stage in enumerate(model.stages):
        x = stage(x)
        found = x.numpy().transpose(0, 3, 1, 2)[:, ::5]
        assert relative_error(found, GOLDEN[f"convnext/state{i + 1}"]) < 2e-6, f"stage {i}"
    assert relative_error(model(Tensor(PIXELS)).numpy()[:, ::3], GOLDEN["convnext/tokens"]) < 2e-6


PICTURES = np.load(Path(__file__).parent / "golden" / "pictures.npz")


@pytest.mark.parametrize("name", tiny_dino.pictures())
@pytest.mark.parametrize("size", tiny_dino.SIZES)
def test_pictures_within_one_level_of_255(name, size):
    config = PictureConfig(size=size)
    found = Preparation(config, unit=1)(tiny_dino.pictures()[name]).transpose(2, 0, 1)
    expected = PICTURES[f"{name}/{size[0]}x{size[1]}"].astype(np.float32)
    levels = np.abs(found[:, :: tiny_dino.EVERY, :: tiny_dino.EVERY] - expected) * 255
    levels *= np.array(config.image_std, np.float32).reshape(3, 1, 1)
    assert levels.max() < 1.05  # half-precision goldens are off by a twentieth
    assert levels.mean() < 0.35
