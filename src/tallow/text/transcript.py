"""What a recording says: words, segments, the whole transcript, and its written forms.

The forms are those that OpenAI's Whisper writes: plain text, SubRip (SRT), WebVTT, tab-separated values, JSON.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tallow.errors import ArgumentError


@dataclass(slots=True)
class Word:
    """A word and when it is spoken.

    Attributes:
        start: seconds from the start of the recording.
        end: seconds from the start of the recording.
        text: the word as it stands in the text, with the space before it and the punctuation that belongs to it.
        probability: mean probability of its tokens, 0 to 1.
    """

    start: float
    end: float
    text: str
    probability: float


@dataclass(slots=True)
class Segment:
    """A phrase between two timestamps, and how sure the model was of it.

    Attributes:
        id: position in the transcript, from 0.
        start: seconds from the start of the recording.
        end: seconds from the start of the recording.
        text: what is said, usually with a space before it.
        tokens: the token ids, timestamps included.
        temperature: of the decoding that was kept.
        avg_logprob: mean log-probability of the tokens.
        compression_ratio: length of the text over its length compressed by zlib; high for text that repeats itself.
        no_speech_prob: probability that the window holds no speech.
        words: the words with their times, when word timestamps were asked for.
    """

    id: int
    start: float
    end: float
    text: str
    tokens: list[int] = field(default_factory=list)
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 1.0
    no_speech_prob: float = 0.0
    words: list[Word] = field(default_factory=list)


@dataclass(slots=True)
class Transcript:
    """A whole recording as text.

    Attributes:
        text: all that is said.
        segments: the phrases in order.
        language: ISO 639-1 code, for example ``"en"``.
        language_probability: how sure the model is of the language; 1.0 when the caller named it.
        duration: seconds of audio in the recording.
    """

    text: str
    segments: list[Segment]
    language: str
    language_probability: float = 1.0
    duration: float = 0.0

    def render(self, format: str = "txt") -> str:
        """The transcript as ``"txt"``, ``"srt"``, ``"vtt"``, ``"tsv"`` or ``"json"``; it ends with a line feed.

        Raises:
            ArgumentError: for another format.
        """
        return renderer(format)(self)

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """Write the transcript to a file, whole or not at all.

        Args:
            path: where to; an existing file is replaced.
            format: as for `render`; by default the suffix of ``path``.

        Raises:
            ArgumentError: for a format, or a suffix, that is none of the five.
            OSError: when the file cannot be written.
        """
        target = Path(path)
        content = self.render(format if format is not None else target.suffix.lstrip(".").lower())
        # A file of its own beside the target, moved over it when complete: an interruption leaves no half transcript.
        part = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            with open(part, "w", encoding="utf-8", newline="\n") as file:
                file.write(content)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def renderer(format: str) -> Callable[[Transcript], str]:
    """The function that writes a transcript in a format; ArgumentError for a format that there is not."""
    if format not in FORMATS:
        raise ArgumentError(f"unknown transcript format {format!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[format]


def timestamp(seconds: float, *, mark: str = ".", hours: bool = True) -> str:
    """A time as ``HH:MM:SS.mmm``.

    Args:
        seconds: from the start of the recording; negative counts as 0.
        mark: what stands before the milliseconds: ``"."`` in WebVTT, ``","`` in SRT.
        hours: write the hours even when they are 0.
    """
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    whole, minutes = divmod(minutes, 60)
    head = f"{whole:02d}:" if hours or whole else ""
    return f"{head}{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def txt(transcript: Transcript) -> str:
    """One line a segment."""
    return "".join(f"{text}\n" for _, _, text in _cues(transcript))


def srt(transcript: Transcript) -> str:
    """SubRip subtitles: numbered cues. ``-->`` in a text, which readers take for a line of times, becomes ``->``."""
    return "\n".join(
        f"{number}\n{timestamp(start, mark=',')} --> {timestamp(end, mark=',')}\n{_without_arrows(text)}\n"
        for number, (start, end, text) in enumerate(_cues(transcript), start=1)
    )


def vtt(transcript: Transcript) -> str:
    """WebVTT subtitles (W3C); ``&``, ``<`` and ``>`` are escaped, so that no text holds ``-->``, which none may."""
    cues = (
        f"\n{timestamp(start)} --> {timestamp(end)}\n"
        f"{text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}\n"
        for start, end, text in _cues(transcript)
    )
    return "WEBVTT\n" + "".join(cues)


def tsv(transcript: Transcript) -> str:
    """Tab-separated start, end (whole milliseconds) and text, with a header."""
    rows = (f"{round(s.start * 1000)}\t{round(s.end * 1000)}\t{_line(s)}\n" for s in transcript.segments)
    return "start\tend\ttext\n" + "".join(rows)


def to_json(transcript: Transcript) -> str:
    """Everything, as one JSON object; a number that JSON cannot hold (an infinity) becomes null."""
    return json.dumps(_finite(asdict(transcript)), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {"txt": txt, "srt": srt, "vtt": vtt, "tsv": tsv, "json": to_json}


def _line(segment: Segment) -> str:
    """The segment's text on one line: a line break or a tab inside it would break the cue or the row."""
    return " ".join(segment.text.split())


def _without_arrows(text: str) -> str:
    """A text without ``-->``, for a format that cannot escape it."""
    return re.sub("-{2,}>", "->", text)


def _cues(transcript: Transcript) -> list[tuple[float, float, str]]:
    """Start, end and text of what a subtitle shows: no empty text, and no cue shorter than a millisecond."""
    return [(s.start, max(s.end, s.start + 0.001), _line(s)) for s in transcript.segments if _line(s)]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
