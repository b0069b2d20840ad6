"""The types of GGUF's tensors: how their blocks lie in the file and what they mean.

A *block* is a short run of values along a row that share scales; the widening here is the definition of each type and
the oracle for the kernels that work on blocks directly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from tallow.errors import WeightsError
from tallow.matrix.blocks import basic, i_quants, k_quants, ternary

Array = np.ndarray[Any, Any]
CHUNK = 1 << 20  # values widened at a time, so that the steps between stay in cache


@dataclass(frozen=True)
class BlockType:
    """One type of tensor data.

    Attributes:
        name: in lower case, such as ``"q4_k"``.
        id: its number in GGUF.
        elements: values in a block; 1 for plain numbers.
        layout: a block's bytes, as a NumPy dtype.
        widen: (n,) blocks -> (n, elements) float32.
    """

    name: str
    id: int
    elements: int
    layout: np.dtype[Any]
    widen: Callable[[Array], Array]

    @property
    def nbytes(self) -> int:
        """Bytes of a block."""
        return self.layout.itemsize

    @property
    def is_plain(self) -> bool:
        """Whether values lie one by one, in a dtype that NumPy knows."""
        return self.elements == 1


def plain(blocks: Array) -> Array:
    """Numbers as they are, in float32."""
    return blocks.astype(np.float32)[:, None]


TYPES: tuple[BlockType, ...] = (
    BlockType("f32", 0, 1, np.dtype("<f4"), plain),
    BlockType("f16", 1, 1, np.dtype("<f2"), plain),
    BlockType("q4_0", 2, 32, basic.Q4_0, basic.q4_0),
    BlockType("q4_1", 3, 32, basic.Q4_1, basic.q4_1),
    BlockType("q5_0", 6, 32, basic.Q5_0, basic.q5_0),
    BlockType("q5_1", 7, 32, basic.Q5_1, basic.q5_1),
    BlockType("q8_0", 8, 32, basic.Q8_0, basic.q8_0),
    BlockType("q2_k", 10, 256, k_quants.Q2_K, k_quants.q2_k),
    BlockType("q3_k", 11, 256, k_quants.Q3_K, k_quants.q3_k),
    BlockType("q4_k", 12, 256, k_quants.Q4_K, k_quants.q4_k),
    BlockType("q5_k", 13, 256, k_quants.Q5_K, k_quants.q5_k),
    BlockType("q6_k", 14, 256, k_quants.Q6_K, k_quants.q6_k),
    BlockType("iq2_xxs", 16, 256, i_quants.IQ2_XXS, i_quants.iq2_xxs),
    BlockType("iq2_xs", 17, 256, i_quants.IQ2_XS, i_quants.iq2_xs),
    BlockType("iq3_xxs", 18, 256, i_quants.IQ3_XXS, i_quants.iq3_xxs),
    BlockType("iq1_s", 19, 256, i_quants.IQ1_S, i_quants.iq1_s),
    BlockType("iq4_nl", 20, 32, basic.IQ4_NL, basic.iq4_nl),
    BlockType("iq3_s", 21, 256, i_quants.IQ3_S, i_quants.iq3_s),
    BlockType("iq2_s", 22, 256, i_quants.IQ2_S, i_quants.iq2_s),
    BlockType("iq4_xs", 23, 256, i_quants.IQ4_XS, i_quants.iq4_xs),
    BlockType("i8", 24, 1, np.dtype("i1"), plain),
    BlockType("i16", 25, 1, np.dtype("<i2"), plain),
    BlockType("i32", 26, 1, np.dtype("<i4"), plain),
    BlockType("i64", 27, 1, np.dtype("<i8"), plain),
    BlockType("f64", 28, 1, np.dtype("<f8"), plain),
    BlockType("iq1_m", 29, 256, i_quants.IQ1_M, i_quants.iq1_m),
    BlockType("bf16", 30, 1, np.dtype(ml_dtypes.bfloat16), plain),
    BlockType("tq1_0", 34, 256, ternary.TQ1_0, ternary.tq1_0),
    BlockType("tq2_0", 35, 256, ternary.TQ2_0, ternary.tq2_0),
    BlockType("mxfp4", 39, 32, basic.MXFP4, basic.mxfp4),
    BlockType("nvfp4", 40, 64, basic.NVFP4, basic.nvfp4),
)
BY_ID: dict[int, BlockType] = {kind.id: kind for kind in TYPES}
BY_NAME: dict[str, BlockType] = {kind.name: kind for kind in TYPES}

# Types that GGUF numbers but no file of weights should hold, or whose meaning is not settled.
REFUSED: dict[int, str] = {
    4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 15: "Q8_K", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
    36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8", 41: "Q1_0",
}  # fmt: skip


def type_of_id(number: int) -> BlockType:
    """The type with a number in GGUF. Raises WeightsError, by name where it has one, for those that are not read."""
    found = BY_ID.get(number)
    if found is not None:
        return found
    name = REFUSED.get(number)
    said = f"type {name} (number {number})" if name else f"unknown type number {number}"
    raise WeightsError(f"{said}; Tallow reads {', '.join(kind.name.upper() for kind in TYPES)}")


def dequantize(raw: Array, kind: BlockType, shape: tuple[int, ...]) -> Array:
    """Widen blocks to float32.

    Args:
        raw: uint8, the tensor's bytes, C-contiguous, of any shape.
        kind: their type.
        shape: of the result, rows last: its last axis is a multiple of ``kind.elements``.

    Returns:
        ``shape`` float32.
    """
    blocks = raw.reshape(-1).view(kind.layout)
    out = np.empty(len(blocks) * kind.elements, dtype=np.float32)
    step = max(1, CHUNK // kind.elements)
    with np.errstate(all="ignore"):  # an infinite scale times zero is a NaN, as in ggml
        for start in range(0, len(blocks), step):
            part = kind.widen(blocks[start : start + step])
            out[start * kind.elements : start * kind.elements + part.size] = part.reshape(-1)
    return out.reshape(shape)
