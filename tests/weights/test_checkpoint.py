import json

import numpy as np
import pytest

from tallow.errors import ModelNotFoundError, WeightsError
from tallow.models.checkpoint import open_checkpoint
from tallow.weights.safetensors import save_safetensors

from .ct2 import WHISPER_ALIASES, ct2_bytes, whisper_variables


def test_ctranslate2_folder_and_file(tmp_path):
    (tmp_path / "model.bin").write_bytes(ct2_bytes(whisper_variables(), WHISPER_ALIASES))
    (tmp_path / "config.json").write_text('{"suppress_ids": [5]}')
    for path in (tmp_path, tmp_path / "model.bin"):
        checkpoint = open_checkpoint(path)
        assert checkpoint.architecture == "whisper"
        assert checkpoint.config["d_model"] == 8
        assert checkpoint.generation_config["suppress_tokens"] == [5]
        assert checkpoint.source.info("model.encoder.layer_norm.weight").shape == (8,)
    assert checkpoint.file("no.json", "config.json") == str(tmp_path / "config.json")
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
        checkpoint.file("tokenizer.json")


def test_hugging_face_folder(tmp_path):
    save_safetensors({"proj_out.weight": np.ones((2, 2))}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "whisper", "d_model": 2}')
    assert open_checkpoint(tmp_path).generation_config == {}
    (tmp_path / "generation_config.json").write_text('{"suppress_tokens": [1]}')
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.generation_config == {"suppress_tokens": [1]}
    assert checkpoint.source.info("model.decoder.embed_tokens.weight").shape == (2, 2)


@pytest.mark.parametrize("kind", ["bert", None, ["whisper"]])
def test_other_architectures_are_named(tmp_path, kind):
    save_safetensors({}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(WeightsError, match=r"bert|None|\['whisper'\]"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a":1,"a":2}', "\ufeff{}", '{"a":' + "[" * 10**5])
def test_a_damaged_config_is_named(tmp_path, text):
    save_safetensors({}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json"):
        open_checkpoint(tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(ModelNotFoundError):
        open_checkpoint(tmp_path / "absent")
    with pytest.raises(ModelNotFoundError, match="no weights"):
        open_checkpoint(tmp_path)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(WeightsError, match="expected"):
        open_checkpoint(tmp_path / "x.txt")
    save_safetensors({}, tmp_path / "model.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(WeightsError, match=r"python -c .*save_file"):
        open_checkpoint(tmp_path)
