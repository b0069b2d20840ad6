import json
import re
import threading

import numpy as np
import pytest

import tallow as tl
from tallow import loading
from tallow.errors import ArgumentError, DTypeError, ModelNotFoundError, OutOfMemoryError, WeightsError
from tallow.models.registry import find_class
from tallow.nn import Module
from tallow.runtime import memory, resident
from tallow.weights.safetensors import open_safetensors, save_safetensors

from .weights.ct2 import WHISPER_ALIASES, ct2_bytes, whisper_variables


class Stack(Module):
    """Stands in for a Whisper: as many of its encoder layers' first MLP weights as the config says.

    Of the rest it reads what is not in a layer that the config lacks, and keeps nothing.
    """

    made = 0

    def __init__(self, config, vb):
        type(self).made += 1
        vb = vb.pp("model.encoder.layers")
        width, hidden = config["d_model"], config["encoder_ffn_dim"]
        self.layers = [vb.pp(i).weight((hidden, width), "fc1.weight") for i in range(config["encoder_layers"])]

    @classmethod
    def from_checkpoint(cls, checkpoint, vb):
        source, layers = checkpoint.source, checkpoint.config["encoder_layers"]
        for name in source.names():
            found = re.match(r"model\.encoder\.layers\.(\d+)", name)
            if name != "alignment.scratch" and (found is None or int(found[1]) < layers):
                vb.get(source.info(name).shape, name)
        return cls(checkpoint.config, vb)


@pytest.fixture(autouse=True)
def stack(monkeypatch):
    resident.unload()
    Stack.made = 0
    monkeypatch.setattr(loading, "find_class", lambda _: Stack)
    yield Stack
    resident.unload()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.bin").write_bytes(ct2_bytes(whisper_variables(), WHISPER_ALIASES))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_loading_twice_gives_one_model(folder, tmp_path_factory):
    model = tl.load(folder, device="cpu")
    assert tl.load(str(folder), device="cpu") is model
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(folder)
    assert tl.load(link, device="cpu") is model
    assert Stack.made == 1
    (one,) = tl.resident()
    assert one.model is model
    assert one.nbytes == model.nbytes > 0


def test_other_options_are_another_model(folder):
    models = [
        tl.load(folder, device="cpu", **options)
        for options in ({}, {"dtype": "float32"}, {"dtype": "bfloat16"}, {"quantize": "int8"})
    ]
    assert [model.layers[0].storage for model in models] == ["float16", "float32", "bfloat16", "int8"]
    assert tl.load(folder, device="cpu", dtype=tl.float32) is models[1]
    assert len(tl.resident()) == 4


def test_preload(folder):
    assert tl.preload(folder, device="cpu") is None
    assert Stack.made == 1
    tl.load(folder, device="cpu")
    assert Stack.made == 1


def test_two_threads_load_once(folder):
    models = []
    threads = [threading.Thread(target=lambda: models.append(tl.load(folder, device="cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Stack.made == 1
    assert len({id(model) for model in models}) == 1


def test_a_failed_load_is_tried_again(folder, tmp_path):
    raw = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(raw[:-5])
    with pytest.raises(WeightsError, match="cut off"):
        tl.load(folder, device="cpu")
    (folder / "model.bin").write_bytes(raw)
    assert tl.load(folder, device="cpu").layers


def test_unload(folder):
    model = tl.load(folder, device="cpu")
    tl.unload(model)
    assert tl.resident() == []
    assert tl.load(folder, device="cpu") is not model


def test_memory_is_refused_with_both_figures(folder, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10_000)
    with pytest.raises(OutOfMemoryError, match=r"needs about \d+ MB .*cpu has 0 MB free; quantize='int8' needs less"):
        tl.load(folder, device="cpu")
    assert Stack.made == 0
    monkeypatch.setattr(memory, "free_bytes", lambda _: None)
    assert tl.load(folder, device="cpu")


def test_options_that_are_not_there(folder):
    with pytest.raises(DTypeError):
        tl.load(folder, device="cpu", quantize="int3")
    for dtype in ("int32", "int8"):
        with pytest.raises(DTypeError, match="stored as float32, float16, bfloat16; quantize="):
            tl.load(folder, device="cpu", dtype=dtype)
    for name in (None, 5, b"model"):
        with pytest.raises(ArgumentError, match=f"a model's name or a path, found {type(name).__name__}"):
            tl.load(name)
    with pytest.raises(ModelNotFoundError):
        tl.load(folder / "absent", device="cpu")
    assert tl.resident() == []


@pytest.fixture
def hugging_face(folder, tmp_path_factory):
    """The same model in Hugging Face's layout."""
    from tallow.models.checkpoint import open_checkpoint

    target = tmp_path_factory.mktemp("hf")
    checkpoint = open_checkpoint(folder)
    tensors = {name: np.array(checkpoint.source.read(name)) for name in checkpoint.source.names()}
    save_safetensors(tensors, target / "model.safetensors")
    (target / "config.json").write_text(json.dumps(checkpoint.config))
    return target


def test_both_formats_give_the_same_weights(folder, hugging_face):
    one, two = tl.load(folder, device="cpu"), tl.load(hugging_face, device="cpu")
    for a, b in zip(one.layers, two.layers, strict=True):
        np.testing.assert_array_equal(a.dequantize().numpy(), b.dequantize().numpy())


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_config_whose_sizes_do_not_fit(hugging_face):
    change_config(hugging_face, encoder_ffn_dim=33)
    with pytest.raises(WeightsError, match=r"fc1\.weight.* wants shape \(33, 8\), the file has \(32, 8\)"):
        tl.load(hugging_face, device="cpu")


def test_a_config_far_larger_than_the_weights(hugging_face):
    change_config(hugging_face, encoder_ffn_dim=10**15)
    with pytest.raises(WeightsError, match=r"far larger than its weights"):
        tl.load(hugging_face, device="cpu")


@pytest.mark.parametrize(("size", "message"), [("32", "is no number"), (None, "is no number"), (16, "wants shape")])
def test_errors_of_a_config_name_its_place(hugging_face, size, message):
    change_config(hugging_face, d_model=size)
    with pytest.raises(WeightsError, match=message) as caught:
        tl.load(hugging_face, device="cpu")
    assert str(hugging_face) in str(caught.value)


def test_a_config_with_more_layers_than_the_weights(hugging_face):
    change_config(hugging_face, encoder_layers=3)
    with pytest.raises(WeightsError, match=r"no tensor 'model\.encoder\.layers\.2\.fc1\.weight'"):
        tl.load(hugging_face, device="cpu")


def test_a_config_with_fewer_layers_than_the_weights(hugging_face):
    change_config(hugging_face, encoder_layers=1)
    with pytest.raises(WeightsError, match=r"config has no layer for, such as 'model\.encoder\.layers\.1\."):
        tl.load(hugging_face, device="cpu")


def test_a_tensor_that_no_module_reads_is_named(hugging_face):
    source = open_safetensors(hugging_face)
    tensors = {name: np.array(source.read(name)) for name in source.names()}
    save_safetensors(tensors | {"alignment.scratch": np.zeros(3)}, hugging_face / "model.safetensors")
    with pytest.raises(WeightsError, match=r"'alignment\.scratch' is nothing that Tallow's whisper computes"):
        tl.load(hugging_face, device="cpu")


def test_an_architecture_that_is_not_there(hugging_face, monkeypatch):
    monkeypatch.undo()
    change_config(hugging_face, model_type="bert")
    with pytest.raises(WeightsError, match=r"'bert'; Tallow has .*whisper"):
        tl.load(hugging_face, device="cpu")
    with pytest.raises(WeightsError, match=r"'bert'; Tallow has .*whisper"):
        find_class("bert")
