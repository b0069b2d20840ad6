"""Additive attention masks."""

from __future__ import annotations

from tallow.device import Device
from tallow.errors import ShapeError
from tallow.ops.creation import full, zeros
from tallow.ops.creation import triu as upper_triangle
from tallow.tensor import Tensor


def causal_mask(length: int, *, device: str | Device | None = None) -> Tensor:
    """The mask by which a position sees itself and what came before.

    ``ops.attention(..., causal=True)`` needs no mask; this one is for attention written out by hand.

    Args:
        length: positions.
        device: where to make it.

    Returns:
        (1, 1, length, length) float32: 0 where the key is allowed, −inf where it lies ahead of the query.
    """
    if length < 0:
        raise ShapeError(f"causal_mask: expected at least 0 positions, found {length}")
    ahead = full((length, length), float("-inf"), dtype="float32", device=device)
    return (upper_triangle(ahead, k=1) if length else zeros((0, 0))).reshape((1, 1, length, length))
