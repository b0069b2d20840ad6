"""Models on a card against Transformers: in float32 the same, in half the bits about as near to that."""

import copy

import numpy as np
import pytest

from tallow.models.checkpoint import open_checkpoint
from tallow.models.clap.features import Clip
from tallow.models.registry import find_class
from tallow.tensor import Tensor
from tallow.weights.adapters.whisper import from_huggingface
from tallow.weights.safetensors import open_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.backends.cuda.gpu import needs_gpu

torch = pytest.importorskip("torch", reason="needs the extra oracle")
transformers = pytest.importorskip("transformers", reason="needs the extra oracle")
pytestmark = [pytest.mark.oracle, *needs_gpu]

from tests.oracle import test_clap, test_dinov3, test_language_models, test_whisper  # noqa: E402

EXACT = 2e-5  # relative error in float32
AS_GOOD = 1.2  # times Transformers' own error, in half the bits


class DINOv3:
    """Pixels to tokens."""

    sizes = {"small": test_dinov3.vit(128, 2, 3, 256), "vitl16": test_dinov3.PUBLISHED["vitl16"]}
    theirs = staticmethod(test_dinov3.randomised)

    @staticmethod
    def ours(folder, **where):
        checkpoint = open_checkpoint(folder)
        found = find_class(checkpoint.architecture)
        return found(found.Config.from_dict(checkpoint.config), VarBuilder(checkpoint.source, **where))

    @staticmethod
    def read(model):
        pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
        if isinstance(model, torch.nn.Module):
            return model(torch.from_numpy(pixels).to(model.device, model.dtype)).last_hidden_state
        return model(Tensor(pixels).to(model.device))


class CLAP(DINOv3):
    """Spectrograms to vectors."""

    sizes = {"htsat": {"audio_config": test_clap.PUBLISHED["clap-htsat-unfused"]}}
    theirs = staticmethod(test_clap.randomised)

    @staticmethod
    def read(model):
        mel = np.random.default_rng(0).uniform(-90, 20, (3, 1, 1001, 64)).astype(np.float32)
        if isinstance(model, torch.nn.Module):
            features = torch.from_numpy(mel).to(model.device, model.dtype)
            return model.get_audio_features(input_features=features, is_longer=torch.zeros(3, 1) > 0).pooler_output
        return model.encode_clips([Clip(each, False) for each in mel])


class Qwen3:
    """Ids to logits, at once and then one by one."""

    sizes = {
        "small": test_language_models.CASES["qwen3"][1],
        "0.6B": {**test_language_models.PUBLISHED["Qwen3-0.6B"][1], "num_hidden_layers": 4},
    }
    ids = np.random.default_rng(1).integers(0, 331, 70).tolist()

    @staticmethod
    def theirs(changes):
        return test_language_models.randomised("Qwen3", changes)

    @staticmethod
    def ours(folder, **where):
        checkpoint = open_checkpoint(folder)
        return find_class(checkpoint.architecture).from_checkpoint(checkpoint, VarBuilder(checkpoint.source, **where))

    @classmethod
    def read(cls, model):
        if isinstance(model, torch.nn.Module):
            return model(torch.tensor([cls.ids], device=model.device)).logits[0]
        cache = model.new_cache(1, 80)
        parts = [cls.ids[:60], *([id] for id in cls.ids[60:])]
        logits = [model.logits(model.forward(Tensor(np.array([part])), cache)).float().numpy()[0] for part in parts]
        return Tensor(np.concatenate(logits))


class Whisper:
    """A spectrogram and ids to logits."""

    sizes = {"tiny.en": test_whisper.published(384, 4, 6, 51864)}

    theirs = staticmethod(test_whisper.randomised)

    @staticmethod
    def ours(folder, **where):
        from tallow.models.whisper import Whisper, WhisperConfig

        config = WhisperConfig.from_dict(open_checkpoint(folder).config)
        return Whisper(config, VarBuilder(from_huggingface(open_safetensors(folder)), **where))

    @staticmethod
    def read(model):
        mel = np.random.default_rng(0).normal(0, 0.5, (1, 80, 3000)).astype(np.float32)
        ids = np.random.default_rng(1).integers(0, 51864, 12).tolist()
        if isinstance(model, torch.nn.Module):
            features = torch.from_numpy(mel).to(model.device, model.dtype)
            return model(features, decoder_input_ids=torch.tensor([ids], device=model.device)).logits[0]
        positions = model.decoder.positions
        encoded = model.encoder(Tensor(mel).to(positions.device).to(positions.dtype))
        session = model.session([layer.cross.project_kv(encoded) for layer in model.decoder.layers])
        return Tensor(np.array(session.start(ids, range(len(ids))), np.float32))


FAMILIES = (DINOv3, CLAP, Qwen3, Whisper)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((family, size), id=f"{family.__name__}-{size}") for family in FAMILIES for size in family.sizes
    ],
)
def model(request, tmp_path_factory):
    """Its family, Transformers' model in float32 on the CPU, what that says, and where its weights lie."""
    family, size = request.param
    folder = tmp_path_factory.mktemp("model")
    theirs = family.theirs(family.sizes[size])
    theirs.save_pretrained(folder)
    with torch.no_grad():
        return family, theirs, wide(family.read(theirs)), folder


def wide(result):
    result = result.float()
    return (result.cpu().numpy() if isinstance(result, torch.Tensor) else result.to("cpu").numpy()).astype(np.float64)


def error(found, expected):
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_in_float32(model):
    family, _, expected, folder = model
    assert error(wide(family.read(family.ours(folder, device="cuda"))), expected) <= EXACT


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_in_half_the_bits(model, dtype):
    family, theirs, expected, folder = model
    with torch.no_grad():
        half = wide(family.read(copy.deepcopy(theirs).to("cuda", getattr(torch, dtype))))
    found = wide(family.read(family.ours(folder, device="cuda", dtype=dtype)))
    assert error(found, expected) <= AS_GOOD * error(half, expected)
