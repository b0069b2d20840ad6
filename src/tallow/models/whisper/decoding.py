"""From one encoded window to its tokens: greedy, sampling, beam search.

All three drive a `Decoder`, which keeps the keys and values of a few candidate rows, and score what it offers as
OpenAI's implementation does. A candidate's score is the sum of its tokens' log-probabilities, the end included.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tallow.models.whisper.rules import Rules

Array = np.ndarray[Any, Any]


class Decoder(Protocol):
    """The model's decoder at work on one window: rows of candidates, and their keys and values."""

    def start(self, prompt: Sequence[int], positions: Sequence[int]) -> Array:
        """Read the prompt as one row. Returns the logits at some of its positions, (positions, vocabulary) float32."""

    def step(self, ids: Sequence[int]) -> Array:
        """Read one more token in each row. Returns the logits that follow, (rows, vocabulary) float32, to change."""

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may come more than once, or no more."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoding of one window.

    Attributes:
        tokens: ids of text and timestamps, without the end.
        score: sum of log-probabilities, the end included.
        no_speech_prob: probability of ``<|nospeech|>`` right after the start token.
    """

    tokens: list[int]
    score: float
    no_speech_prob: float

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability of a token, the end counted as one."""
        return self.score / (len(self.tokens) + 1)


@dataclass(frozen=True, slots=True)
class Search:
    """How to choose among continuations.

    Attributes:
        temperature: 0 takes the likeliest token, or searches by beams; above 0 samples.
        beam_size: candidates kept at temperature 0; 1 is greedy.
        best_of: independent samples at a temperature above 0, of which the likeliest is kept.
        patience: beam search goes on until ``beam_size * patience`` candidates have ended.
        length_penalty: exponent of ((5 + length) / 6), by which scores are divided; None divides by the length.
    """

    temperature: float = 0.0
    beam_size: int = 1
    best_of: int = 1
    patience: float = 1.0
    length_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the decoder reads before it writes.

    Attributes:
        ids: the tokens, among them the start token.
        start: position of the start token.
        no_speech: id of the token whose probability there says that nobody speaks.
        end: id of the token that ends a transcript.
        limit: most tokens to write.
    """

    ids: list[int]
    start: int
    no_speech: int
    end: int
    limit: int


def decode(decoder: Decoder, prompt: Prompt, rules: Rules, search: Search, rng: random.Random) -> Decoded:
    """Decode one window.

    Args:
        decoder: fresh, or used before on the same window.
        prompt: what to read first.
        rules: what may not be written.
        search: how to choose.
        rng: where samples come from, at temperatures above 0.
    """
    at_start, first = decoder.start(prompt.ids, [prompt.start, len(prompt.ids) - 1])
    no_speech = float(np.exp(log_softmax(at_start)[prompt.no_speech]))
    if search.temperature == 0 and search.beam_size > 1:
        candidates = _beam_search(decoder, prompt, rules, search, first[None])
    else:
        candidates = _follow(decoder, prompt, rules, search, first[None], rng)
    tokens, score = max(candidates, key=lambda c: c[1] / _penalty(len(c[0]), search.length_penalty))
    return Decoded(tokens, score, no_speech)


Candidate = tuple[list[int], float]


def _penalty(length: int, exponent: float | None) -> float:
    return float(max(length, 1)) if exponent is None else ((5 + length) / 6) ** exponent


def _follow(
    decoder: Decoder, prompt: Prompt, rules: Rules, search: Search, logits: Array, rng: random.Random
) -> list[Candidate]:
    """Greedy at temperature 0, else ``best_of`` independent samples."""
    count = 1 if search.temperature == 0 else search.best_of
    if count > 1:
        decoder.select([0] * count)
        logits = np.repeat(logits, count, axis=0)
    tokens: list[list[int]] = [[] for _ in range(count)]
    scores = [0.0] * count
    ended = [False] * count
    for written in range(1, prompt.limit + 1):
        rules.apply(logits, tokens)
        for row in range(count):
            if ended[row]:
                continue
            id = _choose(logits[row], search.temperature, rng)
            scores[row] += (
                float(log_softmax(logits[row])[id]) if search.temperature else _likeliest_logprob(logits[row])
            )
            ended[row] = id == prompt.end
            if not ended[row]:
                tokens[row].append(id)
        if all(ended) or written == prompt.limit:
            break
        logits = decoder.step([prompt.end if over else ids[-1] for ids, over in zip(tokens, ended, strict=True)])
    return list(zip(tokens, scores, strict=True))


def _choose(logits: Array, temperature: float, rng: random.Random) -> int:
    """The likeliest id, or one drawn from softmax(logits / temperature)."""
    if temperature == 0:
        return int(logits.argmax())
    cumulative = np.cumsum(np.exp((logits - logits.max()) / temperature), dtype=np.float64)
    total = cumulative[-1]
    drawn = np.searchsorted(cumulative, rng.random() * total, side="right")  # never an impossible, empty interval
    return int(min(drawn, np.searchsorted(cumulative, total)))  # the product may round up to the total


def _beam_search(decoder: Decoder, prompt: Prompt, rules: Rules, search: Search, logits: Array) -> list[Candidate]:
    """Keep the ``beam_size`` likeliest unfinished candidates; stop when enough have ended (Kasai et al. 2022)."""
    wanted = max(1, round(search.beam_size * search.patience))
    beams: list[Candidate] = [([], 0.0)]
    ended: list[Candidate] = []
    for written in range(1, prompt.limit + 1):
        rules.apply(logits, [tokens for tokens, _ in beams])
        offers = []  # score, row, id
        for row, (_, score) in enumerate(beams):
            logprobs = log_softmax(logits[row])
            offers += [(score + float(logprobs[id]), row, int(id)) for id in top(logprobs, search.beam_size + 1)]
        offers.sort(key=lambda offer: -offer[0])

        kept: list[tuple[float, int, int]] = []
        for score, row, id in offers:
            if score == -np.inf or len(kept) == search.beam_size:
                break
            if id != prompt.end:
                kept.append((score, row, id))
            elif len(ended) < wanted:
                ended.append((beams[row][0], score))
        beams = [([*beams[row][0], id], score) for score, row, id in kept]
        if not beams or len(ended) >= wanted or written == prompt.limit:
            break
        decoder.select([row for _, row, _ in kept])
        logits = decoder.step([id for _, _, id in kept])
    missing = max(0, search.beam_size - len(ended))
    return ended + beams[:missing]  # beams are in order of their scores


def log_softmax(logits: Array) -> Array:
    """Logarithms of the probabilities along the last axis, float32."""
    shifted: Array = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _likeliest_logprob(logits: Array) -> float:
    """Log-probability of the likeliest token: log_softmax at the argmax, without the rest of it."""
    return -float(np.log(np.exp(logits - logits.max()).sum()))


def top(values: Array, count: int) -> Array:
    """Indices of the largest values of a vector, largest first; of equal ones the first.

    Only the blocks with the largest maxima are looked into: partitioning a whole vocabulary takes twenty times longer.
    """
    block = 64
    whole = len(values) // block * block
    if whole < count * block:
        return np.argsort(-values, kind="stable")[:count]
    blocks = np.argsort(-values[:whole].reshape(-1, block).max(axis=1), kind="stable")[:count]
    places = np.concatenate(
        [(np.sort(blocks)[:, None] * block + np.arange(block)).ravel(), np.arange(whole, len(values))]
    )
    return places[np.argsort(-values[places], kind="stable")[:count]]
