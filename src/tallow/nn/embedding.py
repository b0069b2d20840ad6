"""Embedding tables."""

from __future__ import annotations

from tallow import ops
from tallow.nn.module import Module
from tallow.ops.embedding import check_ids
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder


class Embedding(Module):
    """A table of vectors, looked up by index; tied output projections use its weight.

    Args:
        vocab: rows of the table.
        dim: width of a row.
        vb: weight ``weight`` (vocab, dim).
    """

    def __init__(self, vocab: int, dim: int, vb: VarBuilder) -> None:
        self.weight = vb.weight((vocab, dim), table=True)

    def __call__(self, ids: Tensor) -> Tensor:
        """Integers (…) -> (…, dim).

        Raises:
            BoundsError: if an id lies outside the table; but ids that lie on a GPU are not looked at, and give NaN.
        """
        if ids.device is not self.weight.device:
            if ids.device.kind == "cpu":  # where looking at them waits for nothing
                check_ids(ids, self.weight.shape[0])
            ids = ids.to(self.weight.device)
        return ops.embedding(ids, self.weight)

    def as_linear(self, x: Tensor) -> Tensor:
        """The table as a projection back to the vocabulary: (…, dim) -> (…, vocab)."""
        return ops.linear(x, self.weight)

    def extra_repr(self) -> str:
        """Its sizes and storage."""
        vocab, dim = self.weight.shape
        return f"{vocab}, {dim}, {self.weight.storage}"
