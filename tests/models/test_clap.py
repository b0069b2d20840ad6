"""CLAP from a checkpoint folder to vectors and labels, with random weights: everything but their sense."""

import json
import logging
import shutil
import wave

import numpy as np
import pytest

import tallow as tl
from tallow.errors import ArgumentError, MediaError, ModelNotFoundError, WeightsError
from tallow.media.audio import AudioReader
from tallow.models.clap import Clap, ClapConfig, FeatureConfig
from tallow.models.estimate import estimate_memory
from tallow.runtime.threads import get_num_threads, set_num_threads
from tallow.weights.safetensors import open_safetensors, save_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.hub.test_hub import fill_cache
from tests.models import tiny_clap
from tests.models.tiny_clap import CLIP, sound

RATE = 48_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("clap")
    return {fusion: tiny_clap.write(root / str(fusion), fusion) for fusion in (False, True)}


@pytest.fixture(scope="module")
def model(folders):
    yield tl.load(folders[False], device="cpu")
    tl.unload()


@pytest.fixture(scope="module")
def fused(folders):
    yield tl.load(folders[True], device="cpu")
    tl.unload()


@pytest.fixture
def recording(tmp_path):
    """A stereo file at 44,100 Hz, 5.3 s."""
    t = np.arange(round(5.3 * 44_100)) / 44_100
    channels = np.stack([np.sin(2000 * t * (1 + t)), 0.5 * np.sin(700 * t)], axis=1)
    path = tmp_path / "chirp.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes((channels * 20_000).astype("<i2").tobytes())
    return path


def test_vectors_have_length_one(model):
    sounds = model.embed_audio([sound(0.7), sound(2), sound(5)])
    texts = model.embed_text(["rain on a roof", "a dog", ""])
    for vectors in (sounds, texts):
        assert vectors.shape == (3, 24)
        assert vectors.dtype == tl.float32
        assert np.allclose(np.linalg.norm(vectors.numpy(), axis=1), 1, atol=1e-6)
    assert (sounds @ texts.T).shape == (3, 3)


def test_one_is_the_first_of_a_list(model):
    assert np.array_equal(model.embed_audio(sound(1)).numpy(), model.embed_audio([sound(1)]).numpy()[0])
    assert np.array_equal(model.embed_text("rain").numpy(), model.embed_text(["rain"]).numpy()[0])
    assert model.embed_audio([]).shape == model.embed_text([]).shape == (0, 24)


@pytest.mark.parametrize("which", ["model", "fused"])
@pytest.mark.parametrize("long", ["mean", "crop"])
def test_an_answer_does_not_depend_on_its_companions(which, long, request):
    model = request.getfixturevalue(which)
    sounds = [sound(seconds, seed) for seed, seconds in enumerate((0.1, 7.3, 2, 2.004, 3, 0.001))]
    alone = [model.embed_audio(one, long=long).numpy() for one in sounds]
    threads = get_num_threads()
    for batch_size in (1, 3, 16):
        set_num_threads(batch_size)
        together = model.embed_audio(sounds, long=long, batch_size=batch_size).numpy()
        assert np.array_equal(together, np.array(alone))
    set_num_threads(threads)


def test_nor_does_a_text(model):
    texts = ["a", "rain on a tin roof, far away", "", "the cat ran " * 7, "stop"]
    assert np.array_equal(model.embed_text(texts, batch_size=3).numpy(), [model.embed_text(t).numpy() for t in texts])


def test_any_file_at_any_rate(model, recording):
    heard = model.embed_audio([recording, recording.read_bytes(), AudioReader(recording, RATE)]).numpy()
    assert np.array_equal(heard[0], heard[1])
    assert np.array_equal(heard[0], heard[2])
    samples = tl.media.load_audio(recording)
    assert np.allclose(model.embed_audio(samples, sampling_rate=44_100).numpy(), heard[0], atol=1e-4)
    mixed = model.embed_audio([str(recording), samples], sampling_rate=44_100)  # a file says its own rate
    assert np.allclose(mixed.numpy()[0], heard[0])


def test_a_long_recording_is_heard_window_by_window(model):
    whole = sound(2 * 2 + 0.5)
    each = model.embed_audio(whole, long="windows").numpy()
    parts = [whole[:CLIP], whole[CLIP : 2 * CLIP], whole[-CLIP:]]
    assert np.array_equal(each, [model.embed_audio(part, long="windows").numpy()[0] for part in parts])
    mean = 2 * each[0] + 2 * each[1] + 0.5 * each[2]
    assert np.allclose(model.embed_audio(whole).numpy(), mean / np.linalg.norm(mean), atol=1e-6)
    listed = model.embed_audio([whole, sound(1)], long="windows")
    assert [tuple(rows.shape) for rows in listed] == [(3, 24), (1, 24)]


@pytest.mark.parametrize("which", ["model", "fused"])
def test_crops_are_drawn_only_when_asked_for(which, request):
    model = request.getfixturevalue(which)
    whole = sound(9)
    middle, again = (model.embed_audio(whole, long="crop").numpy() for _ in range(2))
    assert np.array_equal(middle, again)
    drawn = [model.embed_audio(whole, long="crop", seed=seed).numpy() for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], middle)


def test_classify(model, fused):
    labels = ["rain", "a dog barking", "applause"]
    for one in (model, fused):
        ranked = one.classify(sound(1), labels)
        assert {label for label, _ in ranked} == set(labels)
        assert [found.score for found in ranked] == sorted((found.score for found in ranked), reverse=True)
        assert sum(found.score for found in ranked) == pytest.approx(1)
        vectors = one.embed_text([f"This is a sound of {label}." for label in labels]).numpy()
        logits = np.exp(one.logit_scale.item()) * vectors @ one.embed_audio(sound(1)).numpy()
        expected = np.exp(logits - logits.max())
        assert dict(ranked) == pytest.approx(dict(zip(labels, expected / expected.sum(), strict=True)), rel=1e-5)
        assert one.classify([sound(1), sound(4)], labels)[0] == ranked
    assert model.classify(sound(1), ["rain"]) == [("rain", 1.0)]
    plain = model.classify(sound(1), ["This is a sound of {x}.", "b"], template="{}")
    assert {label for label, _ in plain} == {"This is a sound of {x}.", "b"}


@pytest.mark.parametrize(
    "samples", [np.zeros(CLIP), np.zeros(3), np.array([1.0, -1.0, 1.0]), np.ones(1), np.ones(CLIP * 2 + 1)]
)
def test_odd_sounds_have_a_vector(model, fused, samples):
    for one in (model, fused):
        for long in ("mean", "crop"):
            vector = one.embed_audio(samples.astype(np.float32), long=long).numpy()
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("samples", "error", "said"),
    [
        (np.zeros(0, np.float32), MediaError, "not one sample"),
        (np.full(9, np.nan, np.float32), MediaError, "not finite"),
        (np.zeros((9, 4000, 2), np.float32), MediaError, "shape"),
        ("/nowhere.wav", MediaError, "nowhere"),
        (b"this is no sound", MediaError, "bytes"),
    ],
)
def test_what_is_no_sound(model, samples, error, said):
    for long in ("mean", "crop"):
        with pytest.raises(error, match=said):
            model.embed_audio([sound(1), samples], long=long)


@pytest.mark.parametrize("options", [{"long": "all"}, {"seed": 1}, {"batch_size": 0}, {"long": "windows", "seed": 2}])
def test_options_that_cannot_be(model, options):
    with pytest.raises(ArgumentError, match="embed_audio"):
        model.embed_audio(sound(1), **options)


def test_a_reader_at_another_rate(model, recording):
    with pytest.raises(ArgumentError, match="16,000"):
        model.embed_audio(AudioReader(recording, 16_000))


def test_labels_and_templates_that_cannot_be(model):
    for labels in ([], "rain"):
        with pytest.raises(ArgumentError, match="labels"):
            model.classify(sound(1), labels)
    with pytest.raises(ArgumentError, match="template"):
        model.classify(sound(1), ["rain"], template="a sound")
    with pytest.raises(ArgumentError, match="long"):
        model.classify(sound(1), ["rain"], long="windows")


def test_a_text_that_is_too_long(model, caplog):
    text = "rain " * 20_000
    with pytest.raises(ArgumentError, match=r"tokens .*the model reads 62"):
        model.embed_text(text)
    with pytest.raises(ArgumentError, match="tokens"):
        model.classify(sound(1), [text])
    caplog.set_level(logging.WARNING, "tallow")
    cut = model.embed_text(text, truncate=True).numpy()
    assert "cut to the 62" in caplog.text
    ids = model.tokenizer.encode(text)[:62]
    assert np.array_equal(cut, model.encode_ids([[0, *ids, 2]]).numpy()[0])
    with pytest.raises(ArgumentError, match="expected a text"):
        model.embed_text([b"rain"])


def test_special_tokens_in_a_text_are_mere_text(model):
    assert 2 not in model.tokenizer.encode("a </s> b")
    assert np.isfinite(model.embed_text("a </s><pad> b").numpy()).all()


def test_progress(model):
    seen = []
    model.embed_audio([sound(1), sound(5), sound(1)], progress=seen.append)
    assert seen == [0, 1, 2]


def test_int8(model, folders):
    small = tl.load(folders[False], device="cpu", quantize="int8")
    assert small.nbytes < model.nbytes
    for make in (lambda m: m.embed_audio([sound(1), sound(3)]), lambda m: m.embed_text(["rain", "a dog barking"])):
        assert ((make(model) * make(small)).sum(-1) > 0.99).all()  # tests/oracle has the real sizes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(model, folders, dtype):
    half = tl.load(folders[False], device="cpu", dtype=dtype)
    cosine = (model.embed_audio([sound(1)]) * half.embed_audio([sound(1)])).sum(-1)
    assert cosine.item() > 0.999


def test_by_name_from_the_hub_cache(model, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files = {path.name: path.read_bytes() for path in folders[False].iterdir()}
    fill_cache(tmp_path, "laion/clap-tiny", files)
    cached = tl.load("laion/clap-tiny", cache_dir=tmp_path, device="cpu")
    assert isinstance(cached, Clap)
    assert np.array_equal(cached.embed_text("rain").numpy(), model.embed_text("rain").numpy())


def test_vocabulary_and_merges_do_instead_of_a_tokenizer_json(model, folders, tmp_path):
    folder = shutil.copytree(folders[False], tmp_path / "clap")
    data = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(data["vocab"]))
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in data["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer.json").unlink()
    other = tl.load(folder, device="cpu")
    assert np.array_equal(other.embed_text("the cat sat").numpy(), model.embed_text("the cat sat").numpy())


def test_without_features_or_tokenizer():
    bare = Clap(ClapConfig.from_dict(tiny_clap.config()), VarBuilder.random(0))
    with pytest.raises(WeightsError, match="features"):
        bare.embed_audio(sound(1))
    with pytest.raises(WeightsError, match="tokenizer"):
        bare.embed_text("rain")


def change(folder, target, **files):
    """A copy of a checkpoint with some settings changed; None takes a file away."""
    folder = shutil.copytree(folder, target)
    for name, changes in files.items():
        path = folder / f"{name}.json"
        if changes is None:
            path.unlink()
        else:
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"preprocessor_config": {"feature_size": 80}}, "80 bands"),
        ({"preprocessor_config": {"max_length_s": 10}}, "1,001 frames"),
        ({"preprocessor_config": {"truncation": "fusion"}}, "enable_fusion False"),
        ({"preprocessor_config": {"truncation": "never"}}, "truncation"),
        ({"preprocessor_config": {"padding": 7}}, "padding"),
        ({"preprocessor_config": {"frequency_min": 15000}}, "do not fit each other"),
        ({"preprocessor_config": {"hop_length": 0}}, "preprocessor_config.json"),
        ({"config": {"audio_config": {"patch_stride": [2, 2]}}}, "patch_stride"),
        ({"config": {"audio_config": {"depths": [2, 2]}}}, "depths"),
        ({"config": {"audio_config": {"depths": 3}}}, "no number"),
        ({"config": {"audio_config": {"spec_size": 200}}}, "spec_size"),
        ({"config": {"audio_config": {"num_attention_heads": [5, 8, 16, 32]}}}, "heads"),
        ({"config": {"audio_config": {"hidden_size": 12}}}, "hidden_size"),
        ({"config": {"audio_config": {"enable_fusion": True, "fusion_type": "channel_map"}}}, "channel_map"),
        ({"config": {"audio_config": 7}}, "no number"),
        ({"config": {"text_config": {"hidden_act": "relu"}}}, "hidden_act"),
        ({"config": {"text_config": {"pad_token_id": -1}}}, "pad_token_id"),
        ({"config": {"text_config": {"num_attention_heads": 7}}}, "heads"),
        ({"config": {"projection_hidden_act": "swish"}}, "projection_hidden_act"),
        ({"config": {"projection_dim": 25}}, "linear1.weight"),
    ],
)
def test_settings_that_do_not_fit(folders, tmp_path, files, said):
    with pytest.raises(WeightsError, match=said):
        tl.load(change(folders[False], tmp_path / "clap", **files), device="cpu")


def test_a_folder_without_its_feature_settings(folders, tmp_path):
    with pytest.raises(ModelNotFoundError, match="preprocessor_config"):
        tl.load(change(folders[False], tmp_path / "clap", preprocessor_config=None), device="cpu")


def test_more_layers_than_the_config_says(folders, tmp_path):
    folder = shutil.copytree(folders[False], tmp_path / "clap")
    source = open_safetensors(folder)
    tensors = {name: np.array(source.read(name)) for name in source.names()}
    tensors |= {n.replace("layer.1.", "layer.2."): v for n, v in tensors.items() if "layer.1." in n}
    save_safetensors(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"layer\.2\."):
        tl.load(folder, device="cpu")


@pytest.mark.parametrize("fusion", [False, True])
def test_memory_is_foretold(fusion):
    config = ClapConfig.from_dict(tiny_clap.config(fusion))
    model = Clap(config, VarBuilder.random(0), FeatureConfig.from_dict(tiny_clap.features(fusion)))
    estimate = estimate_memory(tiny_clap.config(fusion))
    assert model.nbytes == pytest.approx(estimate.weights, rel=0.2)
    assert estimate == estimate_memory(config)
    assert 570e6 < estimate_memory({"model_type": "clap"}).weights < 680e6  # 153 million numbers
