"""GGUF's blocks of 32 (one of 64) values with one scale, or one for each 16 values.

Each ``LAYOUT`` is a block's bytes as they lie in the file; each function takes (n,) such blocks and gives
(n, values in a block) float32. Sums and products stand in the order that ggml has them, so results agree to the bit.

Source: github.com/ggml-org/ggml, ``ggml-common.h`` (layouts) and ``ggml-quants.c`` (meaning).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow.matrix.blocks.unpack import fields, flags, spread

Array = np.ndarray[Any, Any]

Q4_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
IQ4_NL = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
MXFP4 = np.dtype([("e", "u1"), ("qs", "u1", 16)])
NVFP4 = np.dtype([("d", "u1", 4), ("qs", "u1", 32)])

# What the 16 codes of a block stand for: values spaced for weights that are normally distributed, …
NONLINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32)
# … and the numbers that four bits of floating point (e2m1) can say, doubled.
E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.float32)


def column(values: Array) -> Array:
    """(n,) -> (n, 1) float32."""
    return values.astype(np.float32)[:, None]


def q4_0(blocks: Array) -> Array:
    """``d · (q − 8)``, q of 4 bits."""
    return column(blocks["d"]) * (fields(blocks["qs"], 16, 4).astype(np.float32) - 8)


def q4_1(blocks: Array) -> Array:
    """``d · q + m``, q of 4 bits."""
    return column(blocks["d"]) * fields(blocks["qs"], 16, 4).astype(np.float32) + column(blocks["m"])


def five_bits(blocks: Array) -> Array:
    """Codes whose fifth bit lies apart: (n, 32) float32, 0 to 31."""
    return (fields(blocks["qs"], 16, 4) | flags(blocks["qh"]) << 4).astype(np.float32)  # type: ignore[no-any-return]


def q5_0(blocks: Array) -> Array:
    """``d · (q − 16)``, q of 5 bits."""
    return column(blocks["d"]) * (five_bits(blocks) - 16)  # type: ignore[no-any-return]


def q5_1(blocks: Array) -> Array:
    """``d · q + m``, q of 5 bits."""
    return column(blocks["d"]) * five_bits(blocks) + column(blocks["m"])


def q8_0(blocks: Array) -> Array:
    """``d · q``, q a signed byte."""
    return column(blocks["d"]) * blocks["qs"].astype(np.float32)


def iq4_nl(blocks: Array) -> Array:
    """``d · NONLINEAR[q]``, q of 4 bits."""
    return column(blocks["d"]) * NONLINEAR[fields(blocks["qs"], 16, 4)]


def mxfp4(blocks: Array) -> Array:
    """``2^(e − 128) · E2M1[q]``: half of the scale, since the values are doubled.

    Source: OCP Microscaling Formats (MX) Specification 1.0.
    """
    e = blocks["e"].astype(np.uint32)
    half = np.where(e < 2, np.uint32(0x00200000) << e, (e - np.uint32(1)) << np.uint32(23)).astype(np.uint32)
    return half.view(np.float32)[:, None] * E2M1[fields(blocks["qs"], 16, 4)]


def nvfp4(blocks: Array) -> Array:
    """``d / 2 · E2M1[q]`` with a scale d of eight bits (e4m3, without a sign) for each 16 values."""
    code = blocks["d"]
    exponent = (code >> 3 & 15).astype(np.float32)
    mantissa = (code & 7).astype(np.float32)
    scale = np.where(exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * np.exp2(exponent - 7))
    scale = np.where((code == 0) | (code == 0x7F), 0, scale * 0.5).astype(np.float32)
    return spread(scale, E2M1[fields(blocks["qs"], 8, 4)]).reshape(len(blocks), 64)
