"""One step of decoding: read the newest tokens, and say what may follow them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow import ops
from tallow.device import CPU
from tallow.errors import CaptureError
from tallow.ops import KVCache
from tallow.runtime.capture import Recording
from tallow.runtime.cards import Arriving
from tallow.runtime.sampling import Draws, Sampling
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from tallow.models.language_model import LanguageModel
    from tallow.runtime.kv_cache import DecoderCache

logger = logging.getLogger("tallow")
Array = np.ndarray[Any, Any]


class RecordedStep:
    """A step that reads one token a row: recorded when it is first taken, then replayed.

    It is recorded anew when the caches have other rows, and not at all where an operation cannot be.

    Args:
        function: ids (rows, 1) -> what follows; appends to the caches.
        caches: of all layers.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], caches: Sequence[KVCache]) -> None:
        self._function = function
        self._caches = caches
        self._device = caches[0].device
        self._ids = Tensor(np.zeros((0, 1), np.int64))
        self._recording: Recording[Tensor] | None = None
        self._lengths: Tensor | None = None  # that the recording reads; a cache whose rows are fewer has others
        self._recordable = True

    def __call__(self, ids: Sequence[int]) -> Tensor:
        """What the function gives for a token of each row; overwritten by the next step."""
        if self._recording is not None and self._lengths is self._caches[0].lengths:
            if self._device is CPU:
                self._ids.storage[:, 0] = ids
            else:
                self._ids.storage.set(np.array(ids)[:, None])
            return self._recording.replay()
        self._ids = Tensor(np.array(ids)[:, None]).to(self._device)
        if not self._recordable:
            return self._function(self._ids)
        function, read = self._function, self._ids  # without self: a cycle would keep the caches' memory
        held = [cache.lengths.storage.copy() for cache in self._caches]
        try:
            self._recording = Recording(lambda: function(read), self._device)
        except BaseException as error:  # Ctrl-C and a lack of memory too leave the caches as they were
            for cache, lengths in zip(self._caches, held, strict=True):
                cache.lengths.storage[...] = lengths
            if not isinstance(error, CaptureError):
                raise
            logger.debug("decoding goes on without a recording: %s", error)
            self._recordable = False
            return self._function(self._ids)
        self._lengths = self._caches[0].lengths
        return self._recording.result

    def again(self) -> Tensor | None:
        """Take the step once more, for the ids that the last one gave; None if it is not recorded for these rows.

        Only for a function whose result are ids (rows, 1) on a card.
        """
        if self._recording is None or self._lengths is not self._caches[0].lengths:
            return None
        self._ids.storage[...] = self._recording.result.storage
        return self._recording.replay()


class DecodeStep:
    """The step of a language model: a token of each row, or a few where the next ones were guessed.

    Args:
        model: whose step it is.
        cache: what its rows hold; they may change between steps.
        sampling: how the step may choose the next tokens by itself, where it can: the likeliest anywhere, others on a
            card. None to be given logits.
    """

    def __init__(self, model: LanguageModel, cache: DecoderCache, sampling: Sampling | None = None) -> None:
        self._model = model
        self._cache = cache
        self._on_card = cache.layers[0].device is not CPU
        self._sampling = sampling
        self._chooses = sampling is not None and (sampling.temperature == 0 or self._on_card)
        self._logits = RecordedStep(lambda ids: model.logits(model.hidden(ids, cache)).float(), cache.layers)
        self._chosen = self._logits
        self._draws: list[Draws] | None = None  # of the rows that the step was made for
        self._told: list[int] = []  # the tokens that the last call gave
        self._early: Arriving | None = None  # what follows them, asked for before the caller has

    def __call__(
        self, ids: Sequence[int], guesses: Sequence[Sequence[int]], draws: Sequence[Draws] = ()
    ) -> list[Sequence[Array | int]]:
        """Read each row's last token with the guesses behind it.

        Args:
            ids: a token of each row.
            guesses: for each row what may follow it; nothing if the step chooses.
            draws: for each row what fixes its random numbers, if the step may choose.

        Returns:
            For each row the logits after each of its tokens, (1 + guesses, vocab) float32, or the token chosen after
            its last. Logits are overwritten by the next step.
        """
        if self._chooses:
            return self._choose(list(ids), list(draws))
        if not any(guesses):
            return list(self._logits(ids).numpy())
        rows = [[id, *guess] for id, guess in zip(ids, guesses, strict=True)]
        width = max(map(len, rows))
        logits = self._read(rows, width).float().numpy()
        return [scores[width - len(row) :] for scores, row in zip(logits, rows, strict=True)]

    def _choose(self, ids: list[int], draws: list[Draws]) -> list[Sequence[Array | int]]:
        """The token after each row's. While the caller looks at it, a card goes on with the next step."""
        if draws != self._draws:
            self.take_back()
            self._chosen, self._draws = self._choosing(draws), draws
        if not self._on_card:
            return self._chosen(ids).storage.tolist()  # type: ignore[no-any-return]
        if self._early is None or ids != self._told:
            self.take_back()
            self._early = Arriving(self._chosen(ids))
        found, further = self._early, self._chosen.again()
        self._early = None if further is None else Arriving(further)
        rows: list[Sequence[Array | int]] = found.wait().tolist()  # (rows, 1)
        self._told = [int(row[0]) for row in rows]
        return rows

    def _choosing(self, draws: list[Draws]) -> RecordedStep:
        """The step (rows, 1) -> (rows, 1) for rows with these draws."""
        model, cache, sampling = self._model, self._cache, self._sampling
        assert sampling is not None
        if sampling.temperature == 0:
            return RecordedStep(lambda ids: ops.argmax(model.logits(model.hidden(ids, cache)), axis=-1), cache.layers)
        first = cache.layers[0]
        fixed = Tensor(np.array(draws, np.uint64)).to(first.device)
        options = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p", "min_p")}

        def choose(ids: Tensor) -> Tensor:
            logits = model.logits(model.hidden(ids, cache))[:, -1]
            return ops.sample(logits, fixed, first.held, **options).unsqueeze(1)

        return RecordedStep(choose, cache.layers)

    def take_back(self) -> None:
        """Forget a step that was begun early. To be called before the rows are changed, and at the end."""
        if self._early is not None:
            self._early.wait()  # the memory that it comes into is lent to others afterwards
            self._early = None
            self._cache.truncate((self._cache.lengths - 1).tolist())

    def _read(self, rows: Sequence[Sequence[int]], width: int) -> Tensor:
        padded = np.array([[0] * (width - len(row)) + list(row) for row in rows])
        counts = [len(row) for row in rows]
        hidden = self._model.hidden(Tensor(padded), self._cache, None if min(counts) == width else counts)
        return self._model.logits(hidden)
