"""GGUF's K blocks: 256 values in 8 or 16 runs, whose scales (and minima) are themselves quantised.

Layouts and functions as in ``basic.py``.

Source: github.com/ggml-org/ggml, ``ggml-common.h`` and ``ggml-quants.c``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow.matrix.blocks.basic import column
from tallow.matrix.blocks.unpack import fields, spread

Array = np.ndarray[Any, Any]

Q2_K = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
Q3_K = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
Q5_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
Q6_K = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])


def q2_k(blocks: Array) -> Array:
    """16 runs of 16: ``d · scale · q − dmin · minimum``, scale and minimum of 4 bits, q of 2."""
    scale = column(blocks["d"]) * (blocks["scales"] & 15).astype(np.float32)
    minimum = column(blocks["dmin"]) * (blocks["scales"] >> 4).astype(np.float32)
    codes = fields(blocks["qs"], 32, 2).astype(np.float32)
    return (spread(scale, codes) - minimum[:, :, None]).reshape(len(blocks), 256)  # type: ignore[no-any-return]


def q3_k(blocks: Array) -> Array:
    """16 runs of 16: ``d · (scale − 32) · (q − 4)``, scale of 6 bits, q of 3 with its highest bit apart."""
    low = fields(blocks["scales"][:, :8], 8, 4)
    high = fields(blocks["scales"][:, 8:], 4, 2)
    scale = column(blocks["d"]) * ((low | high << 4).astype(np.float32) - 32)
    codes = (fields(blocks["qs"], 32, 2) | fields(blocks["hmask"], 32, 1) << 2).astype(np.float32) - 4
    return spread(scale, codes).reshape(len(blocks), 256)


def scales_and_minima(packed: Array) -> tuple[Array, Array]:
    """The eight scales and eight minima, of 6 bits each, in 12 bytes: (n, 12) -> two of (n, 8), float32.

    The first four of each lie in the low 6 bits of bytes 0 to 3 and 4 to 7; the others have their low 4 bits in the
    halves of bytes 8 to 11, and their high 2 bits on top of the first four.
    """
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, rest & 15 | (first >> 2) & 48], axis=1)
    minima = np.concatenate([second & 63, rest >> 4 | (second >> 2) & 48], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def affine_runs(blocks: Array, codes: Array) -> Array:
    """8 runs of 32: ``d · scale · q − dmin · minimum``."""
    scales, minima = scales_and_minima(blocks["scales"])
    shift = column(blocks["dmin"]) * minima
    return (spread(column(blocks["d"]) * scales, codes) - shift[:, :, None]).reshape(len(blocks), 256)  # type: ignore[no-any-return]


def q4_k(blocks: Array) -> Array:
    """``affine_runs`` with q of 4 bits."""
    return affine_runs(blocks, fields(blocks["qs"], 32, 4).astype(np.float32))


def q5_k(blocks: Array) -> Array:
    """``affine_runs`` with q of 5 bits, the highest apart."""
    return affine_runs(blocks, (fields(blocks["qs"], 32, 4) | fields(blocks["qh"], 32, 1) << 4).astype(np.float32))


def q6_k(blocks: Array) -> Array:
    """16 runs of 16: ``d · scale · (q − 32)``, scale a signed byte, q of 6 bits with its highest two apart."""
    scale = column(blocks["d"]) * blocks["scales"].astype(np.float32)
    codes = (fields(blocks["ql"], 64, 4) | fields(blocks["qh"], 32, 2) << 4).astype(np.float32) - 32
    return spread(scale, codes).reshape(len(blocks), 256)
