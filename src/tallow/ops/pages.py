"""Where the positions of a key/value cache lie on a card: in pages, which a table gives to rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tallow.device import Device
from tallow.tensor import Tensor

PAGE = 64
"""Positions of a page; the tiles of keys that kernels work on lie each in one."""


class PageTable:
    """Which pages hold each row: ``rows[r, i]`` is the page of positions 64 i to 64 i + 63 of row r.

    Rows change places, and are dropped, without a copy of what they hold (Kwon et al. 2023, "Efficient memory
    management for large language model serving with PagedAttention").

    Args:
        rows: there are.
        capacity: positions that a row can hold.
        device: the card.

    Attributes:
        rows: (rows, pages) int32, on the CPU.
        held: the same on the card, always at the same place; kernels read it there.
    """

    __slots__ = ("held", "rows")

    def __init__(self, rows: int, capacity: int, device: Device) -> None:
        pages = -(-capacity // PAGE)
        self.rows = np.arange(rows * pages, dtype=np.int32).reshape(rows, pages)
        self.held = Tensor(self.rows).to(device)

    def copy(self) -> PageTable:
        """A table that says the same, and changes by itself."""
        table = object.__new__(PageTable)
        table.rows, table.held = self.rows.copy(), self.held.copy()
        return table

    def first(self, rows: int) -> PageTable:
        """The table of the first rows alone."""
        part = object.__new__(PageTable)
        part.rows, part.held = self.rows[:rows], Tensor(self.held.storage[:rows], self.held.device)
        return part

    def place(self, row: int, positions: Any) -> tuple[Any, Any]:
        """The page of each position of a row, and where in it the position is."""
        return self.rows[row, positions // PAGE], positions % PAGE

    def select(self, rows: Sequence[int]) -> dict[int, int]:
        """Give row i the pages of row ``rows[i]``.

        Returns:
            {i: j} for rows that are repeated: row i has pages of its own, into which those of row j are to be copied.
        """
        owners = {source: target for target, source in reversed(list(enumerate(rows)))}
        owners |= {row: row for row in owners if row < len(rows) and rows[row] == row}
        order = dict(zip(owners.values(), owners.keys(), strict=True))
        unused = (row for row in range(len(self.rows)) if row not in owners)
        self.rows[...] = self.rows[[order[row] if row in order else next(unused) for row in range(len(self.rows))]]
        self.held.storage.set(self.rows)
        return {target: owners[source] for target, source in enumerate(rows) if owners[source] != target}
