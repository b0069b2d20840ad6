"""From the tokens of a window to its segments, and to the place where the next window begins."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from tallow.models.whisper.tokens import WhisperTokens
from tallow.text.transcript import Segment


class Cut(NamedTuple):
    """A window cut into segments.

    Attributes:
        segments: with times from the start of the recording.
        onward: seconds into the window at which the next one begins.
        silent_after: whether the model said that nobody speaks after the last segment.
    """

    segments: list[Segment]
    onward: float
    silent_after: bool


def cut(ids: Sequence[int], tokens: WhisperTokens, *, offset: float, duration: float) -> Cut:
    """Cut a window's tokens where one timestamp follows another.

    What comes after the last pair of timestamps is unfinished: the next window begins there and holds it whole.

    Args:
        ids: what was decoded.
        tokens: tells text from timestamps.
        offset: seconds from the start of the recording to the window.
        duration: seconds of sound in the window.
    """
    begin = tokens.timestamp_begin
    stamped = [id >= begin for id in ids]
    cuts = [i for i in range(1, len(ids)) if stamped[i - 1] and stamped[i]]
    silent_after = stamped[-2:] == [False, True]  # one timestamp at the end, not a pair
    if not cuts:
        last = next((id for id in reversed(ids) if id > begin), None)
        end = duration if last is None else tokens.seconds(last)
        return Cut([_segment(ids, tokens, offset, offset + end)], duration, silent_after)

    edges = [0, *cuts, *([len(ids)] if silent_after else [])]
    segments = [
        _segment(ids[a:b], tokens, offset + tokens.seconds(ids[a]), offset + tokens.seconds(ids[b - 1]))
        for a, b in itertools.pairwise(edges)
    ]
    return Cut(segments, duration if silent_after else tokens.seconds(ids[edges[-1] - 1]), silent_after)


def confine(segments: Sequence[Segment], *, start: float, end: float) -> list[Segment]:
    """Segments and words with times within the sound that was heard, which the model's timestamps may lie beyond.

    A segment that begins behind the sound begins where the one before it ends; what then has no time left is dropped.

    Args:
        segments: of one window, in order; their times are changed.
        start: seconds from the start of the recording to the window.
        end: likewise to the end of its sound.
    """
    kept: list[Segment] = []
    for segment in segments:
        if segment.start >= end:
            segment.start = kept[-1].end if kept else start
        segment.end = min(segment.end, end)
        for word in segment.words or ():
            word.start, word.end = min(word.start, end), min(word.end, end)
        if segment.start < segment.end:
            kept.append(segment)
    return kept


def _segment(ids: Sequence[int], tokens: WhisperTokens, start: float, end: float) -> Segment:
    return Segment(id=0, start=start, end=end, text=tokens.text(ids), tokens=list(ids))
