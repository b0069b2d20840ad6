"""Which token comes next: greedy, or drawn at random after penalties and cuts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tallow.errors import ArgumentError

Array = np.ndarray[Any, Any]
Draws = tuple[int, int, int]
"""What fixes an answer's random numbers: the seed, its place in the list, and the length of its prompt."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. What is listed later works on what the steps before it have left.

    Attributes:
        logit_bias: id -> number added to its logit.
        repetition_penalty: logits of tokens that stand in the prompt or the answer are divided by it if positive and
            multiplied by it if not; 1 for none (Keskar et al. 2019, "CTRL").
        presence_penalty: subtracted from the logits of tokens that the answer has; 0 for none.
        frequency_penalty: subtracted likewise, times how often the answer has them; 0 for none.
        temperature: logits are divided by it; 0 takes the likeliest token, and the rest does not matter.
        top_k: only the k likeliest tokens may come; 0 for all. Of equals at the edge, those with the lowest ids.
        top_p: only the likeliest tokens whose probabilities together reach it may come; 1 for all
            (Holtzman et al. 2019, "The curious case of neural text degeneration").
        min_p: only tokens at least this many times as probable as the likeliest may come; 0 for all
            (Nguyen et al. 2024, "Min-p sampling").
        seed: what fixes the draws, together with the prompt's place in the list of prompts; None for other draws each
            time.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    @property
    def plain(self) -> bool:
        """Whether the logits are taken as they are, whatever came before: no penalties, no bias."""
        return self.repetition_penalty == 1 and not (self.presence_penalty or self.frequency_penalty or self.logit_bias)

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0, math.inf)
        _check("top_p", self.top_p, 0, 1, open_below=True)
        _check("min_p", self.min_p, 0, 1)
        _check("repetition_penalty", self.repetition_penalty, 0, math.inf, open_below=True)
        _check("presence_penalty", self.presence_penalty, -math.inf, math.inf)
        _check("frequency_penalty", self.frequency_penalty, -math.inf, math.inf)
        if not _is_integer(self.top_k) or self.top_k < 0:
            raise ArgumentError(f"top_k must be a whole number from 0, found {self.top_k!r}")
        if self.seed is not None and not _is_integer(self.seed):
            raise ArgumentError(f"seed must be a whole number or None, found {self.seed!r}")
        for id, bias in self.logit_bias.items():
            if not _is_integer(id) or not isinstance(bias, (int, float)) or math.isnan(bias):
                raise ArgumentError(f"logit_bias must map token ids to numbers, found {id!r}: {bias!r}")


class Sampler:
    """Chooses the tokens of one answer.

    Args:
        sampling: how.
        prompt: ids before the answer.
        row: the prompt's place in the list of prompts, so that equal prompts get different draws.

    Attributes:
        sampling: how.
        draws: with which ``ops.sample`` goes on as this sampler would, one draw for each token of the answer.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int], row: int = 0) -> None:
        self.sampling = sampling
        seed = int.from_bytes(os.urandom(8), "little") if sampling.seed is None else sampling.seed
        self.draws: Draws = (seed % 2**64, row, len(prompt))
        if sampling.temperature > 0:  # else nothing is drawn, and NumPy's generators need not be imported
            self._generator = np.random.Generator(np.random.Philox(key=np.array(self.draws[:2], np.uint64)))
        self._seen = np.unique(np.asarray(prompt, np.int64)) if sampling.repetition_penalty != 1 else None
        self._counts: dict[int, int] = {}

    def choose(self, logits: Array) -> int:
        """The next token. The same sampler must be told of it by ``accept``.

        Args:
            logits: (vocab,) float32; not changed. Tokens at −inf cannot come, nor can those that are NaN if any is
                drawn.
        """
        adjusted = self._adjust(logits)
        if self.sampling.temperature == 0:
            return int(adjusted.argmax())
        ids, probabilities = candidates(adjusted, self.sampling)
        sums = probabilities.cumsum()
        drawn = self._generator.random() * sums[-1]
        return int(ids[min(int(sums.searchsorted(drawn, side="right")), len(ids) - 1)])

    def accept(self, id: int) -> None:
        """Say that a token has become part of the answer."""
        self._counts[id] = self._counts.get(id, 0) + 1

    def _adjust(self, logits: Array) -> Array:
        """Logits after bias and penalties: a copy if there are any."""
        s = self.sampling
        if s.plain:
            return logits
        logits = logits.copy()
        for id, bias in s.logit_bias.items():
            if not 0 <= id < len(logits):
                raise ArgumentError(f"logit_bias names token {id}; the model has {len(logits)}")
            logits[id] += np.float32(bias)
        said = np.fromiter(self._counts, np.int64, len(self._counts))
        if self._seen is not None:
            seen = np.union1d(self._seen, said)
            penalty = np.float32(s.repetition_penalty)
            logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        if len(said) and (s.presence_penalty or s.frequency_penalty):
            counts = np.fromiter(self._counts.values(), np.float32, len(said))
            logits[said] -= np.float32(s.presence_penalty) + np.float32(s.frequency_penalty) * counts
        return logits


def candidates(logits: Array, sampling: Sampling) -> tuple[Array, Array]:
    """The tokens that may come, and how probable each is.

    Args:
        logits: (vocab,) float32, penalties applied. What is NaN counts as −inf.
        sampling: temperature (above 0) and cuts.

    Returns:
        ids, the likeliest first if there are cuts; float64 probabilities, which need not sum to 1.
    """
    if np.isnan(logits.max()):
        logits = np.where(np.isnan(logits), np.float32(-np.inf), logits)
    ids = np.arange(len(logits))
    if 0 < sampling.top_k < len(logits):
        edge = np.partition(logits, len(logits) - sampling.top_k)[len(logits) - sampling.top_k]
        ids = np.flatnonzero(logits >= edge)
        ids = ids[np.argsort(-logits[ids], kind="stable")][: sampling.top_k]
    likely = logits[ids].astype(np.float64)
    highest = likely.max()
    with np.errstate(invalid="ignore"):  # of infinity less itself
        probabilities = np.where(likely == highest, 1.0, np.exp((likely - highest) / sampling.temperature))
    if sampling.top_p < 1:
        # A token this improbable cannot belong: all of them together weigh less than what is cut off.
        probable = probabilities >= probabilities.sum() * (1 - sampling.top_p) / len(ids)
        total = probabilities.sum()
        ids, probabilities = ids[probable], probabilities[probable]
        order = np.argsort(-probabilities, kind="stable")
        ids, probabilities = ids[order], probabilities[order]
        kept = int(np.searchsorted(probabilities.cumsum(), sampling.top_p * total)) + 1
        ids, probabilities = ids[:kept], probabilities[:kept]
    if sampling.min_p > 0:
        kept_mask = probabilities >= sampling.min_p * probabilities.max()
        ids, probabilities = ids[kept_mask], probabilities[kept_mask]
    return ids, probabilities


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check(name: str, value: Any, least: float, most: float, open_below: bool = False) -> None:
    """Refuse what is no number in a range."""
    number = isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)
    if not number or math.isinf(value) or not (least < value <= most if open_below else least <= value <= most):
        below = f"above {least:g}" if open_below else f"at least {least:g}"
        bounds = below + (f", at most {most:g}" if most != math.inf else "")
        raise ArgumentError(f"{name} must be {bounds if least != -math.inf else 'a number'}, found {value!r}")
