"""A conversation that does not read again what it has read."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tallow.device import CPU
from tallow.engine.kv_cache import DecoderCache
from tallow.engine.request import Request
from tallow.engine.step import Decoder
from tallow.errors import ArgumentError
from tallow.text.chat_template import conversation

if TYPE_CHECKING:
    from tallow.engine.network import Conversing, Network


class Session:
    """A model's memory of one conversation: what a prompt shares with the one before is not computed again.

    Made by ``llm.session()``. It belongs to one caller at a time; the model itself may be shared. A new turn ends the
    stream of the one before.

    Args:
        model: the model.
        cache_dtype: how keys and values are stored; see ``LanguageModel.new_cache``.

    Attributes:
        messages: of the conversation so far, the assistant's included; may be changed.
    """

    def __init__(self, model: Conversing, cache_dtype: str = "auto") -> None:
        self._model = model
        self._cache_dtype = cache_dtype
        self._cache: DecoderCache | None = None
        self._step: Decoder | None = None  # over the cache, on a card; not while an answer is written
        self._request: Request | None = None
        self._pieces: weakref.ref[Generator[Any, None, None]] | None = None  # of its answer
        self.messages: list[dict[str, Any]] = []

    def generate(self, prompt: str | Sequence[int], **options: Any) -> Any:
        """As ``LanguageModel.generate``, for one prompt."""
        if not isinstance(prompt, str) and any(not isinstance(id, int) for id in prompt):
            raise ArgumentError("session.generate: a session follows one prompt, not a list of them")
        return self._model.generate(prompt, session=self, **options)

    def chat(self, messages: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], **options: Any) -> Any:
        """Say something and get an answer; both are added to ``messages``.

        Args:
            messages: what the user says; or a message, or several, such as results of tools.
            options: as of ``LanguageModel.chat``.
        """
        said = conversation([messages] if isinstance(messages, Mapping) else messages)
        return self._model.chat([*self.messages, *said], session=self, **options)

    def reset(self) -> None:
        """Forget the conversation. The memory for it is kept."""
        self._end()
        self.messages.clear()
        self._request = None
        if self._cache is not None:
            self._cache.truncate(0)

    def check(self, model: Network, prompts: int) -> None:
        """Raise ArgumentError if a call with this session has several prompts, or is another model's."""
        if prompts != 1:
            raise ArgumentError(
                f"session=: a session follows one prompt or conversation, found {prompts}; "
                "ask one at a time, each with a session of its own, or all without one"
            )
        if model is not self._model:
            raise ArgumentError(
                "session=: this session was made by another model; llm.session() makes one for this model"
            )

    def take(self, prompt: Sequence[int], answer: int) -> tuple[Decoder, int]:
        """A step over the session's cache, cut back to what it shares with a prompt, and how many tokens that are.

        At least one token of the prompt is left to be read, since what comes next follows from reading it.

        Args:
            prompt: ids.
            answer: tokens that it may have.

        Raises:
            ArgumentError: if another thread is in the middle of an answer.
            OutOfMemoryError: if there is no room for them.
        """
        self._end()
        if self._cache is None:
            self._cache = self._model.new_cache(1, self._room(len(prompt) + answer), self._cache_dtype)
        shared = 0
        if self._request is not None:
            # A guess that was never checked may lie behind the last token that counts.
            known = (self._request.prompt + self._request.ids)[:-1]
            most = min(len(known), len(prompt) - 1, int(self._cache.lengths[0]))
            while shared < most and known[shared] == prompt[shared]:
                shared += 1
        self._cache.truncate(shared)
        if self._cache.capacity < len(prompt) + answer:
            self._step = None  # recorded over the memory that the cache leaves
            self._cache.grow(self._room(max(len(prompt) + answer, 2 * self._cache.capacity)))
        step, self._step = self._step or Decoder(self._model, self._cache), None
        return step, shared

    def keep(self, step: Decoder) -> None:
        """Hand back what ``take`` gave, for the next turn. On the CPU it is made in no time, and would hold memory."""
        self._step = None if step.cache.device is CPU else step

    def _room(self, wanted: int) -> int:
        """Positions to make room for: on the CPU all that there can be, for they cost nothing before they are used."""
        return self._model.context if self._model.device is CPU else min(wanted, self._model.context)

    def follow(self, request: Request, pieces: Generator[Any, None, None]) -> None:
        """Say what the cache will hold, and what writes it."""
        self._request, self._pieces = request, weakref.ref(pieces)

    def _end(self) -> None:
        """Have the last answer hand back the step, if somebody still reads it."""
        pieces = None if self._pieces is None else self._pieces()
        if pieces is None:
            return
        try:
            pieces.close()
        except ValueError:  # it runs
            raise ArgumentError(
                "a session belongs to one caller at a time, and another thread's answer is being written; "
                "each conversation has a session of its own, by llm.session()"
            ) from None
