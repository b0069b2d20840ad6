"""One step of decoding: read the newest tokens, and say what may follow them."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from tallow import ops
from tallow.device import CPU
from tallow.engine.result import Choice, token_logprobs
from tallow.engine.sampling import Sampler, Sampling
from tallow.errors import CaptureError, OutOfMemoryError
from tallow.ops import KVCache
from tallow.runtime.capture import Recording
from tallow.runtime.gpu import Arriving
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from tallow.engine.kv_cache import DecoderCache
    from tallow.engine.network import Network

logger = logging.getLogger("tallow")
Array = np.ndarray[Any, Any]
R = TypeVar("R", bound=Tensor | tuple[Tensor, Tensor])
_SETTINGS = ("temperature", "top_k", "top_p", "min_p")
MAX_RECORDINGS = 8
"""On a card, of one step: a batch of so many rows, which end one by one, is not recorded again for the next prompts."""


class _Recorded(NamedTuple):
    """A step as it was recorded for some rows.

    Attributes:
        lengths: of the first cache's rows, which it reads.
        ids: (rows, 1) that it reads.
        recording: of it.
    """

    lengths: Tensor
    ids: Tensor
    recording: Recording[Any]


_warned: set[str] = set()
"""Operations that a warning has named."""


def _warn_once(error: CaptureError) -> None:
    """Warn that steps are not recorded, once for each operation that keeps them from it."""
    operation = str(error).partition(" (")[0]  # without its operands' shapes
    if operation not in _warned:
        _warned.add(operation)
        logger.warning("each step of decoding goes through Python, which is slower than a recording: %s", error)


class CapturedStep(Generic[R]):
    """A step that reads one token a row: recorded when it is first taken, then replayed.

    It is recorded anew when the caches have other rows, whose lengths lie elsewhere, and not at all where an operation
    cannot be.

    Args:
        function: ids (rows, 1) -> what follows; appends to the caches.
        caches: of all layers.

    Attributes:
        recordable: whether it can be recorded, as far as is known.
    """

    def __init__(self, function: Callable[[Tensor], R], caches: Sequence[KVCache]) -> None:
        self._function = function
        self._caches = caches
        self._device = caches[0].device
        self._most = 1 if self._device is CPU else MAX_RECORDINGS
        self._known: dict[int, _Recorded] = {}  # by the id of the lengths that they read
        self.recordable = True

    def __call__(self, ids: Sequence[int]) -> R:
        """What the function gives for a token of each row; overwritten by the next step."""
        found = self._found()
        if found is None:
            return self._first(Tensor(np.array(ids)[:, None]).to(self._device))
        if self._device is CPU:
            found.ids.storage[:, 0] = ids
        else:
            found.ids.storage.set(np.array(ids)[:, None])
        return found.recording.replay()  # type: ignore[no-any-return]

    def again(self) -> R | None:
        """Take the step once more, for the ids that the last one gave; None if it is not recorded for these rows.

        Only for a function on a card whose result are ids (rows, 1), or begins with ids (rows, 1 or more) of which the
        first are meant.
        """
        found = self._found()
        if found is None:
            return None
        result = found.recording.result
        found.ids.storage[...] = (result[0] if isinstance(result, tuple) else result).storage[:, :1]
        return found.recording.replay()  # type: ignore[no-any-return]

    def _found(self) -> _Recorded | None:
        return self._known.get(id(self._caches[0].lengths))

    def _first(self, ids: Tensor) -> R:
        """Take the step for rows for which it is not recorded yet."""
        if not self.recordable:
            return self._function(ids)
        while len(self._known) >= self._most:
            del self._known[next(iter(self._known))]  # the oldest
        try:
            recording = self._record(ids)
        except CaptureError as error:
            _warn_once(error)
            self.recordable = False
            return self._function(ids)
        except OutOfMemoryError:  # what other models keep has been given up by now
            self._known.clear()
            recording = self._record(ids)
        lengths = self._caches[0].lengths
        self._known[id(lengths)] = _Recorded(lengths, ids, recording)
        return recording.result

    def _record(self, ids: Tensor) -> Recording[R]:
        """Take the step and record it. If that comes to nothing, be it by Ctrl-C, the caches are as they were."""
        function = self._function  # without self: a cycle would keep the caches' memory
        held = [cache.lengths.storage.copy() for cache in self._caches]
        try:
            return Recording(lambda: function(ids), self._device)
        except BaseException:
            for cache, lengths in zip(self._caches, held, strict=True):
                cache.lengths.storage[...] = lengths
            raise


class Decoder:
    """The step of a language model: a token of each row, or a few where the next ones were guessed.

    It may serve for several answers, one after the other, as long as whoever has it keeps the model.

    Args:
        model: whose step it is.
        cache: what its rows hold; they may change between steps.

    Attributes:
        cache: likewise.
    """

    def __init__(self, model: Network, cache: DecoderCache) -> None:
        self.cache = cache
        self._model: Any = weakref.proxy(model)  # it may keep the step; a cycle would keep the memory of both
        self._on_card = cache.device is not CPU
        self._chooses: str | None = None  # how the step chooses tokens: "argmax", "sample"; None if it does not
        self._logprobs: int | None = None
        self._recorded = self._recorded_step()
        self._draws: dict[str, Tensor] = {}  # what ``ops.sample`` takes, for as many rows as there can be
        self._samplers: list[Sampler] = []  # whose they are
        self._told: list[int] = []  # the tokens that the last call gave
        self._early: list[Arriving] | None = None  # what follows them, asked for before the caller has

    def begin(self, samplings: Sequence[Sampling] | None, logprobs: int | None = None) -> None:
        """Get ready for the next answers.

        Args:
            samplings: how the step may choose each row's next tokens by itself, where it can: the likeliest anywhere,
                others on a card. None to be given logits.
            logprobs: how many likeliest tokens to list beside each that the step has chosen; None for none.
        """
        chooses: str | None = None
        if samplings is not None:
            warm = any(sampling.temperature > 0 for sampling in samplings)
            chooses = "argmax" if not warm else "sample" if self._on_card else None
        if chooses is None:
            logprobs = None
        if (chooses, logprobs) != (self._chooses, self._logprobs):
            self._chooses, self._logprobs = chooses, logprobs
            self._recorded = self._recorded_step()

    @property
    def recordable(self) -> bool:
        """Whether it can be recorded, as far as is known."""
        return self._recorded.recordable

    def __call__(
        self, ids: Sequence[int], guesses: Sequence[Sequence[int]], samplers: Sequence[Sampler] = ()
    ) -> list[Sequence[Array | Choice]]:
        """Read each row's last token with the guesses behind it.

        Args:
            ids: a token of each row.
            guesses: for each row what may follow it; nothing if the step chooses.
            samplers: of each row, if the step may choose.

        Returns:
            For each row the logits after each of its tokens, (1 + guesses, vocab) float32, or the token chosen after
            its last, with its log-probability if that was asked for. Logits are overwritten by the next step.
        """
        if self._chooses is not None:
            return self._choose(list(ids), list(samplers))
        if not any(guesses):
            return list(self._recorded(ids).numpy())
        rows = [[id, *guess] for id, guess in zip(ids, guesses, strict=True)]
        width = max(map(len, rows))
        logits = self._read(rows, width).float().numpy()
        return [scores[width - len(row) :] for scores, row in zip(logits, rows, strict=True)]

    def _choose(self, ids: list[int], samplers: list[Sampler]) -> list[Sequence[Array | Choice]]:
        """The token after each row's. While the caller looks at it, a card goes on with the next step."""
        if not self._on_card:
            return _choices([part.storage for part in _parts(self._recorded(ids))])
        if self._chooses == "sample" and samplers != self._samplers:
            self.take_back()
            self._upload(samplers)
        if self._early is None or ids != self._told:
            self.take_back()
            self._early = _arriving(self._recorded(ids))
        found, further = self._early, self._recorded.again()
        self._early = None if further is None else _arriving(further)
        arrived = [part.wait() for part in found]
        self._told = arrived[0][:, 0].tolist()
        return _choices(arrived)

    def _recorded_step(self) -> CapturedStep[Any]:
        """What gives the logits (rows, 1, vocab), or the tokens chosen, for tokens (rows, 1).

        Tokens are (rows, 1), or with log-probabilities what ``ops.top_logprobs`` gives.
        """
        model, cache, chooses, logprobs = self._model, self.cache, self._chooses, self._logprobs
        if chooses is None:
            return CapturedStep(lambda ids: model.logits(model.forward(ids, cache)).float(), cache.layers)
        choose = self._chooser(chooses)

        def step(ids: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            logits = model.logits(model.forward(ids, cache))[:, -1]
            chosen = choose(logits)
            return chosen.unsqueeze(1) if logprobs is None else ops.top_logprobs(logits, chosen, logprobs)

        return CapturedStep(step, cache.layers)

    def _chooser(self, chooses: str) -> Callable[[Tensor], Tensor]:
        """What chooses tokens (rows,) by logits (rows, vocab)."""
        if chooses == "argmax":
            return lambda logits: ops.argmax(logits, axis=-1)
        cache = self.cache
        if not self._draws:
            rows = cache.max_rows
            arrays: dict[str, Array] = {name: np.ones(rows) for name in ("temperature", "top_p", "min_p")}
            arrays |= {"draws": np.zeros((rows, 3), np.uint64), "top_k": np.zeros(rows, np.int64)}
            self._draws = {name: Tensor(array).to(cache.device) for name, array in arrays.items()}
        fixed = self._draws

        def draw(logits: Tensor) -> Tensor:
            count = logits.shape[0]
            of_rows = {name: Tensor(each.storage[:count], each.device) for name, each in fixed.items()}
            return ops.sample(logits, lengths=cache.layers[0].held, **of_rows)

        return draw

    def _upload(self, samplers: list[Sampler]) -> None:
        """Have the card draw as these samplers of the rows would: no recording depends on how."""
        values: dict[str, list[Any]] = {name: [getattr(s.sampling, name) for s in samplers] for name in _SETTINGS}
        values["draws"] = [sampler.draws for sampler in samplers]
        for name, tensor in self._draws.items():
            tensor.storage[: len(samplers)].set(np.array(values[name], tensor.storage.dtype))
        self._samplers = samplers

    def take_back(self) -> None:
        """Forget a step that was begun early. To be called before the rows are changed, and at the end."""
        if self._early is not None:
            for part in self._early:
                part.wait()  # the memory that it comes into is lent to others afterwards
            self._early = None
            self.cache.truncate((self.cache.lengths - 1).tolist())

    def _read(self, rows: Sequence[Sequence[int]], width: int) -> Tensor:
        padded = np.array([[0] * (width - len(row)) + list(row) for row in rows])
        counts = [len(row) for row in rows]
        hidden = self._model.forward(Tensor(padded), self.cache, None if min(counts) == width else counts)
        return self._model.logits(hidden)  # type: ignore[no-any-return]


def _parts(result: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _arriving(result: Tensor | tuple[Tensor, Tensor]) -> list[Arriving]:
    return [Arriving(part) for part in _parts(result)]


def _choices(parts: Sequence[Array]) -> list[Sequence[Array | Choice]]:
    """The tokens of each row, and their log-probabilities if there are any."""
    if len(parts) == 1:
        return parts[0].tolist()  # type: ignore[no-any-return]
    return [[choice] for choice in token_logprobs(*parts)]
