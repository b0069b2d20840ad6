"""DINOv3, layer by layer, against what tools/make_dino_golden.py has had Transformers compute."""

from pathlib import Path

import numpy as np
import pytest

from tallow.models.dinov3 import DINOv3ViT, PictureConfig
from tallow.tensor import Tensor
from tallow.weights.safetensors import open_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.models import tiny_dino

GOLDEN = np.load(Path(__file__).parent / "golden" / "dinov3.npz")
PIXELS = np.random.default_rng(5).standard_normal((2, 3, 32, 48)).astype(np.float32)


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.fixture(scope="module", params=["vit", "gated"])
def pair(request, tmp_path_factory):
    """The name of the goldens, and the model."""
    folder = tiny_dino.write(tmp_path_factory.mktemp("dino"), request.param)
    config = DINOv3ViT.Config.from_dict(tiny_dino.CONFIGS[request.param])
    model = DINOv3ViT(config, VarBuilder(open_safetensors(folder)), PictureConfig.from_dict(tiny_dino.PICTURES))
    return request.param, model


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
