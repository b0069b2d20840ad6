"""Reading a ``config.json`` that nobody has checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tallow.errors import WeightsError
from tallow.weights.source import short

MAX = 1 << 30  # no size of a model comes near; keeps a hostile config from asking for the whole memory


class ConfigReader:
    """A config's values, each checked as it is taken. A ``null`` counts as a value that is not there.

    Args:
        config: what ``config.json`` says.
        family: what to call the model in messages, such as ``"Qwen3"``.
        file: where the settings come from.
    """

    def __init__(self, config: Mapping[str, Any], family: str, file: str = "config.json") -> None:
        self.config = {key: value for key, value in config.items() if value is not None}
        self.family = family
        self.file = file

    def _error(self, key: str, expected: str, found: Any) -> WeightsError:
        return WeightsError(f"{self.file} of a {self.family}: {key} must be {expected}, found {short(found)}")

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1. Without a default it must be there."""
        value = self.config.get(key)
        if value is None:
            if default is None:
                raise WeightsError(f"{self.file} of a {self.family} lacks {key}")
            return default
        if type(value) is not int or not 1 <= value <= MAX:
            raise self._error(key, f"from 1 to {MAX:,}", value)
        return value

    def sizes(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Whole numbers of at least 1, at least one of them."""
        values = self.config.get(key, default)
        if not isinstance(values, list | tuple) or not values:
            raise self._error(key, "a list of sizes", values)
        return tuple(ConfigReader({key: value}, self.family, self.file).size(key) for value in values)

    def index(self, key: str, default: int, count: int) -> int:
        """A whole number from 0 to ``count`` - 1."""
        value = self.config.get(key, default)
        if type(value) is not int or not 0 <= value < count:
            raise self._error(key, f"from 0 to {count - 1:,}", value)
        return value

    def real(self, key: str, default: float) -> float:
        """A positive number."""
        value = self.config.get(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self._error(key, "a positive number", value)
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.config.get(key, default)
        if type(value) is not bool:
            raise self._error(key, "true or false", value)
        return value

    def one_of(self, key: str, values: tuple[str, ...], default: str) -> str:
        """One of some words."""
        value = self.config.get(key, default)
        if value not in values:
            raise self._error(key, " or ".join(map(repr, values)), value)
        return str(value)

    def section(self, key: str) -> Mapping[str, Any]:
        """An object of more settings; empty if it is not there."""
        value = self.config.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self._error(key, "an object", value)
        return value or {}

    def expect(self, key: str, value: Any) -> None:
        """Refuse a variant that the model does not compute."""
        if self.config.get(key, value) != value:
            raise self._error(key, repr(value), self.config[key])

    def heads(self) -> tuple[int, int]:
        """Query heads, and key heads, which divide them."""
        heads = self.size("num_attention_heads")
        kv_heads = self.size("num_key_value_heads", heads)
        if heads % kv_heads:
            raise self._error("num_key_value_heads", f"a divisor of the {heads} heads", kv_heads)
        return heads, kv_heads

    def head_dim(self) -> int:
        """Features of a head, an even number: as reader, or an equal share of the width."""
        width, heads = self.size("hidden_size"), self.size("num_attention_heads")
        size = self.size("head_dim", width // heads if width % heads == 0 else None)
        if size % 2:
            raise self._error("head_dim", "even", size)
        return size

    def rope(self) -> tuple[float, dict[str, Any] | None]:
        """Base and scaling of rotary frequencies, from ``rope_parameters``, or ``rope_theta`` and ``rope_scaling``."""
        # In the order in which Transformers 5 asks for them.
        parameters = self.config.get("rope_scaling") or self.config.get("rope_parameters")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise self._error("rope_scaling", "an object", parameters)
        scaling = self._rope_of_all_layers(parameters or {})
        both = ConfigReader({**self.config, **scaling}, self.family, self.file)
        theta = both.real("rope_theta", 10000.0)
        if theta <= 1 or both.real("partial_rotary_factor", 1.0) != 1.0:
            raise self._error("rope_theta", "above 1, and partial_rotary_factor 1", self.config.get("rope_theta"))
        trained = self.config.get("original_max_position_embeddings")
        if trained is not None and scaling.get("rope_type", scaling.get("type")) in ("llama3", "yarn"):
            scaling["original_max_position_embeddings"] = trained
        return theta, scaling or None

    def _rope_of_all_layers(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of rotary positions, which may stand under each kind of layer, if they are the same for all."""
        kinds = self.config.get("layer_types")
        nested = {kind for kind in kinds if isinstance(kind, str)} if isinstance(kinds, list) else set()
        if not nested & parameters.keys():
            return dict(parameters)
        found = [parameters.get(kind) for kind in sorted(nested)]
        if not isinstance(found[0], Mapping) or any(each != found[0] for each in found):
            raise self._error("rope_parameters", "the same for every kind of layer", parameters)
        return dict(found[0])

    def biases(self, keys: Mapping[str, tuple[str, ...]], always: tuple[str, ...] = ()) -> frozenset[str]:
        """Which projections of a layer have biases.

        Args:
            keys: flags of the config, and the projections that each is for; all are without where it does not say.
            always: those that have one whatever the config says.
        """
        listed = self.config.get("biases")  # of a GGUF file: what it has
        if listed is not None:
            return frozenset(listed) | frozenset(always)
        return frozenset(always).union(*(names for key, names in keys.items() if self.flag(key, False)))

    def windows(self, layers: int) -> tuple[int | None, ...]:
        """The sliding window of each layer, as Qwen's configs say it; None for a layer that sees everything."""
        window = self.size("sliding_window", MAX) if self.flag("use_sliding_window", False) else MAX
        first = self.config.get("max_window_layers", 28)
        kinds = self.config.get("layer_types")
        if kinds is None and type(first) is int:
            kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
        if not isinstance(kinds, list) or len(kinds) != layers or set(kinds) - {"sliding_attention", "full_attention"}:
            raise self._error("layer_types", f"a list of {layers} kinds of attention", kinds)
        return tuple(window if kind == "sliding_attention" and window < MAX else None for kind in kinds)
