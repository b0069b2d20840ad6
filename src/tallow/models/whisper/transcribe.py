"""A recording of any length: the window that slides along the timestamps, and what to do when a decoding fails.

OpenAI's procedure (transcribe.py): a window of 30 s is decoded; the next begins where its last finished segment ends.
A decoding that repeats itself, or that the model itself finds unlikely, is tried again at higher temperatures.
"""

from __future__ import annotations

import logging
import math
import random
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tallow.models.whisper import hallucination
from tallow.models.whisper.decoding import Decoded, Prompt, Search, decode
from tallow.models.whisper.options import Options
from tallow.models.whisper.segments import Cut, confine, cut
from tallow.models.whisper.words import align, place_words
from tallow.runtime.resident import use
from tallow.text.transcript import Segment, Transcript
from tallow.trace import span

if TYPE_CHECKING:
    from tallow.models.whisper.session import Sound
    from tallow.models.whisper.whisper import Whisper

logger = logging.getLogger("tallow")
Array = np.ndarray[Any, Any]
Progress = Callable[[float, float | None], None]

FRAMES_PER_SECOND = 100
FRAMES_PER_POSITION = 2  # mel frames to a position of the encoder's output
WINDOW_SECONDS = 30.0
_MEL_RANGE = 2.0  # a window's log-mel spans at most 8 decades, scaled by 1/4
_SILENCE = -0.75  # log-mel maximum of a window in which nothing sounds: 1e-7 of full scale in power, under any dither
_SHORTEST = 10  # frames; less than that at the end of a recording holds no word
_TEMPERATURE_TO_FORGET = 0.5  # text that was sampled above this is no guide for what follows


class Windows(Protocol):
    """A recording as log-mel windows (``media/mel.py``)."""

    def window(self, start: int) -> tuple[Array, int]:
        """The window from a frame on: (mels, 3000) float32, and how many of its frames hold sound, from the first."""

    @property
    def duration(self) -> float | None:
        """Seconds of sound, if that is known yet."""

    def close(self) -> None:
        """Stop reading."""


class Transcription:
    """The segments of a recording as they become ready: iterate over it, once. Close it if you stop before the end.

    Attributes:
        language: code of the language spoken, known from the first segment on.
        language_probability: how sure the model is of it; 1.0 if the caller named it, 0.0 if nobody speaks.
        duration: seconds of sound read so far; at the end, the recording's.
    """

    def __init__(self, model: Whisper, windows: Windows, options: Options, progress: Progress | None = None) -> None:
        tokens = model.tokens
        self.options = options
        self.language = "en" if options.language is None else tokens.check_language(options.language)
        self.language_probability = 0.0 if options.language is None and tokens.multilingual else 1.0
        self.duration = 0.0
        tokens.check_task(options.task)
        self._model = model
        self._tokens = tokens
        self._windows = windows
        self._progress = progress
        self._rng = random.Random(options.seed)
        self._rules = model.rules(options)
        self._context = self._encode(options.initial_prompt)
        self._hotwords = self._encode(options.hotwords)
        self._last_speech = 0.0
        self._segments = self._run()

    def __iter__(self) -> Iterator[Segment]:
        return self

    def __next__(self) -> Segment:
        return next(self._segments)

    def __enter__(self) -> Transcription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop: there are no more segments, and the recording is closed. Harmless when it has ended."""
        self._segments.close()
        self._windows.close()

    def result(self) -> Transcript:
        """Run to the end; the transcript of all segments that were not taken before."""
        segments = list(self)
        text = "".join(segment.text for segment in segments).strip()
        return Transcript(text, segments, self.language, self.language_probability, self.duration)

    def _encode(self, text: str | None) -> list[int]:
        return self._tokens.tokenizer.encode(" " + text.strip()) if text and text.strip() else []

    def _run(self) -> Generator[Segment, None, None]:
        try:
            yield from self._transcribe()
        finally:
            self._windows.close()

    def _transcribe(self) -> Iterator[Segment]:
        count, in_use = 0, use(self._model)
        for start, end in self.options.clips():
            seek, last = _frames(start), math.inf if end == math.inf else _frames(end)
            while seek < last:
                mel, frames = self._windows.window(seek)
                if last - seek < frames:
                    frames = int(last - seek)
                    mel[:, frames:] = mel[:, :frames].max() - _MEL_RANGE
                if frames < _SHORTEST:
                    break
                self.duration = max(self.duration, (seek + frames) / FRAMES_PER_SECOND)
                with in_use:  # and not while the reader has the segments, who may never come back
                    segments, seek = self._transcribe_window(mel, frames, seek)
                for segment in segments:
                    segment.id = count
                    count += 1
                    yield segment
                if self._progress:
                    self._progress(min(seek / FRAMES_PER_SECOND, self.duration), self._windows.duration)
        self.duration = self._windows.duration or self.duration

    def _transcribe_window(self, mel: Array, frames: int, seek: int) -> tuple[list[Segment], int]:
        """The segments of one window, and the frame at which the next begins."""
        if mel[:, :frames].max() < _SILENCE:
            return [], seek + frames
        sound = self._model.encode(mel)
        if self.language_probability == 0.0:
            self.language, self.language_probability = next(iter(self._model.language_probabilities(sound).items()))
        decoded, temperature = self._decode_with_fallback(sound)
        if self._is_silence(decoded):
            return [], seek + frames

        pieces = cut(decoded.tokens, self._tokens, offset=seek / FRAMES_PER_SECOND, duration=frames / FRAMES_PER_SECOND)
        segments, onward = pieces.segments, seek + _frames(pieces.onward)
        if self.options.word_timestamps:
            segments, onward = self._time_words(sound, pieces, frames, seek, onward)
        segments = [segment for segment in segments if segment.start != segment.end and segment.text.strip()]
        segments = confine(segments, start=seek / FRAMES_PER_SECOND, end=(seek + frames) / FRAMES_PER_SECOND)
        ratio = compression_ratio(self._tokens.text(decoded.tokens))
        for segment in segments:
            segment.temperature = temperature
            segment.avg_logprob = decoded.avg_logprob
            segment.no_speech_prob = decoded.no_speech_prob
            segment.compression_ratio = ratio
            self._context += segment.tokens
        if not self.options.condition_on_previous_text or temperature > _TEMPERATURE_TO_FORGET:
            self._context = []
        return segments, onward if onward > seek else seek + frames

    def _prompt(self) -> Prompt:
        """What went before, hotwords first, then the tokens that open a transcript."""
        tokens, context = self._tokens, self._model.config.max_target_positions
        most = context // 2 - 1
        hotwords = self._hotwords[:most]
        previous = self._context[-(most - len(hotwords)) :] if len(hotwords) < most else []
        before = [tokens.start_of_previous, *hotwords, *previous] if hotwords or previous else []
        timestamps = not self.options.without_timestamps
        ids = before + tokens.start_sequence(self.language, self.options.task, timestamps=timestamps)
        limit = min(context // 2, context - len(ids) + 1)
        return Prompt(ids, len(before), tokens.no_speech, tokens.end, limit)

    def _decode_with_fallback(self, sound: Sound) -> tuple[Decoded, float]:
        """Decode at rising temperatures until the result is good enough; the last one counts if none is."""
        options, prompt = self.options, self._prompt()
        session = self._model.session(sound, max(options.beam_size, options.best_of))
        for temperature in options.temperatures:
            search = Search(temperature, options.beam_size, options.best_of, options.patience, options.length_penalty)
            with span("decode", temperature=temperature):
                decoded = decode(session, prompt, self._rules, search, self._rng)
            reason = self._failure(decoded)
            if reason is None:
                break
            logger.debug("decoding at temperature %.1f failed: %s", temperature, reason)
        return decoded, temperature

    def _failure(self, decoded: Decoded) -> str | None:
        """Why a decoding should be tried again, or None."""
        options = self.options
        unlikely = options.logprob_threshold is not None and decoded.avg_logprob < options.logprob_threshold
        if (
            unlikely
            and options.no_speech_threshold is not None
            and decoded.no_speech_prob > options.no_speech_threshold
        ):
            return None  # silence: no temperature would bring words
        ratio = compression_ratio(self._tokens.text(decoded.tokens))
        if options.compression_ratio_threshold is not None and ratio > options.compression_ratio_threshold:
            return f"it repeats itself (compression ratio {ratio:.2f})"
        return f"it is unlikely (mean log-probability {decoded.avg_logprob:.2f})" if unlikely else None

    def _is_silence(self, decoded: Decoded) -> bool:
        """Whether the model thinks that nobody speaks, and has no good text to the contrary."""
        options = self.options
        if options.no_speech_threshold is None or decoded.no_speech_prob <= options.no_speech_threshold:
            return False
        return options.logprob_threshold is None or decoded.avg_logprob <= options.logprob_threshold

    def _time_words(self, sound: Sound, pieces: Cut, frames: int, seek: int, onward: int) -> tuple[list[Segment], int]:
        """Give the words their times, leave invented segments out, and go on where the last word ends."""
        options, segments = self.options, pieces.segments
        offset, duration = seek / FRAMES_PER_SECOND, frames / FRAMES_PER_SECOND
        ids = [id for segment in segments for id in segment.tokens if id < self._tokens.end]
        opening = self._tokens.start_sequence(self.language, options.task, timestamps=False)
        with span("align", tokens=len(ids)):
            read, positions = [*opening, *ids, self._tokens.end], max(1, frames // FRAMES_PER_POSITION)
            weights, logits = self._model.session(sound).align(read, self._model.generation.alignment_heads, positions)
            words = self._tokens.split_words(ids, self.language)
            spoken = align(words, weights, logits[:, : self._tokens.end], len(opening) - 1)
        place_words(
            segments,
            spoken,
            self._tokens,
            offset=offset,
            last_speech=self._last_speech,
            prepended=options.prepend_punctuations,
            appended=options.append_punctuations,
        )
        last = _last_word_end(segments)
        if not pieces.silent_after and last is not None and last > offset:
            onward = _frames(last)
        threshold = options.hallucination_silence_threshold
        if threshold is not None:
            if not pieces.silent_after and last is not None and last > offset:
                enough = offset + WINDOW_SECONDS - last > threshold
                onward = _frames(last) if enough else seek + frames
            gap = hallucination.leading_silence(segments, offset, threshold)
            if gap is not None:
                return [], seek + _frames(gap)
            found = hallucination.first_invented(
                segments, offset=offset, duration=duration, window=WINDOW_SECONDS, last_speech=self._last_speech,
                threshold=threshold,
            )  # fmt: skip
            if found is not None:
                end = self._windows.duration
                resume = hallucination.resume_at(
                    segments[found].start, segments[found].end, offset=offset, threshold=threshold,
                    content_end=math.inf if end is None else end,
                )  # fmt: skip
                onward = seek + frames if resume == math.inf else _frames(resume)
                segments = segments[:found]
        self._last_speech = _last_word_end(segments) or self._last_speech
        return segments, onward


def _frames(seconds: float) -> int:
    return round(seconds * FRAMES_PER_SECOND)


def _last_word_end(segments: list[Segment]) -> float | None:
    return next((segment.words[-1].end for segment in reversed(segments) if segment.words), None)


def compression_ratio(text: str) -> float:
    """Bytes of a text over its bytes compressed by zlib: above 2.4 it repeats itself. 0 for no text."""
    data = text.strip().encode()
    return len(data) / len(zlib.compress(data))
