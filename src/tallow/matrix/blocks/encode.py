"""Making GGUF's blocks out of numbers, as ggml does where it does not search.

Source: github.com/ggml-org/ggml, ``ggml-quants.c``, the ``quantize_row_*_ref`` functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tallow.errors import DTypeError, ShapeError, WeightsError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.blocks import BY_NAME, basic

Array = np.ndarray[Any, Any]
_CHUNK = 1 << 15  # blocks made at a time


def quantize(array: Array, name: str) -> BlockMatrix:
    """Store a matrix in blocks.

    Args:
        array: (rows, columns), floating point; columns a multiple of the type's block.
        name: ``"q8_0"``, ``"q4_0"``, ``"q4_1"``, ``"q5_0"`` or ``"q5_1"``.

    Raises:
        DTypeError: for a type that Tallow reads but does not make.
        ShapeError: if the columns are no whole blocks.
        WeightsError: if the matrix holds NaN or infinity.
    """
    if name not in ENCODERS:
        raise DTypeError(f"no blocks of type {name!r} can be made; there are {', '.join(ENCODERS)}")
    kind, encode = BY_NAME[name], ENCODERS[name]
    if array.ndim != 2 or array.shape[1] % kind.elements:
        raise ShapeError(f"quantize: {name} takes rows of whole blocks of {kind.elements}, found {array.shape}")
    out = np.empty((array.shape[0], array.shape[1] // kind.elements), kind.layout)
    step = max(1, _CHUNK // max(1, out.shape[1]))
    for begin in range(0, len(out), step):
        values = np.asarray(array[begin : begin + step], np.float32).reshape(-1, kind.elements)
        if not np.isfinite(values).all():
            raise WeightsError(f"quantize: the weights hold NaN or infinity; {name} cannot")
        out[begin : begin + step] = encode(values).reshape(-1, out.shape[1])
    return BlockMatrix(out.view(np.uint8).reshape(len(out), out.shape[1] * kind.nbytes), kind)


def _inverse(d: Array) -> Array:
    """1 / d, and 0 for 0."""
    with np.errstate(divide="ignore"):
        return np.where(d == 0, np.float32(0), np.float32(1) / d)


def _halves(codes: Array) -> Array:
    """Two codes of 4 bits in a byte: the first half of the block low, the second high."""
    return codes[:, :16] & 15 | (codes[:, 16:] & 15) << 4


def _fifth_bits(codes: Array) -> Array:
    return np.packbits(codes >> 4 & 1, axis=1, bitorder="little")


def _signed_codes(values: Array, most: int) -> tuple[Array, Array]:
    """Codes of 0 to 2 · most − 1 whose middle stands for 0, the value farthest from 0 becoming code 0."""
    farthest = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)
    d = farthest / np.float32(-most)
    codes = np.trunc(values * _inverse(d) + np.float32(most + 0.5)).clip(0, 2 * most - 1)
    return d[:, 0].astype(np.float16), codes.astype(np.uint8)


def _affine_codes(values: Array, most: int) -> tuple[Array, Array, Array]:
    """Codes of 0 to most, from the least value to the greatest."""
    least = values.min(axis=1, keepdims=True)
    d = (values.max(axis=1, keepdims=True) - least) / np.float32(most)
    codes = np.trunc((values - least) * _inverse(d) + np.float32(0.5)).clip(0, most)
    return d[:, 0].astype(np.float16), least[:, 0].astype(np.float16), codes.astype(np.uint8)


def _q8_0(values: Array) -> Array:
    blocks = np.empty(len(values), basic.Q8_0)
    d = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    scaled = values * _inverse(d)
    whole = np.floor(np.abs(scaled))
    rounded = np.sign(scaled) * (whole + np.floor(2 * (np.abs(scaled) - whole)))  # halves away from 0
    blocks["d"], blocks["qs"] = d[:, 0].astype(np.float16), rounded.astype(np.int8)
    return blocks


def _q4_0(values: Array) -> Array:
    blocks = np.empty(len(values), basic.Q4_0)
    blocks["d"], codes = _signed_codes(values, 8)
    blocks["qs"] = _halves(codes)
    return blocks


def _q4_1(values: Array) -> Array:
    blocks = np.empty(len(values), basic.Q4_1)
    blocks["d"], blocks["m"], codes = _affine_codes(values, 15)
    blocks["qs"] = _halves(codes)
    return blocks


def _q5_0(values: Array) -> Array:
    blocks = np.empty(len(values), basic.Q5_0)
    blocks["d"], codes = _signed_codes(values, 16)
    blocks["qs"], blocks["qh"] = _halves(codes), _fifth_bits(codes)
    return blocks


def _q5_1(values: Array) -> Array:
    blocks = np.empty(len(values), basic.Q5_1)
    blocks["d"], blocks["m"], codes = _affine_codes(values, 31)
    blocks["qs"], blocks["qh"] = _halves(codes), _fifth_bits(codes)
    return blocks


ENCODERS: dict[str, Callable[[Array], Array]] = {
    "q8_0": _q8_0, "q4_0": _q4_0, "q4_1": _q4_1, "q5_0": _q5_0, "q5_1": _q5_1,
}  # fmt: skip
