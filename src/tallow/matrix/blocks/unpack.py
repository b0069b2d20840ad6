"""Small codes packed into bytes, taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def fields(packed: Array, width: int, bits: int) -> Array:
    """Take bytes apart into the codes that they hold.

    Args:
        packed: (n, m) uint8.
        width: bytes that are unpacked together: such a run gives its lowest codes, then its next ones, and so on.
        bits: of a code: 1, 2 or 4.

    Returns:
        (n, m · 8 / bits) uint8.
    """
    runs = packed.reshape(len(packed), -1, 1, width)
    shifts = np.arange(0, 8, bits, dtype=np.uint8).reshape(-1, 1)
    return ((runs >> shifts) & np.uint8(2**bits - 1)).reshape(len(packed), -1)


def flags(packed: Array) -> Array:
    """(n, m) uint8 -> (n, 8 · m) uint8, each bit on its own, the lowest of a byte first."""
    return np.unpackbits(np.ascontiguousarray(packed), axis=-1, bitorder="little")


def signs(packed: Array) -> Array:
    """(n, m) uint8 -> (n, 8 · m) float32: −1 where a bit is set, else 1; the lowest bit of a byte first."""
    return 1 - 2 * flags(packed).astype(np.float32)


def spread(scale: Array, values: Array) -> Array:
    """Multiply runs of values by their scales: scale (n, s) and values (n, m), s dividing m -> (n, s, m / s)."""
    return scale[:, :, None] * values.reshape(*scale.shape, -1)
