"""What a caller may ask of a transcription, checked before any work is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
        self._require(self.beam_size >= 1, "beam_size", "1 or more")
        self._require(self.best_of >= 1, "best_of", "1 or more")
        self._require(self.patience > 0, "patience", "more than 0")
        penalty = self.length_penalty
        self._require(penalty is None or 0 <= penalty <= 1, "length_penalty", "between 0 and 1, or None")
        good = self.temperatures and all(0 <= t < math.inf for t in self.temperatures)
        self._require(bool(good), "temperature", "a number from 0 up, or some of them")
        silence = self.hallucination_silence_threshold
        self._require(silence is None or silence >= 0, "hallucination_silence_threshold", "seconds, or None")
        if silence is not None and not self.word_timestamps:
            raise ArgumentError("hallucination_silence_threshold needs word_timestamps=True")
        self.clips()

    def _require(self, good: bool, name: str, wanted: str) -> None:
        if not good:
            raise ArgumentError(f"{name} must be {wanted}; found {getattr(self, name)!r}")

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures to try in turn."""
        return (self.temperature,) if isinstance(self.temperature, int | float) else tuple(self.temperature)

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
