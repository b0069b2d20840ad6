"""CLAP, stage by stage, against what tools/make_clap_golden.py has had Transformers compute."""

from pathlib import Path

import numpy as np
import pytest

from tallow.models.clap import Clap, ClapConfig, FeatureConfig, windows
from tallow.models.clap.features import ClapFeatures, Clip
from tallow.tensor import Tensor
from tallow.weights.random import RandomSource
from tallow.weights.safetensors import open_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.models import tiny_clap

GOLDEN = np.load(Path(__file__).parent / "golden" / "clap.npz")
SECONDS = {"short": 0.31, "exact": 2.0, "between": 2.005, "long": 4.7}


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("fusion", [False, True], ids=["rand_trunc", "fusion"])
@pytest.mark.parametrize("sound", SECONDS)
def test_features(fusion, sound):
    features = ClapFeatures(FeatureConfig.from_dict(tiny_clap.features(fusion)))
    key = f"{features.config.truncation}/{sound}"
    clip = features(tiny_clap.sound(SECONDS[sound]), GOLDEN[key + "/offsets"].tolist() or None)
    assert clip.is_longer == GOLDEN[key + "/longer"]
    assert clip.mel.dtype == np.float32
    assert np.abs(clip.mel[:, ::20] - GOLDEN[key + "/mel"]).max() < 2e-4  # decibels


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def pair(request, tmp_path_factory):
    """The name of the goldens, and the model."""
    folder = tiny_clap.write(tmp_path_factory.mktemp("clap"), request.param)
    config = ClapConfig.from_dict(tiny_clap.config(request.param))
    model = Clap(
        config, VarBuilder(open_safetensors(folder)), FeatureConfig.from_dict(tiny_clap.features(request.param))
    )
    return "fused" if request.param else "unfused", model


def test_stages(pair):
    name, model = pair
    encoder, fused = model.audio_encoder, name == "fused"
    mel = np.random.default_rng(5).uniform(-80, 10, (2, 4 if fused else 1, 201, 64)).astype(np.float32)
    folded = encoder.fold(Tensor(mel))
    crops = folded[1:, 1:] if fused else None
    x = encoder.patch_embedding(folded[:, :1], crops, [1] if fused else [])
    order = np.arange(1024)
    for i, stage in enumerate([None, *encoder.stages]):
        if stage is not None:
            x, order = stage(x), stage.order
        side = round(len(order) ** 0.5)
        seen = x.numpy()[:, windows.positions(order)].reshape(2, side, side, -1)
        seen = seen[:, [0, side // 2, -1]][:, :, [0, side // 2, -1]].transpose(0, 3, 1, 2)
        assert relative_error(seen, GOLDEN[f"{name}/stage{i}"]) < 2e-5, f"stage {i}"
    vectors = model.encode_clips([Clip(mel[0], False), Clip(mel[1], True)]).numpy()
    assert relative_error(vectors, GOLDEN[f"{name}/audio"]) < 2e-5


def test_text(pair):
    name, model = pair
    vectors = model.encode_ids([[0, 17, 200, 33, 81, 2], [0, 5, 9, 2]]).numpy()
    assert relative_error(vectors, GOLDEN[f"{name}/text"]) < 2e-5


def test_the_goldens_were_made_with_these_weights():
    assert RandomSource(0).draw("audio_model.audio_encoder.norm.bias", (64,))[:2].tolist() == pytest.approx(
        tiny_clap.weights()["audio_model.audio_encoder.norm.bias"][:2].tolist()
    )
