"""Where an answer's text ends: stop strings, found across tokens, and never let out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tallow.text.tokenizer import Tokenizer


class TextUntilStop:
    """The text of an answer, token by token, up to the first stop string.

    What might be the beginning of a stop string is held back until it is clear.

    Args:
        tokenizer: None for ids without text.
        stops: strings that end the answer.
        prompt: the ids that the answer follows.
        keep_special: special tokens that count as text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        stops: Sequence[str] = (),
        prompt: Sequence[int] = (),
        keep_special: Collection[str] = (),
    ) -> None:
        self._stream = None if tokenizer is None else tokenizer.stream(prompt, keep_special)
        self._stops = stops
        self._held = ""
        self.text = ""
        self.stopped = False

    def add(self, id: int) -> str:
        """The text that this token adds, which may be empty. ``stopped`` tells whether a stop string has come."""
        if self._stream is None or self.stopped:
            return ""
        if not self._stops:
            piece = self._stream.add(id)
            self.text += piece
            return piece
        self._held += self._stream.add(id)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = self._held[: min(found)]
            return self._release(len(self._held))
        return self._release(len(self._held) - self._undecided())

    def end(self) -> str:
        """What was held back, when no more tokens come."""
        if self._stream is not None and not self.stopped:
            self._held += self._stream.end()
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        piece, self._held = self._held[:length], self._held[length:]
        self.text += piece
        return piece

    def _undecided(self) -> int:
        """How many of the last characters could begin a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
