"""GGUF's ternary blocks: 256 values that are −d, 0 or d.

Layouts and functions as in ``basic.py``.

Source: github.com/ggml-org/ggml, ``ggml-common.h`` and ``ggml-quants.c``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow.matrix.blocks.basic import column
from tallow.matrix.blocks.unpack import fields

Array = np.ndarray[Any, Any]

TQ1_0 = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])
TQ2_0 = np.dtype([("qs", "u1", 64), ("d", "<f2")])


def tq1_0(blocks: Array) -> Array:
    """Five ternary digits in a byte (four in the last four bytes), the byte being the fraction that they spell."""
    runs = ((blocks["qs"][:, :32], 5), (blocks["qs"][:, 32:], 5), (blocks["qh"], 4))
    codes = np.concatenate([trits(packed, digits) for packed, digits in runs], axis=1)
    return column(blocks["d"]) * (codes.astype(np.float32) - 1)


def trits(packed: Array, digits: int) -> Array:
    """The first ternary digits of the fractions byte / 256: (n, m) uint8 -> (n, digits · m), all first digits first."""
    powers = 3 ** np.arange(digits, dtype=np.uint8).reshape(-1, 1)
    rest = packed[:, None, :] * powers.astype(np.uint8)  # modulo 256: the fraction behind the digits before
    return (rest.astype(np.uint16) * 3 >> 8).reshape(len(packed), -1)


def tq2_0(blocks: Array) -> Array:
    """``d · (q − 1)``, q of 2 bits."""
    return column(blocks["d"]) * (fields(blocks["qs"], 32, 2).astype(np.float32) - 1)
