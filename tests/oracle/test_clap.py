"""CLAP against Transformers, on the same random weights and the same sounds."""

import numpy as np
import pytest

from tallow.models.checkpoint import open_checkpoint
from tallow.models.clap import Clap, FeatureConfig
from tallow.models.clap.features import ClapFeatures, Clip
from tallow.models.registry import find_class
from tallow.weights.var_builder import VarBuilder
from tests.models import tiny_clap

torch = pytest.importorskip("torch", reason="needs the extra oracle")
transformers = pytest.importorskip("transformers", reason="needs the extra oracle")
pytestmark = pytest.mark.oracle

TOLERANCE = 2e-5
BASE = {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2], "hidden_size": 1024}
PUBLISHED = {
    "clap-htsat-unfused": {},
    "clap-htsat-fused": {"enable_fusion": True},
    "larger_clap_general": BASE,  # larger_clap_music and larger_clap_music_and_speech have the same sizes
    "larger-fused": {**BASE, "enable_fusion": True},
}
CONFIGS = [
    pytest.param((tiny_clap.config(False), 201, 64), id="small"),
    pytest.param((tiny_clap.config(True), 201, 64), id="small-fused"),
    *(
        pytest.param(({"audio_config": audio}, 1001, 64), id=name, marks=pytest.mark.slow)
        for name, audio in PUBLISHED.items()
    ),
]


def randomised(config):
    """Transformers' model, every tensor of which is random: zeros and ones would hide mistakes."""
    model = transformers.ClapModel(transformers.ClapConfig(**config)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                deviation = 1.0 if "bias_table" in name else parameter[0].numel() ** -0.5
                parameter.normal_(0, deviation, generator=generator)
            elif parameter.dim() == 1:
                parameter.normal_(0 if name.endswith("bias") else 1, 0.1, generator=generator)
        for name, buffer in model.named_buffers():
            spectrum = "audio_encoder.batch_norm" in name
            if name.endswith("running_mean"):
                buffer.normal_(-30 if spectrum else 0, 1, generator=generator)
            if name.endswith("running_var"):
                buffer.uniform_(*((300, 500) if spectrum else (0.5, 2)), generator=generator)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """Transformers' model, ours made from what it saves, and the shape of a spectrogram."""
    config, frames, bands = request.param
    folder = tmp_path_factory.mktemp("clap")
    theirs = randomised(config)
    theirs.save_pretrained(folder)
    checkpoint = open_checkpoint(folder)
    model_class = find_class(checkpoint.architecture)
    assert model_class is Clap
    ours = Clap(Clap.Config.from_dict(checkpoint.config), VarBuilder(checkpoint.source))
    return theirs, ours, (frames, bands)


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def test_sounds(pair):
    theirs, ours, shape = pair
    fused = ours.config.audio_config.enable_fusion
    mel = np.random.default_rng(0).uniform(-90, 20, (3, 4 if fused else 1, *shape)).astype(np.float32)
    longer = torch.tensor([[True], [False], [True]])
    with torch.no_grad():
        expected = theirs.get_audio_features(input_features=torch.from_numpy(mel), is_longer=longer).pooler_output
    found = ours.encode_clips([Clip(mel[i], bool(longer[i])) for i in range(3)]).numpy()
    assert relative_error(found, expected.numpy()) < TOLERANCE


def test_texts(pair):
    theirs, ours, _ = pair
    config = ours.config.text_config
    generator = np.random.default_rng(0)
    rows = [[0, *generator.integers(3, config.vocab_size, n).tolist(), 2] for n in (7, 20, 1, config.context - 2)]
    ids = np.full((len(rows), max(map(len, rows))), config.pad_token_id)
    for row, padded in zip(rows, ids, strict=True):
        padded[: len(row)] = row
    mask = torch.from_numpy(ids != config.pad_token_id).long()
    with torch.no_grad():
        expected = theirs.get_text_features(input_ids=torch.from_numpy(ids), attention_mask=mask).pooler_output
    assert relative_error(ours.encode_ids(rows).numpy(), expected.numpy()) < TOLERANCE


@pytest.fixture
def draws(monkeypatch):
    """What Transformers draws at random, as a list that fills."""
    found = []
    for name in ("randint", "choice"):
        draw = getattr(np.random, name)
        monkeypatch.setattr(np.random, name, lambda *a, draw=draw: found.append(int(draw(*a))) or found[-1])
    return found


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize("n", [1, 3, 700, 123_457, 479_999, 480_000, 480_001, 480_479, 480_480, 480_960, 1_000_003])
def test_features(truncation, padding, n, draws):
    said = {"truncation": truncation, "padding": padding, "frequency_min": 50}
    theirs = transformers.ClapFeatureExtractor(**said)
    sound = tiny_clap.sound(n / 48_000)
    np.random.seed(n)
    expected, longer = theirs._get_input_mel(sound, 480_000, truncation, padding)
    found = ClapFeatures(FeatureConfig.from_dict(said))(sound, draws or None)
    assert found.is_longer == longer
    assert found.mel.shape == expected.shape
    assert np.abs(found.mel - expected).max() < 1e-3
    assert relative_error(found.mel, expected) < 1e-6


@pytest.mark.parametrize("fusion", [False, True])
def test_from_sounds_to_labels(fusion, tmp_path, draws):
    """The whole way, from a folder in the published layout, beside the pipeline for zero-shot classification."""
    folder = tiny_clap.write(tmp_path / "clap", fusion)
    checkpoint = open_checkpoint(folder)
    ours = Clap.from_checkpoint(checkpoint, VarBuilder(checkpoint.source))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    pipeline = transformers.pipeline(
        "zero-shot-audio-classification", transformers.ClapModel.from_pretrained(folder).eval(),
        feature_extractor=transformers.ClapFeatureExtractor.from_pretrained(folder), tokenizer=tokenizer,
    )  # fmt: skip
    labels = ["rain", "a dog barking", "naïve café music, for a long time"]
    sound = tiny_clap.sound(1.0 if not fusion else 5.0)
    expected = {entry["label"]: entry["score"] for entry in pipeline(sound, candidate_labels=labels)}
    middle = ours.features.offsets
    ours.features.offsets = lambda n, generator=None: draws if draws else middle(n)
    found = dict(ours.classify(sound, labels, long="crop"))
    assert found == pytest.approx(expected, rel=1e-4)
