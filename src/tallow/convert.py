"""Language models from one file format into another: GGUF for llama.cpp, a folder of safetensors for Transformers."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from tallow.dtypes import as_dtype
from tallow.errors import ArgumentError, WeightsError
from tallow.hub.locate import resolve
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.blocks.encode import ENCODERS, quantize
from tallow.matrix.weight import Stored
from tallow.models.checkpoint import open_checkpoint
from tallow.models.registry import find_spec
from tallow.models.spec import Export
from tallow.nn.rope_scaling import rotary_frequencies
from tallow.text.language import TEMPLATES_FOLDER, Text
from tallow.text.tokenizer_export import gguf_text
from tallow.weights.adapters.decoder import ATTENTION, MLP
from tallow.weights.adapters.gguf import GGUFNames
from tallow.weights.adapters.gguf_export import gguf_names, gguf_rows, gguf_settings
from tallow.weights.checkpoint import Checkpoint
from tallow.weights.gguf_write import PLAIN, NewTensor, save_gguf
from tallow.weights.safetensors import write_safetensors
from tallow.weights.source import Array

STORAGES = (*PLAIN, *ENCODERS, "int8", "int4")
_NAMES = {"int8": "q8_0", "int4": "q4_1"}
_FILE_TYPES = {
    "float32": 0, "float16": 1, "bfloat16": 32, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9,
}  # fmt: skip
_COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
           "chat_template.json", "generation_config.json", "vocab.json", "merges.txt", "added_tokens.json")  # fmt: skip


def convert(model: str | os.PathLike[str], target: str | os.PathLike[str], storage: str | None = None) -> None:
    """Write a language model in another format.

    Args:
        model: a folder, a file, or a name, as ``tl.load`` takes them.
        target: a file ``*.gguf``, which llama.cpp reads; or a folder, for safetensors with all that Transformers needs.
        storage: how matrices are stored: ``"float32"``, ``"float16"``, ``"bfloat16"``; for GGUF also ``"q8_0"`` (or
            ``"int8"``), ``"q5_1"``, ``"q5_0"``, ``"q4_1"`` (or ``"int4"``), ``"q4_0"``. None: as they are, but fp8 and,
            for safetensors, blocks in float16.

    Raises:
        ArgumentError: for a storage that the format has not.
        WeightsError: for a model that cannot be written so.
    """
    if storage is not None and storage not in STORAGES:
        raise ArgumentError(f"storage {storage!r}: there are {', '.join(STORAGES)}")
    checkpoint = open_checkpoint(resolve(model))
    spec = find_spec(checkpoint.architecture)
    if spec.export is None or spec.gguf is None:
        raise WeightsError(
            f"{checkpoint.folder}: a {checkpoint.architecture} cannot be converted, a language model can"
        )
    config = spec.model.Config.from_dict(checkpoint.config)
    sizes = dataclasses.asdict(config) | {"model_type": checkpoint.architecture}
    if os.fspath(target).endswith(".gguf"):
        _to_gguf(checkpoint, spec.gguf, sizes, os.fspath(target), _NAMES.get(storage or "", storage))
    elif storage in PLAIN or storage is None:
        _to_folder(checkpoint, spec.export, sizes, os.fspath(target), storage)
    else:
        raise ArgumentError(f"safetensors hold no {storage}; give a file *.gguf, or a storage of {', '.join(PLAIN)}")


def _to_gguf(
    checkpoint: Checkpoint, names: GGUFNames, sizes: Mapping[str, Any], path: str, storage: str | None
) -> None:
    name = os.path.splitext(os.path.basename(path))[0]
    metadata = gguf_settings(names, with_attention_factor(sizes), checkpoint.source, name)
    if storage in _FILE_TYPES:
        metadata["general.file_type"] = _FILE_TYPES[storage]
    if checkpoint.metadata is not None:
        metadata |= {k: v for k, v in checkpoint.metadata.items() if k.startswith("tokenizer.")}
        metadata = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in metadata.items()}
    else:
        metadata |= gguf_text(Text.from_checkpoint(checkpoint), sizes["vocab_size"])
    tensors: dict[str, NewTensor] = {}
    for theirs, ours in gguf_names(names, sizes).items():
        info = checkpoint.source.info(ours)
        if info is not None and not (theirs == "output.weight" and sizes["tie_word_embeddings"]):
            tensors[theirs] = _gguf_tensor(checkpoint, names, sizes, theirs, ours, info.shape, storage)
    factors = _frequency_factors(sizes)
    if factors is not None:
        tensors["rope_freqs.weight"] = NewTensor(factors.shape, PLAIN["float32"], lambda: factors)
    save_gguf(path, metadata, tensors)


def _gguf_tensor(
    checkpoint: Checkpoint,
    names: GGUFNames,
    sizes: Mapping[str, Any],
    theirs: str,
    ours: str,
    shape: tuple[int, ...],
    storage: str | None,
) -> NewTensor:
    """How one tensor is stored, and how it is made."""
    from tallow.matrix.blocks import BY_NAME

    found = checkpoint.source.read(ours)
    if len(shape) != 2:
        kind = PLAIN["float32"]
    elif storage is None:
        kind = found.kind if isinstance(found, BlockMatrix) else PLAIN[_plain_name(found)]
    elif storage in PLAIN:
        kind = PLAIN[storage]
    elif shape[1] % BY_NAME[storage].elements:
        kind = PLAIN["float16"]
    else:  # the tables of tokens matter most, and are read row by row
        kind = BY_NAME["q8_0" if theirs in ("token_embd.weight", "output.weight") else storage]

    def make() -> Array | BlockMatrix:
        value = gguf_rows(checkpoint.source.read(ours), theirs, names, sizes)
        checkpoint.source.release(ours)
        if isinstance(value, BlockMatrix):
            if value.kind is kind:
                return value
            value = value.dequantize()
        return value.astype(kind.layout) if kind.is_plain else quantize(value, kind.name)

    return NewTensor(shape, kind, make)


def _plain_name(array: Stored) -> str:
    """The name of a matrix's plain storage, float32 for types that the formats share no name for."""
    name = array.dtype.name if isinstance(array, np.ndarray) else "float16"
    return name if name in PLAIN else "float32"


def with_attention_factor(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes, with YaRN's attention factor as a number, however the config says it (``mscale``)."""
    scaling = dict(sizes["rope_scaling"] or {})
    if scaling.get("rope_type", scaling.get("type")) == "yarn":
        context = sizes["max_position_embeddings"]
        _, scaling["attention_factor"] = rotary_frequencies(sizes["head_dim"], sizes["rope_theta"], scaling, context)
    return {**sizes, "rope_scaling": scaling or None}


def _frequency_factors(sizes: Mapping[str, Any]) -> Array | None:
    """What each rotary frequency is divided by, for the scalings that GGUF has only as such a list."""
    scaling = sizes["rope_scaling"] or {}
    if scaling.get("rope_type", scaling.get("type")) not in ("llama3", "factors"):
        return None
    context = sizes["max_position_embeddings"]
    plain, _ = rotary_frequencies(sizes["head_dim"], sizes["rope_theta"])
    scaled, _ = rotary_frequencies(sizes["head_dim"], sizes["rope_theta"], scaling, context)
    return (plain / scaled).astype(np.float32)


def _to_folder(
    checkpoint: Checkpoint, export: Export, sizes: Mapping[str, Any], folder: str, storage: str | None
) -> None:
    source = checkpoint.source
    config = _transformers_config(checkpoint, export, sizes)
    zeros = _missing_biases(checkpoint, export, sizes)
    infos, dtypes = {}, {}
    for name in source.names():
        info = source.info(name)
        if info is None or (name == "lm_head.weight" and sizes["tie_word_embeddings"]):
            continue
        value = source.read(name)
        dtypes[name] = as_dtype(storage or _plain_name(value)).numpy
        infos[name] = (dtypes[name], info.shape)
    for name, size in zeros.items():
        dtypes[name] = np.dtype(np.float32)
        infos[name] = (dtypes[name], (size,))

    def make(name: str) -> Array:
        if name in zeros:
            return np.zeros(zeros[name], np.float32)
        value = source.read(name)
        plain = value if isinstance(value, np.ndarray) else value.dequantize()
        source.release(name)
        return plain.astype(dtypes[name])

    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError:
        raise ArgumentError(f"{folder}: is a file; the target must be a folder, or a file *.gguf") from None
    write_safetensors(os.path.join(folder, "model.safetensors"), infos, make, {"format": "pt"})
    _write_json(folder, "config.json", config | {"dtype": dtypes["model.embed_tokens.weight"].name})
    _write_text(checkpoint, folder)


def _missing_biases(checkpoint: Checkpoint, export: Export, sizes: Mapping[str, Any]) -> dict[str, int]:
    """Names and sizes of biases that Transformers expects beside those that a GGUF file has; zeros change nothing.

    Raises:
        WeightsError: for a bias that Transformers' class of the architecture cannot have.
    """
    groups = export.biases
    surplus = sorted(sizes["biases"] - {name for group in groups for name in group})
    if surplus:
        raise WeightsError(
            f"{checkpoint.source.where}: {', '.join(surplus)} have biases, which Transformers' {export.name} has not"
        )
    expected = [name for group in groups if sizes["biases"] & set(group) for name in group]
    found: dict[str, int] = {}
    for layer in range(sizes["num_hidden_layers"]):
        for name in expected:
            path = f"model.layers.{layer}.{'self_attn' if name in ATTENTION else 'mlp'}.{name}"
            info = checkpoint.source.info(f"{path}.weight")
            if info is not None and checkpoint.source.info(f"{path}.bias") is None:
                found[f"{path}.bias"] = info.shape[0]
    return found


def _transformers_config(checkpoint: Checkpoint, export: Export, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint's ``config.json``, made if it came without one."""
    config = dict(checkpoint.config)
    if checkpoint.metadata is not None:  # in a config.json a null may say something: a Mistral has no window then
        config = {key: value for key, value in config.items() if value is not None}
    for key in ("quantization_config", "torch_dtype"):  # the latter is what `dtype` was called before version 5
        config.pop(key, None)
    if config.pop("biases", ()):
        config |= {
            "attention_bias": bool(sizes["biases"] & set(ATTENTION)),
            "mlp_bias": bool(sizes["biases"] & set(MLP)),
        }
    config["architectures"] = [f"{export.name}ForCausalLM"]
    factors = _frequency_factors(sizes)
    scaling = sizes["rope_scaling"] or {}
    if scaling.get("rope_type") == "factors" and factors is not None:
        if "attention_factor" in scaling:
            raise WeightsError(f"{checkpoint.source.where}: has a RoPE attn_factor that Transformers has no name for")
        config["rope_scaling"] = _llama3_scaling(sizes, factors, checkpoint.source.where)
    return config


def _llama3_scaling(sizes: Mapping[str, Any], factors: Array, where: str) -> dict[str, Any]:
    """The rule that gives these factors, tried over those of the published models."""
    for factor in (8.0, 32.0, float(factors.max())):
        rule = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192}  # fmt: skip
        found = _frequency_factors({**sizes, "rope_scaling": rule})
        if found is not None and np.allclose(found, factors, rtol=1e-4):
            return rule
    raise WeightsError(f"{where}: its rotary frequencies follow no rule that Transformers has a name for")


def _write_text(checkpoint: Checkpoint, folder: str) -> None:
    """Tokenizer and chat template beside the weights."""
    if checkpoint.metadata is None:
        named = glob.glob(os.path.join(TEMPLATES_FOLDER, "*.jinja"), root_dir=checkpoint.folder)
        for name in (*_COPIED, *named):
            path, target = os.path.join(checkpoint.folder, name), os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.exists(target):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copyfile(path, target)
        return
    text = Text.from_checkpoint(checkpoint)
    if not text.has_tokenizer:
        return
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= text.templates.tokens
    if sources := text.templates.sources:
        several = [{"name": name, "template": source} for name, source in sources.items()]
        settings["chat_template"] = sources["default"] if sources.keys() == {"default"} else several
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
        file.write(text.tokenizer.to_json())
    _write_json(folder, "tokenizer_config.json", settings)
    _write_json(folder, "generation_config.json", {"eos_token_id": sorted(text.eos_token_ids)})


def _write_json(folder: str, name: str, value: Any) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
