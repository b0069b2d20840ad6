"""GGUF's IQ blocks: 256 values as indices into a codebook of short vectors, with signs and scales.

Layouts and functions as in ``basic.py``; ``iq_grids.py`` holds the codebooks.

Source: github.com/ggml-org/ggml, ``ggml-common.h`` and ``ggml-quants.c``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow.matrix.blocks.basic import NONLINEAR, column
from tallow.matrix.blocks.iq_grids import grid
from tallow.matrix.blocks.unpack import fields, flags, signs, spread

Array = np.ndarray[Any, Any]

IQ2_XXS = np.dtype([("d", "<f2"), ("qs", [("grid", "u1", 4), ("signs", "<u4")], 8)])
IQ2_XS = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])
IQ2_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)])
IQ3_XXS = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("signs", "<u4", 8)])
IQ3_S = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)])
IQ1_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])
IQ1_M = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])
IQ4_XS = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])

# Seven sign bits say eight signs: the number of minus signs in a group of eight is even.
EVEN_SIGNS = np.array([i | (i.bit_count() & 1) << 7 for i in range(128)], dtype=np.uint8)
DELTA = np.float32(0.125)


def packed_signs(words: Array) -> Array:
    """(n, 8) uint32, each with four 7-bit sign codes in its low 28 bits -> (n, 256) float32, ±1."""
    codes = (words[:, :, None] >> np.array([0, 7, 14, 21], dtype=np.uint32)) & np.uint32(127)
    return signs(EVEN_SIGNS[codes].reshape(len(words), -1))


def half_scale(d: Array, code: Array, unit: float) -> Array:
    """``d · (code + ½) · unit``: d (n,), code (n, s) -> (n, s) float32."""
    return column(d) * (np.float32(0.5) + code.astype(np.float32)) * np.float32(unit)  # type: ignore[no-any-return]


def signed(scale: Array, values: Array, sign: Array) -> Array:
    """Values of a codebook with their scales and signs -> (n, 256)."""
    return spread(scale, values).reshape(len(scale), 256) * sign


def iq2_xxs(blocks: Array) -> Array:
    """8 runs of 32: four indices of 8 bits into vectors of 8, four sign codes and a scale of 4 bits."""
    words = blocks["qs"]["signs"]
    return signed(
        half_scale(blocks["d"], words >> 28, 0.25), grid("iq2_xxs")[blocks["qs"]["grid"]], packed_signs(words)
    )


def iq2_xs(blocks: Array) -> Array:
    """16 runs of 16: two words of a 9-bit index into vectors of 8 and a 7-bit sign code; scales of 4 bits."""
    sign = signs(EVEN_SIGNS[blocks["qs"] >> 9])
    scale = half_scale(blocks["d"], fields(blocks["scales"], 1, 4), 0.25)
    return signed(scale, grid("iq2_xs")[blocks["qs"] & 511], sign)


def iq2_s(blocks: Array) -> Array:
    """16 runs of 16: two indices of 10 bits (the highest two apart) into vectors of 8; scales of 4 bits."""
    index = blocks["qs"].astype(np.uint16) | fields(blocks["qh"], 1, 2).astype(np.uint16) << 8
    scale = half_scale(blocks["d"], fields(blocks["scales"], 1, 4), 0.25)
    return signed(scale, grid("iq2_s")[index], signs(blocks["signs"]))


def iq3_xxs(blocks: Array) -> Array:
    """8 runs of 32: eight indices of 8 bits into vectors of 4, four sign codes and a scale of 4 bits."""
    words = blocks["signs"]
    scale = half_scale(blocks["d"], words >> 28, 0.5)
    return signed(scale, grid("iq3_xxs")[blocks["qs"]], packed_signs(words))


def iq3_s(blocks: Array) -> Array:
    """8 runs of 32: eight indices of 9 bits (the highest apart) into vectors of 4; scales ``2s + 1`` of 4 bits."""
    index = blocks["qs"].astype(np.uint16) | flags(blocks["qh"]).astype(np.uint16) << 8
    scale = column(blocks["d"]) * (1 + 2 * fields(blocks["scales"], 1, 4)).astype(np.float32)
    return signed(scale, grid("iq3_s")[index], signs(blocks["signs"]))


def iq1_s(blocks: Array) -> Array:
    """8 runs of 32: four indices of 11 bits into vectors of 8 of −1, 0, 1, shifted by ±⅛; scales ``2s + 1``."""
    high = blocks["qh"]
    scale = column(blocks["d"]) * (2 * (high >> 12 & 7) + 1).astype(np.float32)
    delta = np.where(high & 0x8000 == 0, DELTA, -DELTA)
    top = high[:, :, None] >> np.array([0, 3, 6, 9], dtype=np.uint16) & 7
    index = blocks["qs"].astype(np.uint16) | top.reshape(len(blocks), 32) << 8
    values = grid("iq1_s")[index].reshape(len(blocks), 8, 32) + delta[:, :, None]
    return spread(scale, values).reshape(len(blocks), 256)


def iq1_m(blocks: Array) -> Array:
    """16 runs of 16: as ``iq1_s``, each vector with its own shift; the block's scale is strewn over four words."""
    parts = blocks["scales"] >> 12 << np.array([0, 4, 8, 12], dtype=np.uint16)
    d = np.bitwise_or.reduce(parts, axis=1).astype(np.uint16).view(np.float16)
    codes = blocks["scales"][:, :, None] >> np.array([0, 3, 6, 9], dtype=np.uint16) & 7
    scale = column(d) * (2 * codes.reshape(len(blocks), 16) + 1).astype(np.float32)
    high = fields(blocks["qh"], 1, 4)
    delta = np.where(high & 8 == 0, DELTA, -DELTA)
    index = blocks["qs"].astype(np.uint16) | (high & 7).astype(np.uint16) << 8
    values = grid("iq1_s")[index] + delta[:, :, None]
    return spread(scale, values).reshape(len(blocks), 256)


def iq4_xs(blocks: Array) -> Array:
    """8 runs of 32: ``d · (scale − 32) · NONLINEAR[q]``, scale of 6 bits, q of 4."""
    high = blocks["scales_h"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    scale = fields(blocks["scales_l"], 1, 4) | high.astype(np.uint8) << 4
    scale = column(blocks["d"]) * (scale.astype(np.float32) - 32)
    return spread(scale, NONLINEAR[fields(blocks["qs"], 16, 4)]).reshape(len(blocks), 256)
