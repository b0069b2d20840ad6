"""Text that was invented for silence: found by its improbable words, and left out.

The scores and conditions are those of OpenAI's implementation (``hallucination_silence_threshold``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tallow.models.whisper.words import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS
from tallow.text.transcript import Segment, Word

_PUNCTUATION = PREPEND_PUNCTUATIONS + APPEND_PUNCTUATIONS


def word_anomaly(word: Word) -> float:
    """How unlike speech a word is: improbable, shorter than 0.133 s, or longer than 2 s."""
    duration = word.end - word.start
    return (word.probability < 0.15) + max(0.0, 0.133 - duration) * 15 + max(0.0, duration - 2.0)


def is_anomaly(segment: Segment | None) -> bool:
    """Whether the first eight words of a segment are unlike speech."""
    if segment is None or not segment.words:
        return False
    words = [word for word in segment.words if word.text not in _PUNCTUATION][:8]
    score = sum(word_anomaly(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def leading_silence(segments: Sequence[Segment], offset: float, threshold: float) -> float | None:
    """Seconds of silence to skip before a first segment that is probably invented, or None to keep the segments."""
    first = next((segment for segment in segments if segment.words), None)
    if first is not None and is_anomaly(first) and first.start - offset > threshold:
        return first.start - offset
    return None


def first_invented(
    segments: Sequence[Segment], *, offset: float, duration: float, window: float, last_speech: float, threshold: float
) -> int | None:
    """The position of the first segment that is unlike speech with silence, or more such, on both sides.

    Args:
        segments: of the window, with their words.
        offset: seconds from the start of the recording to the window.
        duration: seconds of sound in the window.
        window: seconds in a full window.
        last_speech: seconds; where the last word before the window ends.
        threshold: seconds without words that count as silence.
    """
    spoken_until = last_speech
    for i, segment in enumerate(segments):
        if not segment.words:
            continue
        if is_anomaly(segment):
            following = next((later for later in segments[i + 1 :] if later.words), None)
            next_start = following.words[0].start if following else offset + duration
            silent_before = (
                segment.start - spoken_until > threshold or segment.start < threshold or segment.start - offset < 2.0
            )
            silent_after = (
                next_start - segment.end > threshold or is_anomaly(following) or offset + window - segment.end < 2.0
            )
            if silent_before and silent_after:
                return i
        spoken_until = segment.end
    return None


def resume_at(start: float, end: float, *, offset: float, content_end: float, threshold: float) -> float:
    """Where to go on after leaving out an invented segment: at its start, or nowhere (infinity) near the very end."""
    return math.inf if content_end - end < threshold else max(offset + 1.0, start)
