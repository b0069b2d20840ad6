"""When each word is spoken: from the decoder's cross-attention to times.

Some heads of the decoder look at the place in the recording that they write about. Their attention, over text and time,
is sharpened, smoothed and averaged, and the cheapest monotonic path through it (dynamic time warping) says at which
encoder frame each token begins. The method and its corrections are those of OpenAI's implementation (timing.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tallow.models.whisper.decoding import log_softmax
from tallow.models.whisper.tokens import SECONDS_PER_TIMESTAMP, WhisperTokens
from tallow.text.transcript import Segment, Word

Array = np.ndarray[Any, Any]

PREPEND_PUNCTUATIONS = "\"'“¿([{-"
APPEND_PUNCTUATIONS = "\"'.。,，!！?？:：”)]}、"
_SENTENCE_ENDS = ".。!！?？"
_SMOOTHING = 7  # encoder frames in the median filter


@dataclass(slots=True)
class SpokenWord:
    """A word in a window.

    Attributes:
        text: with the space before it.
        tokens: its ids.
        start: seconds from the beginning of the window.
        end: seconds from the beginning of the window.
        probability: mean probability of its tokens.
    """

    text: str
    tokens: list[int]
    start: float
    end: float
    probability: float


def align(words: Sequence[tuple[str, list[int]]], weights: Array, logits: Array, first: int) -> list[SpokenWord]:
    """Give each word its time.

    Args:
        words: pairs of a word and its ids, together n ids.
        weights: (heads, first + n + 2, frames) attention of the tokens before the text, the text and the end; the
            frames that hold sound, 0.02 s each.
        logits: (first + n + 2, ids of text) of the same tokens; each says what comes after it.
        first: position of the token before the text.
    """
    ids = [id for _, tokens in words for id in tokens]
    if not ids:
        return []
    matrix = sharpen(weights).mean(axis=0)[first:-1]  # (n + 1, frames)
    starts = first_frames(-matrix) * SECONDS_PER_TIMESTAMP
    probabilities = np.exp(log_softmax(logits[first : first + len(ids)]))[np.arange(len(ids)), ids]
    edges = np.cumsum([0, *(len(tokens) for _, tokens in words)])
    return [
        SpokenWord(text, tokens, float(starts[a]), float(starts[b]), float(probabilities[a:b].mean()))
        for (text, tokens), a, b in zip(words, edges, edges[1:], strict=False)
    ]


def sharpen(weights: Array) -> Array:
    """Attention with each frame normalised over the tokens, then median-filtered over the frames."""
    deviation = weights.std(axis=-2, keepdims=True)
    normal = (weights - weights.mean(axis=-2, keepdims=True)) / np.maximum(deviation, np.finfo(np.float32).tiny)
    return median_filter(normal, _SMOOTHING)


def median_filter(values: Array, width: int) -> Array:
    """The median of ``width`` neighbours (odd) along the last axis; the ends are mirrored, their edge not repeated."""
    reach = width // 2
    if values.shape[-1] <= reach:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(reach, reach)], mode="reflect")
    length = values.shape[-1]
    lanes = [padded[..., i : i + length] for i in range(width)]
    for turn in range(width):  # odd-even transposition sort of the lanes: whole arrays at once
        for i in range(turn % 2, width - 1, 2):
            lanes[i], lanes[i + 1] = np.minimum(lanes[i], lanes[i + 1]), np.maximum(lanes[i], lanes[i + 1])
    return lanes[reach]


def first_frames(cost: Array) -> Array:
    """Dynamic time warping: the frame at which the cheapest monotonic path reaches each row.

    Args:
        cost: (rows, frames). The path goes from the first corner to the last, a step down, right or diagonal each.

    Returns:
        (rows,) integers that do not decrease.
    """
    rows, frames = cost.shape
    cost = np.nan_to_num(cost, posinf=0.0, neginf=0.0)
    total = np.full((rows + 1, frames + 1), np.inf)
    total[0, 0] = 0
    for i in range(1, rows + 1):
        # total[i, j] = cost[i, j] + min(above[j], total[i, j - 1]), where the sum along the row is taken out of the
        # recurrence: what is left is a running minimum.
        along = np.cumsum(cost[i - 1], dtype=np.float64)
        above = np.minimum(total[i - 1, :-1], total[i - 1, 1:])
        total[i, 1:] = along + np.minimum.accumulate(above - np.concatenate([[0.0], along[:-1]]))
    first = np.zeros(rows, dtype=np.intp)
    i, j = rows, frames
    while i > 0:
        first[i - 1] = j - 1
        diagonal, up, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        if diagonal < up and diagonal < left:
            i, j = i - 1, j - 1
        elif up < diagonal and up < left:
            i -= 1
        elif j > 1:
            j -= 1
        else:
            i, j = i - 1, max(j - 1, 1)
    return first


def merge_punctuation(words: list[SpokenWord], prepended: str, appended: str) -> list[SpokenWord]:
    """Join opening punctuation to the word after it and closing punctuation to the word before it.

    The joined word keeps its own times: punctuation takes none.
    """
    joined: list[SpokenWord] = []
    for word in reversed(words):
        if joined and word.text.startswith(" ") and word.text.strip() in prepended:
            joined[-1].text = word.text + joined[-1].text
            joined[-1].tokens = word.tokens + joined[-1].tokens
        else:
            joined.append(word)
    result: list[SpokenWord] = []
    for word in reversed(joined):
        if result and not result[-1].text.endswith(" ") and word.text in appended:
            result[-1].text += word.text
            result[-1].tokens = result[-1].tokens + word.tokens
        else:
            result.append(word)
    return result


def place_words(
    segments: Sequence[Segment],
    words: list[SpokenWord],
    tokens: WhisperTokens,
    *,
    offset: float,
    last_speech: float,
    prepended: str = PREPEND_PUNCTUATIONS,
    appended: str = APPEND_PUNCTUATIONS,
) -> float:
    """Hand the words of a window to its segments, and let the two correct each other's times.

    Args:
        segments: of the window, in order; their ``words``, ``start`` and ``end`` are set.
        words: as ``align`` returns them, for the text tokens of all the segments.
        tokens: tells text from timestamps.
        offset: seconds from the start of the recording to the window.
        last_speech: seconds; where the last word before this window ends.
        prepended: punctuation that belongs to the word after it.
        appended: punctuation that belongs to the word before it.

    Returns:
        Where the last word now ends, in seconds.
    """
    durations = [word.end - word.start for word in words if word.end != word.start]
    typical = min(0.7, float(np.median(durations))) if durations else 0.0
    if durations:
        _shorten_at_sentence_ends(words, 2 * typical)
    queue = merge_punctuation(words, prepended, appended)
    next_word = missing = 0
    for segment in segments:
        missing += sum(id < tokens.end for id in segment.tokens)  # below 0 where punctuation joined across segments
        segment.words = []
        while next_word < len(queue) and missing > 0:
            word = queue[next_word]
            start, end = round(offset + word.start, 2), round(offset + word.end, 2)
            segment.words.append(Word(start, end, word.text, word.probability))
            missing -= len(word.tokens)
            next_word += 1
        if segment.words:
            _shorten_after_pause(segment.words, last_speech, typical)
            _agree(segment, typical)
            last_speech = segment.end
    return last_speech


def _shorten_at_sentence_ends(words: Sequence[SpokenWord], longest: float) -> None:
    """A pause between sentences is given to neither the full stop nor the word after it."""
    for previous, word in itertools.pairwise(words):
        if word.end - word.start > longest:
            if word.text in _SENTENCE_ENDS:
                word.end = word.start + longest
            elif previous.text in _SENTENCE_ENDS:
                word.start = word.end - longest


def _shorten_after_pause(words: Sequence[Word], last_speech: float, typical: float) -> None:
    """The first two words after a pause are not longer than twice the typical word."""
    first, longest = words[0], 2 * typical
    second = words[1] if len(words) > 1 else None
    if first.end - last_speech <= 4 * typical:
        return
    too_long = first.end - first.start > longest
    if too_long or (second is not None and second.end - first.start > 2 * longest):
        if second is not None and second.end - second.start > longest:
            first.end = second.start = max(second.end / 2, second.end - longest)
        first.start = max(0.0, first.end - longest)


def _agree(segment: Segment, typical: float) -> None:
    """Where words and segment differ by more than half a second, the segment is right; else the words are."""
    first, last = segment.words[0], segment.words[-1]
    if segment.start < first.end and segment.start - 0.5 > first.start:
        first.start = max(0.0, min(first.end - typical, segment.start))
    else:
        segment.start = first.start
    if segment.end > last.start and segment.end + 0.5 < last.end:
        last.end = max(last.start + typical, segment.end)
    else:
        segment.end = last.end
