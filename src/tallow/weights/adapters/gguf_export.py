"""Language models into GGUF files: names, rows and settings as llama.cpp wants them. The way back from ``gguf.py``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tallow.errors import WeightsError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.weight import Stored
from tallow.weights.adapters.gguf import OUTER, GGUFNames
from tallow.weights.source import Array, Source


def gguf_names(names: GGUFNames, config: Mapping[str, Any]) -> dict[str, str]:
    """GGUF's name -> Transformers' name, for every tensor that a model of these sizes can have, in the file's order."""
    found = {theirs: ours for ours, theirs in OUTER.items()}
    for layer in range(config["num_hidden_layers"]):
        for ours, theirs in names.layer.items():
            for part in ("weight", "bias"):
                found[f"blk.{layer}.{theirs}.{part}"] = f"model.layers.{layer}.{ours}.{part}"
    return found


def gguf_rows(value: Stored, name: str, names: GGUFNames, config: Mapping[str, Any]) -> Array | BlockMatrix:
    """A tensor with its rows as the file has them: Llama's q and k in pairs.

    Args:
        value: the tensor under Transformers' name.
        name: GGUF's name.
        names: of the architecture.
        config: of the model.
    """
    value = value if isinstance(value, (np.ndarray, BlockMatrix)) else value.dequantize()
    part = name.split(".")[2] if name.startswith("blk.") else ""
    if "norm" in name and names.norm_offset and isinstance(value, np.ndarray):
        return value.astype(np.float32) + np.float32(names.norm_offset)
    rows = names.row_order(part, config)
    return value if rows is None else value[np.argsort(rows)]


def gguf_settings(names: GGUFNames, config: Mapping[str, Any], source: Source, name: str) -> dict[str, Any]:
    """The metadata of a model, without its tokenizer.

    Args:
        names: of the architecture.
        config: what ``config.json`` says, with every size of a head and of the vocabulary in it, and YaRN's
            ``attention_factor`` where it isn't the usual one.
        source: its weights.
        name: of the model.

    Raises:
        WeightsError: for sliding windows that llama.cpp has no key for.
    """
    kind = names.architecture
    said: dict[str, Any] = {
        "general.architecture": kind,
        "general.type": "model",
        "general.name": name,
        "general.quantization_version": 2,
        f"{kind}.block_count": config["num_hidden_layers"],
        f"{kind}.context_length": config["max_position_embeddings"],
        f"{kind}.embedding_length": config["hidden_size"],
        f"{kind}.feed_forward_length": config["intermediate_size"],
        f"{kind}.attention.head_count": config["num_attention_heads"],
        f"{kind}.attention.head_count_kv": config["num_key_value_heads"],
        f"{kind}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{kind}.attention.key_length": config["head_dim"],
        f"{kind}.attention.value_length": config["head_dim"],
        f"{kind}.rope.dimension_count": config["head_dim"],
        f"{kind}.rope.freq_base": float(config["rope_theta"]),
        f"{kind}.vocab_size": config["vocab_size"],
    }
    try:
        said |= {f"{kind}.{key}": value for key, value in names.settings(config).items()}
    except WeightsError as error:
        raise WeightsError(f"{source.where}: {error}") from None
    scaling = config.get("rope_scaling") or {}
    rule = scaling.get("rope_type", scaling.get("type", "default"))
    if rule in ("linear", "yarn"):
        said |= {f"{kind}.rope.scaling.type": rule, f"{kind}.rope.scaling.factor": float(scaling["factor"])}
    if rule == "yarn":
        said |= {f"{kind}.rope.scaling.{key}": value for key, value in _yarn(config, scaling, source.where).items()}
    elif rule == "factors" and scaling.get("attention_factor"):
        said[f"{kind}.rope.scaling.attn_factor"] = float(scaling["attention_factor"])
    return said


def _yarn(config: Mapping[str, Any], scaling: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What YaRN needs beside its factor, in llama.cpp's terms."""
    if not scaling.get("truncate", True):
        raise WeightsError(f"{where}: RoPE scaling yarn with truncate: false, which llama.cpp has no key for")
    context, factor = config["max_position_embeddings"], max(float(scaling["factor"]), 1.0)
    said: dict[str, Any] = {"original_context_length": int(scaling.get("original_max_position_embeddings") or context)}
    for name in ("beta_fast", "beta_slow"):
        if scaling.get(name) is not None:
            said[f"yarn_{name}"] = float(scaling[name])
    own = 1 + 0.1 * math.log(factor)
    attention = float(scaling.get("attention_factor") or own)
    if not math.isclose(attention, own, rel_tol=1e-6):
        said["attn_factor"] = attention / own
    return said
