"""Guesses at what comes next, by looking up what came after the same words before."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST, SHORTEST = 3, 2  # tokens that must agree


class PromptLookup:
    """Proposes the tokens that followed the last few tokens where these stood before.

    Guesses cost little and are checked by the model, so an answer is the same with and without them.

    Args:
        ids: of the prompt.

    Source: Saxena 2023, "Prompt lookup decoding".
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # some tokens -> the place behind their last occurrence
        for id in ids:
            self.add(id)

    def add(self, id: int) -> None:
        """Say what has come next."""
        place = len(self._ids)
        for length in range(SHORTEST, LONGEST + 1):
            if place >= length:
                self._after[tuple(self._ids[place - length :])] = place
        self._ids.append(id)

    def guess(self, most: int) -> list[int]:
        """Up to ``most`` tokens that may come next; none if the last tokens are new."""
        for length in range(LONGEST, SHORTEST - 1, -1):
            place = self._after.get(tuple(self._ids[-length:]))
            if place is not None and len(self._ids) >= length:
                return self._ids[place : place + most]
        return []
