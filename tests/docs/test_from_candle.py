"""Runs docs/from-candle.md: every Python snippet, section by section, and checks what it leaves behind."""

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import tallow as tl
from tallow.device import default_device
from tallow.hub.installed import find_installed
from tallow.runtime import resident
from tests.hub.hub_server import Hub
from tests.models import tiny_clap, tiny_dino
from tests.ops.both import tensor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "from-candle.md").read_text(encoding="utf-8")


def snippets(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)


PREAMBLE, *PARTS = re.split(r"^## ", PAGE, flags=re.M)
SECTIONS = {part.partition("\n")[0]: "\n".join(snippets(part)) for part in PARTS}
NEEDS_WEIGHTS = {"One model for the whole program", "A whole model"}


@pytest.fixture
def namespace(tmp_path, monkeypatch):
    """The page's preamble, run in a folder that holds the files which the snippets name, beside a hub of its own."""
    hub = Hub()
    norm = {f"model.encoder.layer_norm.{name}": tl.ones(384) for name in ("weight", "bias")}
    tl.save_safetensors(norm, tmp_path / "norm.safetensors")
    hub.repositories["openai/whisper-tiny"] = {"model.safetensors": (tmp_path / "norm.safetensors").read_bytes()}
    small = {
        "laion/clap-htsat-unfused": tiny_clap.write(tmp_path / "clap"),
        "facebook/dinov3-vits16-pretrain-lvd1689m": tiny_dino.write(tmp_path / "dino"),
    }
    for name, folder in small.items():
        hub.repositories[name] = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    shutil.copy(ROOT / "examples" / "harbour.flac", tmp_path / "speech.flac")
    make_photo(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resident, "_entries", {}, raising=True)  # what other tests have loaded is not the reader's
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # pytest listens already
    result = {}
    exec(snippets(PREAMBLE)[0], result)
    yield result
    hub.close()


def make_photo(path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)).save(path)


@pytest.mark.parametrize("section", SECTIONS)
def test_section(section, namespace, caplog):
    if section in NEEDS_WEIGHTS and find_installed("openai/whisper-tiny.en") is None:
        pytest.skip("needs the extra starter (real weights)")
    default_device.cache_clear()
    caplog.set_level(logging.INFO, "tallow")
    exec(compile(SECTIONS[section], f"from-candle.md, {section}", "exec"), namespace)
    check = CHECKS.get(section)
    if check:
        check(namespace, caplog)


def test_every_pattern_has_its_section_and_all_but_the_table_have_code():
    assert len(SECTIONS) == 22
    assert [name for name, code in SECTIONS.items() if not code] == ["Guidelines"]
    assert set(CHECKS) <= set(SECTIONS)
    assert set(SECTIONS) >= NEEDS_WEIGHTS


def test_snippets_fit_beside_their_rust():
    assert max(len(line) for line in "\n".join(SECTIONS.values()).splitlines()) <= 78


def check_device(_, caplog):
    assert any(record.message.startswith("device auto: c") for record in caplog.records)


def check_gpu(found, _):
    assert found["x"].device is default_device()


def check_weights(found, _):
    assert found["norm"](tl.zeros((1, 384))).tolist() == [[1.0] * 384]  # the bias
    assert Path(found["path"]).is_relative_to(Path("models/hf")) or "models/hf" in found["path"]


def check_patches(found, _):
    """Every patch is one product with the flattened kernel."""
    embed, x = found["embed"], np.random.default_rng(1).standard_normal((1, 3, 32, 48)).astype(np.float32)
    patches = x.reshape(1, 3, 2, 16, 3, 16).transpose(0, 2, 4, 1, 3, 5).reshape(1, 6, -1)
    expected = patches @ embed.state_dict()["proj.weight"].numpy().reshape(384, -1).T + embed.proj.bias.numpy()
    assert np.allclose(embed(tensor(x)).numpy(), expected, atol=1e-4)


def check_attention(found, _):
    """As Candle's snippet computes it, in float64."""
    layer, x = found["layer"], np.random.default_rng(2).standard_normal((2, 7, 384))
    weights = {name: value.numpy().astype(np.float64) for name, value in layer.state_dict().items()}
    qkv = (x @ weights["qkv.weight"].T + weights["qkv.bias"]).reshape(2, 7, 3, 6, 64).transpose(2, 0, 3, 1, 4)
    scores = np.exp(qkv[0] / 8 @ qkv[1].swapaxes(-1, -2))
    mixed = (scores / scores.sum(-1, keepdims=True) @ qkv[2]).swapaxes(1, 2).reshape(2, 7, 384)
    assert np.allclose(layer(tensor(x)).numpy(), mixed @ weights["proj.weight"].T + weights["proj.bias"], atol=1e-4)


def check_image(found, _):
    """As Candle's loops compute it, on Pillow's resize."""
    from PIL import Image

    pixels = np.asarray(Image.open("photo.png").resize((224, 224), Image.Resampling.BILINEAR)) / 255.0
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(found["image"].numpy()[0], expected.transpose(2, 0, 1), atol=1e-5)


def check_rope(found, _):
    """As Candle's table and halves compute it."""
    angles = np.arange(3, 8)[:, None] * 10000.0 ** (-2 * np.arange(32) / 64)
    cos, sin = np.cos(angles)[None, :, None], np.sin(angles)[None, :, None]
    one = np.ones((1, 5, 8, 32))
    expected = np.concatenate([one * cos - one * sin, one * sin + one * cos], -1)
    assert np.allclose(found["rotated"].numpy(), expected, atol=1e-5)


def check_mel(found, _):
    """As Candle's loops compute it, the transform as a matrix."""
    samples, filters = found["samples"].numpy().astype(np.float64), found["filters"].numpy().astype(np.float64)
    n = np.arange(400)
    window = 0.5 * (1 - np.cos(2 * np.pi * n / 400))
    frames = np.stack([samples[start : start + 400] * window for start in range(0, 16000 - 399, 160)])
    power = np.abs(frames @ np.exp(-2j * np.pi * np.outer(n, np.arange(201)) / 400)) ** 2
    expected = np.log(np.maximum(power @ filters.T, 1e-10)).T
    loud = expected > np.log(1e-6)  # what lies lower is float32's rounding of the loudest
    assert loud.mean() > 0.3
    assert np.allclose(found["mel"].numpy()[loud], expected[loud], atol=2e-2)
    assert np.array_equal(found["batch"].numpy()[0], found["mel"].numpy())


def check_audio(found, _):
    assert found["samples"].shape[0] > 0
    assert np.abs(found["at_16k"].numpy()).max() <= 1.5


def check_windows(found, _):
    """As Candle's snippet computes it, in float64."""
    q, k, v = (found[name].numpy().astype(np.float64)[0].swapaxes(0, 1) for name in "qkv")
    added = found["position_bias"].numpy()[0] + np.where(np.arange(64)[:, None] // 32 != np.arange(64) // 32, -100, 0)
    scores = np.exp(q @ k.swapaxes(1, 2) * 24**-0.5 + added)
    expected = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(0, 1)
    assert np.allclose(found["y"].numpy()[0], expected, atol=1e-5)


def check_clap(found, _):
    assert np.allclose(np.linalg.norm(found["texts"].numpy(), axis=1), 1, atol=1e-6)
    assert np.isclose(sum(score for _, score in found["clap"].classify("speech.flac", ["a", "b", "c"])), 1)
    tl.unload()


def check_search(found, _):
    similarity = found["vectors"].numpy().astype(np.float64) @ found["vectors"].numpy().T
    assert found["indices"].tolist() == np.argsort(-similarity[:2], kind="stable")[:, :5].tolist()


def check_resident(found, _):
    assert found["text"].strip().startswith("Before there was electric light")
    with pytest.raises(tl.ArgumentError, match="unloaded"):
        found["speech"].transcribe("speech.flac")


CHECKS = {
    "Device": check_device,
    "GPU": check_gpu,
    "Weights from the hub, memory-mapped": check_weights,
    "Vision: patch embedding": check_patches,
    "Vision: multi-head attention": check_attention,
    "Vision: image preprocessing": check_image,
    "Language models: rotary position embeddings": check_rope,
    "Audio: mel spectrogram": check_mel,
    "Audio: loading": check_audio,
    "Audio: attention inside windows": check_windows,
    "Audio: sounds and texts in one space": check_clap,
    "Similarity search": check_search,
    "One model for the whole program": check_resident,
}
