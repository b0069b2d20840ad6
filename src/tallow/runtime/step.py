"""One step of decoding: read the newest tokens, and say what may follow them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow.errors import CaptureError
from tallow.runtime.capture import Recording
from tallow.runtime.kv_cache import DecoderCache
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from tallow.models.language_model import LanguageModel

logger = logging.getLogger("tallow")
Array = np.ndarray[Any, Any]


class DecodeStep:
    """The step of a model on a cache. Steps of one token a row are recorded the first time, and then replayed.

    Args:
        model: whose step it is.
        cache: what its rows hold; they may change between steps.
    """

    def __init__(self, model: LanguageModel, cache: DecoderCache) -> None:
        self._model = model
        self._cache = cache
        self._ids = Tensor(np.zeros((0, 1), np.int64))
        self._recording: Recording[Tensor] | None = None
        self._lengths: Any = None  # that the recording reads: another array after rows were exchanged
        self._recordable = True

    def __call__(self, ids: Sequence[int], guesses: Sequence[Sequence[int]]) -> list[Sequence[Array]]:
        """Read each row's last token with the guesses behind it.

        Args:
            ids: a token of each row.
            guesses: for each row what may follow it.

        Returns:
            For each row the logits after each of its tokens, (1 + guesses, vocab) float32. They are overwritten by the
            next step.
        """
        rows = [[id, *guess] for id, guess in zip(ids, guesses, strict=True)]
        width = max(map(len, rows))
        logits = self._single(ids) if width == 1 else self._read(rows, width)
        return [scores[width - len(row) :] for scores, row in zip(logits.numpy(), rows, strict=True)]

    def _read(self, rows: Sequence[Sequence[int]], width: int) -> Tensor:
        padded = np.array([[0] * (width - len(row)) + list(row) for row in rows])
        counts = [len(row) for row in rows]
        hidden = self._model.hidden(Tensor(padded), self._cache, None if min(counts) == width else counts)
        return self._model.logits(hidden)

    def _single(self, ids: Sequence[int]) -> Tensor:
        """One token a row: (rows, 1, vocab)."""
        if self._recording is not None and self._lengths is self._cache.lengths:
            self._ids.storage[:, 0] = ids
            return self._recording.replay()
        self._ids = Tensor(np.array(ids)[:, None])
        if self._recordable:
            held = self._cache.lengths.copy()
            try:
                self._recording = Recording(lambda: self._model.logits(self._model.hidden(self._ids, self._cache)))
                self._lengths = self._cache.lengths
                return self._recording.result
            except CaptureError as error:
                logger.debug("decoding goes on step by step: %s", error)
                self._recordable = False
                for layer in self._cache.layers:
                    layer.lengths.storage[...] = held
        return self._model.logits(self._model.hidden(self._ids, self._cache))
