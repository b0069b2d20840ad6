"""Rows of a table by index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallow.errors import BoundsError, DTypeError
from tallow.ops.dispatch import operation
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from tallow.matrix.weight import Weight


@operation
def embedding(ids: Tensor, weight: Weight | Tensor) -> Tensor:
    """The rows of a table.

    Args:
        ids: (…), integers from 0 to vocab - 1. A GPU does not wait to look at them: there the row of an id outside
            is NaN. ``nn.Embedding`` looks at ids that come from the CPU.
        weight: (vocab, dim), a Tensor or a packed ``Weight``.

    Returns:
        (…, dim): the dtype of a Tensor's table; float32 from a ``Weight``.

    Raises:
        DTypeError: if ids are not integers.
        BoundsError: on the CPU, if an id lies outside the table.

    Examples:
        >>> table = tl.asarray([[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]])
        >>> tl.ops.embedding(tl.asarray([2, 0]), table).tolist()
        [[2.0, 2.5], [0.0, 0.5]]
    """
    if ids.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"embedding: ids of dtype {ids.dtype.name}; expected integers")
    vocab, dim = weight.shape
    check_ids(ids, vocab)
    flat = ids.reshape(-1)
    rows = weight.take(flat, axis=0) if isinstance(weight, Tensor) else weight.rows(flat)
    return rows.reshape((*ids.shape, dim))


def check_ids(ids: Tensor, vocab: int) -> None:
    """Raise BoundsError if an id lies outside a table of ``vocab`` rows; on a GPU this waits for them."""
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= vocab):
        raise BoundsError(f"embedding: id {int(ids.max())} (least {int(ids.min())}) in a table of {vocab} rows")
