"""A source seen under other names: what every adapter is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from tallow.errors import WeightsError
from tallow.matrix.weight import Stored
from tallow.weights.source import Array, Source, TensorInfo


class Piece(NamedTuple):
    """Where a tensor lies in another source.

    Attributes:
        name: of the tensor there.
        part: which of ``parts`` equal stretches of its first axis it is.
        parts: how many there are.
        order: numbers of the whole's rows in the order in which they are wanted; None for their own.
        added: what is added to its numbers.
    """

    name: str
    part: int = 0
    parts: int = 1
    order: Array | None = None
    added: float = 0.0


class MappedSource:
    """A source whose tensors are tensors of another, or equal parts of them.

    Args:
        source: the other.
        pieces: for every name here, where it lies there.
    """

    def __init__(self, source: Source, pieces: Mapping[str, Piece]) -> None:
        self.source = source
        self.where = source.where
        self.pieces = {name: piece for name, piece in pieces.items() if source.info(piece.name) is not None}

    def names(self) -> Iterable[str]:
        """Every name here."""
        return self.pieces.keys()

    def info(self, name: str) -> TensorInfo | None:
        """Shape and dtype of the part, or None if there is none of that name."""
        piece = self.pieces.get(name)
        whole = self.source.info(piece.name) if piece else None
        if piece is None or whole is None or piece.parts == 1:
            return whole
        if not whole.shape or whole.shape[0] % piece.parts:
            raise WeightsError(f"{self.where}: {piece.name!r} of shape {whole.shape} is not {piece.parts} equal parts")
        shape = (whole.shape[0] // piece.parts, *whole.shape[1:])
        return whole._replace(shape=shape, nbytes=whole.nbytes // piece.parts)

    def read(self, name: str) -> Stored:
        """The part, as a view of the whole (a copy if its rows are put in another order)."""
        piece, info = self.pieces[name], self.info(name)
        whole = self.source.read(piece.name)
        if piece.order is not None:
            whole = whole[piece.order]
        if piece.added and isinstance(whole, np.ndarray):
            whole = whole + np.asarray(piece.added, whole.dtype)
        if piece.parts == 1 or info is None:
            return whole
        rows = info.shape[0]
        return whole[piece.part * rows : (piece.part + 1) * rows]

    def release(self, name: str) -> None:
        """Release the whole that it lies in: of its other parts, those not yet read cost nothing to drop."""
        self.source.release(self.pieces[name].name)
