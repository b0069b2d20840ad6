import hashlib
import zlib

import ml_dtypes
import numpy as np
import pytest

from tallow.errors import ShapeError, WeightsError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.blocks import BY_NAME, CHUNK, TYPES, dequantize, type_of_id

# What the `gguf` package 0.19 makes of the same bytes, NaN counted as 7 (tests/oracle compares more of them).
GOLDEN = {
    "q4_0": 0x2210A0F7,
    "q4_1": 0xCF139229,
    "q5_0": 0x82656856,
    "q5_1": 0xE7172494,
    "q8_0": 0xC9D322F2,
    "q2_k": 0x21E84C89,
    "q3_k": 0x8217A1DC,
    "q4_k": 0xE05B125A,
    "q5_k": 0xC90A3611,
    "q6_k": 0x2DB7778F,
    "iq2_xxs": 0xD17C2B29,
    "iq2_xs": 0xB2C58B48,
    "iq3_xxs": 0x2285821F,
    "iq1_s": 0xE6AB0B33,
    "iq4_nl": 0x2965B15B,
    "iq3_s": 0x2C6D49CD,
    "iq2_s": 0x95063FA1,
    "iq4_xs": 0xBFA65A7B,
    "iq1_m": 0x94E45FEC,
    "tq1_0": 0x71A9964D,
    "tq2_0": 0x0BA058CF,
    "mxfp4": 0x6F4AA55A,
    "nvfp4": 0xF05050E7,
}


@pytest.mark.parametrize("name", [kind.name for kind in TYPES if not kind.is_plain])
def test_blocks_mean_what_the_gguf_package_says(name):
    kind = BY_NAME[name]
    raw = np.frombuffer(hashlib.shake_128(name.encode()).digest(64 * kind.nbytes), np.uint8)
    values = dequantize(raw, kind, (64, kind.elements))
    assert values.dtype == np.float32
    values = np.where(np.isnan(values), np.float32(7), values) + np.float32(0)
    assert zlib.crc32(values.tobytes()) == GOLDEN[name]


def test_q4_k_by_hand():
    block = np.zeros(1, BY_NAME["q4_k"].layout)
    block["d"], block["dmin"] = 0.5, 2
    block["scales"][0, 1], block["scales"][0, 5] = 3, 1  # run 1: scale 3, minimum 1
    block["scales"][0, 0] = 0b0100_0000  # high bits of run 4's scale
    block["scales"][0, 8] = 0x21  # its low bits: scale 17, minimum 2
    block["qs"][0, 0] = 0x75  # value 0 of run 0 is 5, of run 1 is 7
    block["qs"][0, 64] = 0x09  # value 0 of run 4 is 9
    values = dequantize(block.view(np.uint8), BY_NAME["q4_k"], (8, 32))
    assert values[0, 0] == 0
    assert values[1, 0] == 0.5 * 3 * 7 - 2
    assert values[1, 1] == -2
    assert values[4, 0] == 0.5 * 17 * 9 - 4


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("f32", np.float32), ("f16", np.float16), ("bf16", ml_dtypes.bfloat16), ("f64", np.float64), ("i8", np.int8)],
)
def test_plain_numbers(name, dtype):
    raw = np.arange(-3, 4).astype(dtype)
    np.testing.assert_array_equal(dequantize(raw.view(np.uint8), BY_NAME[name], (7,)), raw.astype(np.float32))


def test_more_than_one_chunk_and_none():
    kind = BY_NAME["q8_0"]
    blocks = np.zeros(CHUNK // 32 + 3, kind.layout)
    blocks["d"] = 1
    blocks["qs"] = np.arange(len(blocks))[:, None] % 100
    values = dequantize(blocks.view(np.uint8), kind, (len(blocks), 32))
    np.testing.assert_array_equal(values, blocks["qs"])
    assert dequantize(np.zeros(0, np.uint8), kind, (0, 64)).shape == (0, 64)


def test_unknown_types_are_refused_by_name():
    assert type_of_id(14).name == "q6_k"
    for number, said in ((9, "Q8_1"), (15, "Q8_K"), (41, "Q1_0"), (77, "unknown type number 77")):
        with pytest.raises(WeightsError, match=said):
            type_of_id(number)


def test_a_matrix_of_blocks():
    kind = BY_NAME["q4_1"]
    raw = np.frombuffer(hashlib.shake_128(b"matrix").digest(5 * 40), np.uint8).reshape(5, 40)
    matrix = BlockMatrix(raw, kind)
    whole = matrix.dequantize()
    assert (matrix.shape, matrix.storage, matrix.nbytes) == ((5, 64), "q4_1", 200)
    np.testing.assert_array_equal(matrix.rows(np.array([4, 0])), whole[[4, 0]])
    np.testing.assert_array_equal(matrix[1:3].dequantize(), whole[1:3])
    np.testing.assert_array_equal(matrix[np.array([2, 2])].dequantize(), whole[[2, 2]])
    assert not np.shares_memory(matrix.copy().raw, raw)
    np.testing.assert_array_equal(matrix.columns(slice(32, 64)).dequantize(), whole[:, 32:])
    np.testing.assert_array_equal(matrix.columns(slice(16, 48)), whole[:, 16:48])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(matrix.widen(np.dtype(np.float16)), whole.astype(np.float16))
    with pytest.raises(ShapeError, match="20-byte blocks"):
        BlockMatrix(raw[:, :30], kind)
