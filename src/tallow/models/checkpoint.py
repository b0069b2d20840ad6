"""Opening a checkpoint of whatever format: its config and its tensors' names in the terms of its architecture."""

from __future__ import annotations

import os
from typing import Any

from tallow.errors import ModelNotFoundError
from tallow.models.registry import find_ctranslate2, find_gguf, find_spec
from tallow.weights.adapters.fp8 import quantised_source
from tallow.weights.checkpoint import Checkpoint, weight_file
from tallow.weights.gguf_files import is_gguf
from tallow.weights.safetensors import open_safetensors
from tallow.weights.source import read_json


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a folder, or a weight file in one, whose ``config.json`` lies beside the weights; or a GGUF file.

    Raises:
        ModelNotFoundError: if there is no such folder, or it holds no weights that Tallow reads.
        WeightsError: if a file is damaged or of an architecture without a counterpart here.
    """
    path = os.fspath(path)
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    weights = weight_file(path)
    if is_gguf(weights):
        return _open_gguf(folder, weights)
    config_path = os.path.join(folder, "config.json")
    if not os.path.isfile(config_path):
        raise ModelNotFoundError(f"{path}: beside the weights there must be a config.json, which says what of")
    config = read_json(config_path)
    if weights.endswith(".bin"):
        return _open_ctranslate2(folder, weights, config)
    architecture = config.get("model_type")
    spec = find_spec(architecture, f"{config_path}: ")
    generation_path = os.path.join(folder, "generation_config.json")
    generation = read_json(generation_path) if os.path.isfile(generation_path) else {}
    source = quantised_source(open_safetensors(weights), config.get("quantization_config"), config_path)
    return Checkpoint(folder, str(architecture), config, generation, spec.names(source))


def _open_ctranslate2(folder: str, weights: str, settings: dict[str, Any]) -> Checkpoint:
    from tallow.weights.ctranslate2 import CTranslate2File

    file = CTranslate2File(weights)
    spec = find_ctranslate2(file.spec, weights)
    assert spec.ctranslate2 is not None
    config, generation = spec.ctranslate2.config(file, settings)
    return Checkpoint(folder, spec.model_types[0], config, generation, spec.ctranslate2.names(file))


def _open_gguf(folder: str, weights: str) -> Checkpoint:
    from tallow.weights.adapters import gguf as adapter
    from tallow.weights.gguf import open_gguf

    file = open_gguf(weights)
    spec = find_gguf(adapter.architecture(file), weights)
    assert spec.gguf is not None
    architecture = spec.model_types[0]
    config = adapter.gguf_config(file, spec.gguf, architecture)
    return Checkpoint(folder, architecture, config, {}, adapter.from_gguf(file, spec.gguf, config), file.metadata)
