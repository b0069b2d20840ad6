"""Frequencies of rotary embeddings, and the ways by which models stretch them over longer contexts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tallow.errors import WeightsError

Array = np.ndarray[Any, Any]
SCALINGS = ("default", "linear", "llama3", "yarn", "factors")


def rotary_frequencies(
    dim: int, theta: float = 10000.0, scaling: Mapping[str, Any] | None = None, context: int = 0
) -> tuple[Array, float]:
    """The angle by which each pair of features turns from one position to the next.

    Args:
        dim: features of a head; even.
        theta: base, ``theta ** (-2i / dim)``.
        scaling: as a checkpoint's config has it (``rope_parameters`` or ``rope_scaling``), with its ``rope_type``:
            ``"default"``; ``"linear"``, all divided by ``factor``; ``"llama3"``, slow ones divided, fast ones kept, a
            ramp between; ``"yarn"`` likewise by the number of turns, with an attention factor; ``"factors"``, each
            divided by its own (GGUF's ``rope_freqs``), with an attention factor if it has one. None is the default.
        context: positions that the model was trained for, where the scaling does not say.

    Returns:
        (dim / 2,) float32, and the factor of cosines and sines.

    Raises:
        WeightsError: for a scaling that Tallow has not, or one whose numbers are missing or impossible.

    Source: Su et al. 2021, "RoFormer"; Peng et al. 2023, "YaRN", section 3; Llama 3.1's release (2024).
    """
    base = theta ** (-np.arange(0, dim, 2) / dim)
    said = _Numbers(scaling or {}, context)
    kind = said.scaling.get("rope_type", said.scaling.get("type", "default"))
    attention = 1.0
    if kind == "linear":
        base = base / said.number("factor")
    elif kind == "llama3":
        base = _llama3(base, said)
    elif kind == "yarn":
        base, attention = _yarn(base, said, dim, theta)
    elif kind == "factors":
        base, attention = base / said.list("factors", dim // 2), said.number("attention_factor", 1.0)
    elif kind not in (None, "default"):
        raise WeightsError(f"RoPE scaling of type {kind!r}; Tallow computes {', '.join(SCALINGS)}")
    return base.astype(np.float32), attention


def _llama3(base: Array, said: _Numbers) -> Array:
    factor, low, high = said.number("factor"), said.number("low_freq_factor"), said.number("high_freq_factor")
    if not low < high:
        raise WeightsError(f"RoPE scaling llama3: low_freq_factor {low} must be below high_freq_factor {high}")
    turns = said.trained() * base / (2 * math.pi)  # in the context that the model was first trained on
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return base * (kept + (1 - kept) / factor)


def _yarn(base: Array, said: _Numbers, dim: int, theta: float) -> tuple[Array, float]:
    factor, trained = said.number("factor"), said.trained()

    def pair_that_turns(times: float) -> float:
        return dim * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_that_turns(said.number("beta_fast", 32)), pair_that_turns(said.number("beta_slow", 1))
    if said.scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    ramp = np.clip((np.arange(dim // 2) - first) / (last - first if last != first else 0.001), 0, 1)
    return base * (1 - ramp + ramp / factor), said.number("attention_factor", said.yarn_attention(factor))


class _Numbers:
    """A scaling's numbers, checked one by one."""

    def __init__(self, scaling: Mapping[str, Any], context: int) -> None:
        self.scaling = scaling
        self.context = context

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value: Any = self.scaling.get(key)
        value = default if value is None else value
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise WeightsError(f"RoPE scaling: {key} must be a positive number, found {value!r}")
        return float(value)

    def trained(self) -> float:
        """Positions that the model was first trained on."""
        return self.number("original_max_position_embeddings", self.context)

    def list(self, key: str, length: int) -> Array:
        """Positive numbers, one for each pair of features."""
        values = np.asarray(self.scaling.get(key), dtype=np.float64)
        if values.shape != (length,) or not (np.isfinite(values) & (values > 0)).all():
            raise WeightsError(f"RoPE scaling: {key} must be {length} positive numbers, found shape {values.shape}")
        return values

    def yarn_attention(self, factor: float) -> float:
        """YaRN's factor of cosines and sines, from the scaling or from its exceptions ``mscale``."""

        def scale(weight: float) -> float:
            return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1

        over, under = self.scaling.get("mscale"), self.scaling.get("mscale_all_dim")
        return scale(self.number("mscale")) / scale(self.number("mscale_all_dim")) if over and under else scale(1.0)
