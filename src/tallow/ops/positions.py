"""Where new tokens stand, and by which angles rotary embeddings turn what stands there."""

from __future__ import annotations

import numpy as np

from tallow.errors import ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import module_of
from tallow.tensor import Tensor


@operation
def next_positions(lengths: Tensor, n: int, counts: Tensor | None = None) -> Tensor:
    """The positions of new tokens in rows that hold some already.

    Args:
        lengths: (rows,) int64: positions that each row holds.
        n: new tokens of each row.
        counts: (rows,) int64: how many of the n belong to each row, its last ones; None for all.

    Returns:
        (rows, n) int64; 0 for tokens that belong to no row.
    """
    held = lengths.storage
    if held.ndim != 1 or (counts is not None and counts.shape != held.shape):
        raise ShapeError(f"next_positions: lengths {lengths.shape}, counts {None if counts is None else counts.shape}")
    ends = held + (n if counts is None else counts.storage)
    return Tensor(np.maximum(ends[:, None] - n + module_of(held).arange(n), 0), lengths.device)


@operation
def rotary_angles(positions: Tensor, frequencies: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of ``position · frequency``, to be made once and used by every layer.

    Args:
        positions: any shape, int64.
        frequencies: (pairs,) float32, radians from one position to the next.
        factor: multiplies both results.

    Returns:
        Two of (*positions.shape, pairs), float32. The angle is rounded to float32, as in the models' own code.

    Source: Su et al. 2021, "RoFormer".
    """
    angles = (positions.storage[..., None].astype(np.float32) * frequencies.storage).astype(np.float64)
    cos, sin = (Tensor(f(angles).astype(np.float32), frequencies.device) * factor for f in (np.cos, np.sin))
    return cos, sin
