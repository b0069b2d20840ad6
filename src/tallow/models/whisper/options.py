"""What a caller may ask of a transcription, checked before any work is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from tallow.errors import ArgumentError
from tallow.models.whisper.words import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of ``Whisper.transcribe``, which describes them."""

    language: str | None = None
    task: str = "transcribe"
    beam_size: int = 5
    best_of: int = 5
    patience: float = 1.0
    length_penalty: float | None = None
    temperature: float | Sequence[float] = TEMPERATURES
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    condition_on_previous_text: bool = True
    initial_prompt: str | None = None
    hotwords: str | None = None
    suppress_blank: bool = True
    suppress_tokens: Sequence[int] = (-1,)
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0
    word_timestamps: bool = False
    prepend_punctuations: str = PREPEND_PUNCTUATIONS
    append_punctuations: str = APPEND_PUNCTUATIONS
    clip_timestamps: str | Sequence[float] = ()
    hallucination_silence_threshold: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (good, wanted) in _WANTED.items():
            value = getattr(self, name)
            if not good(value):
                raise ArgumentError(f"{name} must be {wanted}; found {value!r}")
        if self.hallucination_silence_threshold is not None and not self.word_timestamps:
            raise ArgumentError("hallucination_silence_threshold needs word_timestamps=True")
        self.clips()

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures to try in turn."""
        return tuple(self.temperature) if isinstance(self.temperature, Collection) else (float(self.temperature),)

    def clips(self) -> list[tuple[float, float]]:
        """The stretches to transcribe, as pairs of seconds; the last may end at infinity.

        Raises:
            ArgumentError: if they are no numbers, or not in ascending order.
        """
        clips = self.clip_timestamps
        try:
            times = [float(time) for time in (clips.split(",") if isinstance(clips, str) else clips) if time != ""]
        except (TypeError, ValueError):
            raise ArgumentError(f"clip_timestamps must be seconds, start and end in turn; found {clips!r}") from None
        if not times:
            times = [0.0]
        if len(times) % 2:
            times.append(math.inf)
        if not all(0 <= a < b for a, b in zip(times[::2], times[1::2], strict=True)) or times != sorted(times):
            raise ArgumentError(f"clip_timestamps must ascend from 0 up, start and end in turn; found {clips!r}")
        return list(zip(times[::2], times[1::2], strict=True))


def _whole(value: Any, least: float = -math.inf) -> bool:
    return isinstance(value, Integral) and least <= int(value)


def _number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    return isinstance(value, Real) and least <= float(value) <= most


def _number_or_none(value: Any) -> bool:
    return value is None or _number(value)


def _seconds_or_none(value: Any) -> bool:
    return value is None or _number(value, 0)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _temperatures(value: Any) -> bool:
    values = value if isinstance(value, Collection) else [value]
    return len(values) > 0 and all(_number(item, 0) and item < math.inf for item in values)


def _ids(value: Any) -> bool:
    return isinstance(value, Collection) and all(_whole(id, -1) for id in value)


# Setting -> whether a value is one that it may have, and what it may be in words.
_WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "language": (_text_or_none, "a code or an English name, or None"),
    "beam_size": (lambda value: _whole(value, 1), "a whole number from 1 up"),
    "best_of": (lambda value: _whole(value, 1), "a whole number from 1 up"),
    "patience": (lambda value: _number(value, 0) and 0 < value < math.inf, "a number above 0"),
    "length_penalty": (lambda value: value is None or _number(value, 0, 1), "a number from 0 to 1, or None"),
    "temperature": (_temperatures, "a number from 0 up, or a list of them"),
    "compression_ratio_threshold": (_number_or_none, "a number, or None"),
    "logprob_threshold": (_number_or_none, "a number, or None"),
    "no_speech_threshold": (_number_or_none, "a number, or None"),
    "initial_prompt": (_text_or_none, "text, or None"),
    "hotwords": (_text_or_none, "text, or None"),
    "suppress_tokens": (_ids, "a list of token ids, or of -1 for the model's own"),
    "max_initial_timestamp": (_seconds_or_none, "seconds, or None"),
    "prepend_punctuations": (_text, "text"),
    "append_punctuations": (_text, "text"),
    "hallucination_silence_threshold": (_seconds_or_none, "seconds, or None"),
    "seed": (_whole, "a whole number"),
}
