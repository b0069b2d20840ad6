"""Language models in GGUF files: their names, rows and settings in the terms that the models ask in, Transformers' own.

Source: github.com/ggml-org/llama.cpp, ``gguf-py/gguf/tensor_mapping.py`` (names) and ``constants.py`` (keys); the order
of Llama's rows: ``LlamaModel.permute`` in its ``convert_hf_to_gguf.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow.errors import WeightsError
from tallow.weights.adapters.mapped import MappedSource, Piece
from tallow.weights.source import Array, Source, short

if TYPE_CHECKING:
    from tallow.weights.gguf import GGUFFile, SplitGGUF

MAX_LAYERS = 1000

OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip

READ_AS_SETTINGS = frozenset({"rope_freqs.weight"})  # see rope_scaling


def window_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sliding windows, as files have them: of all layers alike. Raises WeightsError for windows in some."""
    if any(config.get("windows") or ()):
        raise WeightsError("has sliding windows in some layers, which llama.cpp has no key for")
    return {"attention.sliding_window": config["window"]} if config.get("window") else {}


@dataclass(frozen=True)
class GGUFNames:
    """How a decoder lies in GGUF files.

    Attributes:
        architecture: its ``general.architecture``.
        layer: Transformers' names of a layer's modules, and the file's.
        row_order: (name in a layer of the file, config) -> for each row here, its number in the file; None: the same.
        norm_offset: what the file has added to the weights of norms.
        config: the file's settings -> what else ``config.json`` would say.
        settings: config -> settings that the file has beside the usual ones, without the architecture before them.
    """

    architecture: str
    layer: Mapping[str, str] = field(default_factory=lambda: LAYER)
    row_order: Callable[[str, Mapping[str, Any]], Array | None] = lambda name, config: None
    norm_offset: float = 0.0
    config: Callable[[GGUFSettings], dict[str, Any]] = lambda settings: {}
    settings: Callable[[Mapping[str, Any]], dict[str, Any]] = window_settings


def architecture(source: GGUFFile | SplitGGUF) -> str:
    """What the file calls the architecture of its model. Raises WeightsError if it doesn't say."""
    found = source.metadata.get("general.architecture")
    if not isinstance(found, str):
        raise WeightsError(f"{source.where}: general.architecture must be a name, found {short(found)}")
    return found


def from_gguf(source: GGUFFile | SplitGGUF, names: GGUFNames, config: Mapping[str, Any]) -> Source:
    """The file's tensors under Transformers' names; those that have none under their own, so that none gets lost.

    Args:
        source: the file.
        names: of its architecture.
        config: what ``gguf_config`` made of it.
    """
    pieces = dict(_pieces(names, config))
    taken = {piece.name for piece in pieces.values()} | READ_AS_SETTINGS
    return MappedSource(source, pieces | {name: Piece(name) for name in source.names() if name not in taken})


def _pieces(names: GGUFNames, config: Mapping[str, Any]) -> Iterator[tuple[str, Piece]]:
    for ours, theirs in OUTER.items():
        yield ours, Piece(theirs, added=-names.norm_offset if "norm" in theirs else 0.0)
    for layer in range(config["num_hidden_layers"]):
        for ours, theirs in names.layer.items():
            for part in ("weight", "bias"):
                rows = names.row_order(theirs, config)
                yield (
                    f"model.layers.{layer}.{ours}.{part}",
                    Piece(
                        f"blk.{layer}.{theirs}.{part}",
                        order=rows,
                        added=-names.norm_offset if "norm" in theirs else 0.0,
                    ),
                )


def llama_rows(name: str, config: Mapping[str, Any]) -> Array | None:
    """The rows of Llama's q and k, which the file has in pairs for an interleaved RoPE; None for other tensors.

    Row 2i + j of a head in the file is its row j · d / 2 + i here.
    """
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(name)
    if heads is None:
        return None
    rows = np.arange(heads * config["head_dim"]).reshape(heads, -1, 2)
    return rows.transpose(0, 2, 1).reshape(-1)


def gguf_config(source: GGUFFile | SplitGGUF, names: GGUFNames, model_type: str) -> dict[str, Any]:
    """What ``config.json`` would say of the model in a file.

    Args:
        source: the file.
        names: of its architecture.
        model_type: Hugging Face's name of the architecture.

    Raises:
        WeightsError: for a setting that is missing, of the wrong type, impossible, or of a variant that the
            architecture's model does not compute.
    """
    said = GGUFSettings(source)
    heads, width = said.size("attention.head_count"), said.size("embedding_length")
    if said.count("expert_count"):
        raise WeightsError(f"{said.where}: a mixture of experts, which Tallow does not compute")
    default = width // heads if width % heads == 0 else None
    config: dict[str, Any] = {
        "model_type": model_type,
        "hidden_size": width,
        "intermediate_size": said.size("feed_forward_length"),
        "num_hidden_layers": said.size("block_count", MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": said.size("attention.head_count_kv", default=heads),
        "head_dim": said.size("attention.key_length", default=default),
        "max_position_embeddings": said.size("context_length"),
        "rms_norm_eps": said.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": said.real("rope.freq_base", 10000.0),
        "vocab_size": said.rows("token_embd.weight"),
        "tie_word_embeddings": source.info("output.weight") is None,
        "sliding_window": said.count("attention.sliding_window") or None,
        "biases": [ours.split(".")[1] for ours, theirs in names.layer.items() if source.info(f"blk.0.{theirs}.bias")],
    }
    config["rope_scaling"] = said.rope_scaling(config["head_dim"])
    for key in ("attention.value_length", "rope.dimension_count"):
        if said.size(key, default=config["head_dim"]) != config["head_dim"]:
            raise WeightsError(f"{said.where}: {said.architecture}.{key} is not the size of a head; not supported")
    config |= {"use_sliding_window": config["sliding_window"] is not None, "max_window_layers": 0}
    for name in ("bos", "eos", "padding"):
        token = source.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(token, int):
            config[f"{'pad' if name == 'padding' else name}_token_id"] = token
    return config | names.config(said)


class GGUFSettings:
    """A file's settings under its architecture's name, checked one by one."""

    def __init__(self, source: GGUFFile | SplitGGUF) -> None:
        self.source = source
        self.where = source.where
        self.architecture = architecture(source)

    def _get(self, key: str, expected: str) -> Any:
        value = self.source.metadata.get(f"{self.architecture}.{key}")
        if value is None:
            raise WeightsError(f"{self.where}: lacks {self.architecture}.{key}, {expected}")
        return value

    def has(self, key: str) -> bool:
        """Whether the file says it."""
        return f"{self.architecture}.{key}" in self.source.metadata

    def size(self, key: str, most: int = 1 << 31, default: int | None = None) -> int:
        """A size, at least 1; the same for all layers if the file lists it for each."""
        if default is not None and not self.has(key):
            return default
        value = self._get(key, "a size")
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all() and value.dtype.kind in "iu":
            value = int(value[0])
        if type(value) is not int or not 1 <= value <= most:
            raise WeightsError(f"{self.where}: {self.architecture}.{key} must be 1 to {most:,}, found {short(value)}")
        return value

    def count(self, key: str) -> int:
        """A number that may be 0, which it is if the file does not say."""
        return self.size(key) if self.has(key) and self._get(key, "") != 0 else 0

    def real(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        if default is not None and not self.has(key):
            return default
        value = self._get(key, "a positive number")
        if type(value) not in (int, float) or not (0 < value < math.inf):
            raise WeightsError(f"{self.where}: {self.architecture}.{key} must be positive, found {short(value)}")
        return float(value)

    def rows(self, name: str) -> int:
        """How many rows a matrix has."""
        info = self.source.info(name)
        if info is None or len(info.shape) != 2:
            found = "is not there" if info is None else f"has shape {info.shape}"
            raise WeightsError(f"{self.where}: expected the matrix {name!r}; it {found}")
        return info.shape[0]

    def rope_scaling(self, head_dim: int) -> dict[str, Any] | None:
        """How rotary frequencies are scaled, as llama.cpp reads it.

        A factor without a type is linear, and ``attn_factor`` multiplies cosines and sines whatever the type.

        Args:
            head_dim: features of a head.
        """
        kind = self.source.metadata.get(f"{self.architecture}.rope.scaling.type", "linear")
        if kind not in ("none", "linear", "yarn"):
            raise WeightsError(f"{self.where}: RoPE scaling of type {short(kind)}; Tallow computes linear and yarn")
        key = next((k for k in ("rope.scaling.factor", "rope.scale_linear") if self.has(k)), None)
        factor = 1.0 if kind == "none" or key is None or self._get(key, "") == 0 else self.real(key)
        attention = self.real("rope.scaling.attn_factor", 1.0)
        if kind == "yarn":
            extent = 1.0 if not self.has(name := "rope.scaling.yarn_ext_factor") else self._get(name, "")
            if extent not in (0, 1):
                raise WeightsError(f"{self.where}: {self.architecture}.{name} is {short(extent)}; Tallow computes 1")
            kind = "yarn" if extent == 1 else "linear"
        factors = self._frequency_factors()
        if kind == "yarn":
            if factors is not None:
                raise WeightsError(f"{self.where}: has both 'rope_freqs.weight' and RoPE scaling of type yarn")
            return self._yarn(factor, attention)
        if factors is not None or attention != 1:
            factors = [1.0] * (head_dim // 2) if factors is None else factors
            scaling: dict[str, Any] = {"rope_type": "factors", "factors": [value * factor for value in factors]}
            return scaling | ({"attention_factor": attention} if attention != 1 else {})
        return {"rope_type": "linear", "factor": factor} if factor != 1 else None

    def _frequency_factors(self) -> list[float] | None:
        """What each frequency is divided by, if the file lists it."""
        if self.source.info("rope_freqs.weight") is None:
            return None
        factors = self.source.read("rope_freqs.weight")
        if not isinstance(factors, np.ndarray) or factors.ndim != 1 or factors.dtype.kind != "f":
            raise WeightsError(f"{self.where}: 'rope_freqs.weight' must be a list of numbers")
        return [float(value) for value in factors]

    def _yarn(self, factor: float, attention: float) -> dict[str, Any]:
        scaling: dict[str, Any] = {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": self.size(
                "rope.scaling.original_context_length", default=self.size("context_length")
            ),
        }
        for name in ("beta_fast", "beta_slow"):
            if self.has(f"rope.scaling.yarn_{name}"):
                scaling[name] = self.real(f"rope.scaling.yarn_{name}")
        attention *= self.real("rope.scaling.yarn_attn_factor", 1.0)
        if attention != 1:  # llama.cpp's is a factor of YaRN's own, Transformers' stands in its place
            scaling["attention_factor"] = attention * (1 + 0.1 * math.log(max(factor, 1.0)))
        return scaling
