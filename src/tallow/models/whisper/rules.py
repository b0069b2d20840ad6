"""What may come next: suppressed tokens, and the grammar of timestamps.

A transcript with timestamps reads ``<|0.00|> text<|2.40|><|2.40|> text<|5.12|>``: it begins with a timestamp, they come
in pairs except before the end, they never decrease, and no segment is empty. The rules are those of OpenAI's
implementation; all work on the last row of logits of each candidate, in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tallow.models.whisper.tokens import SECONDS_PER_TIMESTAMP, WhisperTokens

Array = np.ndarray[Any, Any]


class Rules:
    """The tokens that a decoding may not write next.

    Args:
        tokens: the special tokens.
        suppress: ids never to be written.
        suppress_first: ids not to be written first (a blank, the end).
        timestamps: whether the grammar of timestamps applies; without it no timestamp is written.
        max_initial_timestamp: seconds; the first timestamp may not be later. None: no limit.
    """

    def __init__(
        self,
        tokens: WhisperTokens,
        suppress: Iterable[int],
        suppress_first: Iterable[int],
        *,
        timestamps: bool,
        max_initial_timestamp: float | None,
    ) -> None:
        self.end, self.begin = tokens.end, tokens.timestamp_begin
        self.suppress = np.array(sorted({*suppress, tokens.no_timestamps}), dtype=np.intp)
        self.suppress_first = np.array(sorted(set(suppress_first)), dtype=np.intp)
        self.timestamps = timestamps
        self.last_initial = None
        if max_initial_timestamp is not None:
            self.last_initial = self.begin + round(max_initial_timestamp / SECONDS_PER_TIMESTAMP)

    def apply(self, logits: Array, histories: Sequence[Sequence[int]]) -> None:
        """Set the logits of what may not come next to minus infinity.

        Args:
            logits: (rows, vocabulary) float32, changed in place.
            histories: for each row the ids written so far, without the prompt.
        """
        logits[:, self.suppress] = -np.inf
        for row, history in zip(logits, histories, strict=True):
            if not history:
                row[self.suppress_first] = -np.inf
            if self.timestamps:
                self._apply_grammar(row, history)
            else:
                row[self.begin :] = -np.inf

    def _apply_grammar(self, row: Array, history: Sequence[int]) -> None:
        begin = self.begin
        if not history:
            row[:begin] = -np.inf
            if self.last_initial is not None:
                row[self.last_initial + 1 :] = -np.inf
            return
        after_timestamp = history[-1] >= begin
        pair_complete = after_timestamp and (len(history) < 2 or history[-2] >= begin)
        if pair_complete:
            row[begin:] = -np.inf
        elif after_timestamp:
            row[: self.end] = -np.inf
        latest = next((id for id in reversed(history) if id >= begin), None)
        if latest is not None:
            # A segment's end is later than its start; the next segment may start where this one ends.
            row[begin : latest if after_timestamp and not pair_complete else latest + 1] = -np.inf
        # If timestamps together are more likely than the likeliest word, it is time for one.
        if _log_sum_exp(row[begin:]) > row[:begin].max():
            row[:begin] = -np.inf


def _log_sum_exp(values: Array) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum())) if np.isfinite(top) else -np.inf
