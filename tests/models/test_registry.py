"""Architectures are found by the names that files have for them, by looking through the folder of models."""

import subprocess
import sys

import pytest

from tallow.errors import WeightsError
from tallow.models.registry import every_spec, find_class, find_ctranslate2, find_gguf, find_spec

TYPES = {"clap", "dinov3_convnext", "dinov3_vit", "gemma3_text", "llama", "mistral", "qwen2", "qwen3", "whisper"}


def test_every_model_is_found_by_its_type():
    assert {name for spec in every_spec() for name in spec.model_types} == TYPES
    for name in TYPES:
        assert name in find_spec(name).model_types
        assert find_class(name) is find_spec(name).model


def test_no_two_answer_to_one_name():
    names = [name for spec in every_spec() for name in spec.model_types]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_gguf_files_are_found_by_their_architecture(name):
    assert find_gguf(name, "file").model_types == (name,)


def test_what_is_not_there():
    for wanted in ("bert", "", None, 3, "qwen", "whisper.spec"):
        with pytest.raises(WeightsError, match=r"Tallow has clap, .*qwen3, whisper"):
            find_spec(wanted)
    with pytest.raises(WeightsError, match=r"file: .*'falcon'; Tallow reads gemma3, llama, qwen2, qwen3 from GGUF"):
        find_gguf("falcon", "file")
    with pytest.raises(WeightsError, match=r"'Wav2Vec2Spec' of CTranslate2; Tallow reads WhisperSpec"):
        find_ctranslate2("Wav2Vec2Spec", "file")


@pytest.mark.parametrize(("name", "other"), [("qwen3", "whisper"), ("mistral", "clap"), ("dinov3_vit", "clap")])
def test_other_models_are_not_imported(name, other):
    code = f"import sys; from tallow.models.registry import find_spec; find_spec({name!r}); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert f"tallow.models.{other}" not in modules
