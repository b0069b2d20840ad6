import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.errors import ModelNotFoundError, WeightsError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.weights.gguf import GGUFFile, SplitGGUF, open_gguf

from .gguf_bytes import ARRAY, NUMBERS, STRING, U32, array, gguf, pair, tensor

Q4_0, Q8_0 = 2, 8


@pytest.fixture
def open_bytes(tmp_path):
    def open_(data):
        (tmp_path / "model.gguf").write_bytes(data)
        return GGUFFile(tmp_path / "model.gguf")

    return open_


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_of_every_type(open_bytes, version):
    pairs = [pair(f"n{kind}", kind, 1) for kind in NUMBERS]
    pairs += [pair(f"a{kind}", ARRAY, array(kind, [1, 0, 1])) for kind in NUMBERS]
    pairs += [pair("s", STRING, "größer"), pair("strings", ARRAY, array(STRING, ["a", "", "ü"]))]
    pairs += [
        pair("none", ARRAY, array(STRING, [])),
        pair("nested", ARRAY, array(ARRAY, [array(5, [-3]), array(5, [])])),
    ]
    metadata = open_bytes(gguf(pairs, version=version)).metadata
    for kind in NUMBERS:
        assert metadata[f"n{kind}"] == 1
        assert list(metadata[f"a{kind}"]) == [1, 0, 1]
    assert metadata["n7"] is True
    assert metadata["s"] == "größer"
    assert list(metadata["strings"]) == ["a", "", "ü"]
    assert len(metadata["strings"]) == 3
    assert len(metadata["none"]) == 0
    assert list(metadata["none"]) == []
    assert [list(inner) for inner in metadata["nested"]] == [[-3], []]


def test_tensors_of_plain_numbers_are_views(open_bytes):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    words = np.arange(4, dtype=np.int64)
    data = matrix.tobytes() + b"\0" * 8 + words.tobytes()
    source = open_bytes(gguf([], [tensor("m", [3, 2]), tensor("w", [4], 27, 32), tensor("no", [0, 5], 0, 0)], data))
    assert list(source.names()) == ["m", "w", "no"]
    assert source.info("m") == ((2, 3), np.dtype("<f4"), 24, None)
    np.testing.assert_array_equal(source.read("m"), matrix)
    np.testing.assert_array_equal(source.read("w"), words)
    assert not source.read("m").flags.writeable
    source.release("m")
    np.testing.assert_array_equal(source.read("m"), matrix)
    assert source.read("no").shape == (5, 0)
    assert source.info("other") is None


def test_matrices_stay_in_their_blocks_and_the_rest_is_widened(open_bytes):
    block = np.float16(0.5).tobytes() + bytes([0x98] * 16)  # 0.5 · (8 − 8), then 0.5 · (9 − 8)
    source = open_bytes(
        gguf([], [tensor("m", [64, 3], Q4_0), tensor("v", [32], Q4_0, 128)], block * 6 + b"\0" * 20 + block)
    )
    matrix = source.read("m")
    assert isinstance(matrix, BlockMatrix)
    assert (matrix.shape, matrix.storage, matrix.nbytes) == ((3, 64), "q4_0", 108)
    row = np.float32([0] * 16 + [0.5] * 16)
    np.testing.assert_array_equal(matrix.dequantize(), np.tile(row, (3, 2)))
    np.testing.assert_array_equal(matrix.rows(np.array([[2], [0]])), np.tile(row, (2, 1, 2)))
    assert matrix[1:].shape == (2, 64)
    np.testing.assert_array_equal(source.read("v"), row)


def test_alignment_is_the_files_own(open_bytes):
    data = gguf([pair("general.alignment", U32, 8)], [tensor("a", [1]), tensor("b", [1], 0, 8)], alignment=8)
    source = open_bytes(data + struct.pack("<ff", 1.5, 0) + struct.pack("<f", 2.5))
    assert (float(source.read("a")[0]), float(source.read("b")[0])) == (1.5, 2.5)


FOUR = b"\0" * 4
HUGE = struct.pack("<Q", 2**63)
BAD = {
    "empty": b"",
    "short": b"GGU",
    "magic": gguf(magic=b"GGML"),
    "version 1": gguf(version=1),
    "version 4": gguf(version=4),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "no counts": b"GGUF\3\0\0\0",
    "many tensors": gguf(counts=(2**63, 0)),
    "many keys": gguf(counts=(0, 2**64 - 1)),
    "one key too few": gguf(counts=(0, 1), data=FOUR),
    "key length": gguf([HUGE + b"a" * 20]),
    "key too long": gguf([pair("k" * 65_536, U32, 1)]),
    "key not utf-8": gguf([pair(b"\xff", U32, 1)]),
    "key twice": gguf([pair("a", U32, 1), pair("a", U32, 2)]),
    "value type": gguf([pair("a", 13, b"\0" * 16)]),
    "value cut": gguf([pair("a", STRING, HUGE)]),
    "value not utf-8": gguf([pair("a", STRING, b"\1\0\0\0\0\0\0\0\xff")]),
    "boolean 2": gguf([pair("a", 7, 2)]),
    "boolean 2 in an array": gguf([pair("a", ARRAY, array(7, [1, 2]))]),
    "array type": gguf([pair("a", ARRAY, struct.pack("<IQ", 99, 0))]),
    "array count": gguf([pair("a", ARRAY, array(U32, [1], 2**62))]),
    "strings count": gguf([pair("a", ARRAY, array(STRING, ["a"], 2**61))]),
    "strings cut": gguf([pair("a", ARRAY, array(STRING, [], 2) + struct.pack("<Q", 8) + b"a" * 8)], alignment=1),
    "string in an array cut": gguf([pair("a", ARRAY, array(STRING, [], 2) + HUGE + HUGE)]),
    "nested count": gguf([pair("a", ARRAY, array(ARRAY, [], 2**60))]),
    "nested too deep": gguf([pair("a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 500_000)]),
    "alignment 0": gguf([pair("general.alignment", U32, 0)]),
    "alignment 24": gguf([pair("general.alignment", U32, 24)]),
    "alignment is a string": gguf([pair("general.alignment", STRING, "32")]),
    "alignment is a float": gguf([pair("general.alignment", 6, 32.0)]),
    "tensor cut": gguf(counts=(1, 0), data=b"\0" * 30),
    "tensor name long": gguf([], [tensor("a" * 1025, [1])], FOUR),
    "tensor twice": gguf([], [tensor("a", [1]), tensor("a", [1], 0, 32)], b"\0" * 64),
    "rank 5": gguf([], [tensor("a", [1] * 5)], FOUR),
    "rank huge": gguf([], [tensor("a", [1], rank=2**32 - 1)], FOUR),
    "shape overflows": gguf([], [tensor("a", [2**32, 2**32])], FOUR),
    "shape overflows to its size": gguf([], [tensor("a", [2**62 + 1])], FOUR),
    "shape overflows beside a zero": gguf([], [tensor("a", [0, 2**40, 2**40])], FOUR),
    "half a block": gguf([], [tensor("a", [48], Q8_0)], b"\0" * 64),
    "blocks of one value": gguf([], [tensor("a", [], Q8_0)], b"\0" * 64),
    "type Q8_1": gguf([], [tensor("a", [32], 9)], b"\0" * 64),
    "type Q8_K": gguf([], [tensor("a", [256], 15)], b"\0" * 512),
    "type unknown": gguf([], [tensor("a", [32], 1000)], b"\0" * 64),
    "offset not aligned": gguf([], [tensor("a", [1], 0, 4)], b"\0" * 8),
    "offset out of range": gguf([], [tensor("a", [1], 0, 32)], b"\0" * 32),
    "offset far out of range": gguf([], [tensor("a", [1], 0, 2**64 - 32)], FOUR),
    "overlap": gguf([], [tensor("a", [16]), tensor("b", [1], 0, 32)], b"\0" * 64),
    "the same bytes twice": gguf([], [tensor("a", [1]), tensor("b", [1])], FOUR),
    "truncated": gguf([], [tensor("a", [2])], b"\0" * 7),
    "no data at all": gguf([], [tensor("a", [1])], alignment=1),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_bad_files_are_refused(open_bytes, data):
    with pytest.raises(WeightsError, match=r"model\.gguf"):
        open_bytes(data)


def test_what_cannot_be_read_is_named(open_bytes):
    with pytest.raises(WeightsError, match=r"tensor 'a': type Q8_K .*Q4_K"):
        open_bytes(BAD["type Q8_K"])
    with pytest.raises(WeightsError, match="big-endian"):
        open_bytes(BAD["big-endian"])


def test_strings_that_are_not_utf8_are_refused_when_they_are_read(open_bytes):
    strings = open_bytes(gguf([pair("a", ARRAY, array(STRING, ["a", b"\xff"]))])).metadata["a"]
    with pytest.raises(WeightsError, match="'a': holds a string that is not UTF-8"):
        list(strings)
    assert strings[0] == "a"
    with pytest.raises(IndexError):
        strings[2]


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelNotFoundError):
        open_gguf(tmp_path / "no.gguf")


GOOD = gguf(
    [pair("general.alignment", U32, 32), pair("s", STRING, "abc"), pair("a", ARRAY, array(STRING, ["x", "yz"]))],
    [tensor("t", [32, 2], Q8_0), tensor("u", [2], 0, 96)],
    b"\1" * 104,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(GOOD)))
def test_mutations_raise_nothing_else(tmp_path_factory, changes, length):
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(data[: length if length % 3 == 0 else len(data)])
    try:
        source = GGUFFile(path)
        for name in source.names():
            value = source.read(name)
            (value.dequantize() if isinstance(value, BlockMatrix) else value).tobytes()
        for value in source.metadata.values():
            repr(list(value) if isinstance(value, list) else value)
    except WeightsError:
        pass


def split(tmp_path, names, counts=(2, 2)):
    for part, (name, count) in enumerate(zip(names, counts, strict=True), 1):
        pairs = [pair("split.count", 2, count)] if count else []
        data = gguf(pairs, [tensor(name, [1])], struct.pack("<f", part))
        (tmp_path / f"m-{part:05}-of-{len(names):05}.gguf").write_bytes(data)
    return tmp_path / f"m-00001-of-{len(names):05}.gguf"


def test_the_parts_of_a_split_model(tmp_path):
    source = open_gguf(split(tmp_path, ["a", "b"]))
    assert isinstance(source, SplitGGUF)
    assert list(source.names()) == ["a", "b"]
    assert [float(source.read(name)[0]) for name in ("a", "b")] == [1, 2]
    assert source.info("b").shape == (1,)
    assert source.info("c") is None
    assert source.kind("b").name == "f32"
    source.release("b")


def test_parts_that_do_not_fit(tmp_path):
    first = split(tmp_path, ["a", "a"])
    with pytest.raises(WeightsError, match="also in"):
        open_gguf(first)
    with pytest.raises(WeightsError, match="expected the first"):
        open_gguf(tmp_path / "m-00002-of-00002.gguf")
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(ModelNotFoundError, match="00002"):
        open_gguf(first)
    first.rename(tmp_path / "renamed.gguf")
    with pytest.raises(WeightsError, match="expected the first"):
        open_gguf(tmp_path / "renamed.gguf")
    with pytest.raises(WeightsError, match="expected the first"):
        open_gguf(split(tmp_path, ["a", "b"], (3, 3)))


def test_a_matrix_of_no_rows_keeps_its_columns(tmp_path):
    (tmp_path / "x.gguf").write_bytes(gguf(tensors=[tensor("q", [64, 0], kind=8)]))
    source = GGUFFile(tmp_path / "x.gguf")
    assert source.read("q").shape == source.info("q").shape == (0, 64)
