"""Answers that are written while they are read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from tallow.engine.request import Request
from tallow.engine.result import Generation


class Stream(Iterator[Any]):
    """An iterator over pieces of text, always whole characters: strings, or (place, string) for a list of prompts.

    ``for piece in stream: print(piece, end="", flush=True)``; then ``stream.result()``. Leaving off early is allowed;
    as a context manager it writes no more after its block.

    Args:
        pieces: writes the answers.
        requests: the answers in the making.
        finish: makes a result out of what was written.
        single: whether there is one prompt, not a list.
    """

    def __init__(
        self,
        pieces: Generator[tuple[int, str], None, None],
        requests: Sequence[Request],
        finish: Callable[[Generation], Generation],
        single: bool,
    ) -> None:
        self._pieces = pieces
        self._requests = requests
        self._finish = finish
        self._single = single
        self._results: list[Generation] | None = None

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str | tuple[int, str]:
        try:
            row, text = next(self._pieces)
        except StopIteration:
            self.result()  # whoever waits for it, such as a session, gets it
            raise
        return text if self._single else (row, text)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Write no more; what was written is the result."""
        self._pieces.close()

    def result(self) -> Any:
        """The ``Generation``, or a list of them for a list of prompts. Writes what is missing first."""
        for _ in self._pieces:
            pass
        if self._results is None:
            self._results = [self._finish(request.result()) for request in self._requests]
        return self._results[0] if self._single else self._results
