import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.errors import DTypeError, ModelNotFoundError, WeightsError
from tallow.tensor import Tensor
from tallow.weights.safetensors import DTYPES, open_safetensors, save_safetensors
from tallow.weights.var_builder import VarBuilder


def write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("kind", list(DTYPES))
def test_every_dtype_is_read_as_it_was_written(tmp_path, kind):
    array = np.arange(12).reshape(3, 4).astype(DTYPES[kind])
    save_safetensors({"a": array, "empty": array[:0], "scalar": array[1, 1]}, tmp_path / "x.safetensors")
    source = open_safetensors(tmp_path / "x.safetensors")
    assert source.info("a").shape == (3, 4)
    for name, expected in {"a": array, "empty": array[:0], "scalar": array[1, 1]}.items():
        got = source.read(name)
        assert got.dtype == DTYPES[kind]
        assert got.shape == np.shape(expected)
        assert got.tobytes() == expected.tobytes()


def test_the_library_reads_what_we_write_and_we_read_what_it_writes(tmp_path):
    arrays = {"b": np.arange(5, dtype=np.int64), "ä": np.ones((2, 3), np.float16)[:, ::2], "c": np.float32(3)}
    save_safetensors(arrays, tmp_path / "ours", {"format": "np"})
    for name, array in safetensors.numpy.load_file(tmp_path / "ours").items():
        np.testing.assert_array_equal(array, arrays[name])
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors.numpy.save_file(plain, tmp_path / "theirs", {"k": "v"})
    source = open_safetensors(tmp_path / "theirs")
    assert source.metadata == {"k": "v"}
    assert set(source.names()) == set(arrays)
    for name in arrays:
        np.testing.assert_array_equal(source.read(name), plain[name])


def test_tensors_are_read_only_views_that_survive_release(tmp_path):
    save_safetensors({"a": Tensor(np.arange(5000, dtype=np.float32))}, tmp_path / "x")
    source = open_safetensors(tmp_path / "x")
    a, again = source.read("a"), source.read("a")
    assert np.shares_memory(a, again)
    assert not a.flags.writeable
    source.release("a")
    del source
    assert a[4999] == 4999


def test_data_need_not_be_aligned(tmp_path):
    write(tmp_path / "x", b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} ', struct.pack("<2f", 1.5, -2))
    assert open_safetensors(tmp_path / "x").read("a").tolist() == [1.5, -2]


def test_nan_and_infinity_survive(tmp_path):
    array = np.array([np.nan, np.inf, -np.inf, 1e38], np.float32).astype(ml_dtypes.bfloat16)
    save_safetensors({"a": array}, tmp_path / "x")
    assert open_safetensors(tmp_path / "x").read("a").tobytes() == array.tobytes()


def test_null_metadata_is_none(tmp_path):
    header = {"__metadata__": None, "a": entry([2], 0, 8)}
    source = open_safetensors(write(tmp_path / "x", header, struct.pack("<2f", 1.5, -2)))
    assert source.metadata == {}
    assert source.read("a").tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("kind", "shape", "nbytes"),
    [("F4", [2, 4], 4), ("F6_E2M3", [4], 3), ("F6_E3M2", [8], 6), ("F8_E4M3FNUZ", [3], 3), ("F4", [0], 0)],
)
def test_a_type_that_is_not_read_leaves_the_others(tmp_path, kind, shape, nbytes):
    header = {"a": entry([2], 0, 8), "b.c": entry(shape, 8, 8 + nbytes, kind), "d": entry([1], 8 + nbytes, 12 + nbytes)}
    path = write(tmp_path / "x.safetensors", header, struct.pack("<2f", 1.5, -2) + bytes(nbytes) + FOUR)
    other = tmp_path / "y.safetensors"
    save_safetensors({"e": np.ones(1)}, other)
    for source in (open_safetensors(path), open_safetensors([path, other])):
        assert set(source.names()) >= {"a", "b.c", "d"}
        assert source.read("a").tolist() == [1.5, -2]
        assert source.read("d").tolist() == [0]
        source.release("d")
        for ask in (source.info, source.read):
            with pytest.raises(WeightsError, match=rf"'b\.c' is of type {kind}"):
                ask("b.c")
    with pytest.raises(WeightsError, match=rf"'b\.c' is of type {kind}"):
        VarBuilder.from_safetensors(path).pp("b").get(tuple(shape), "c")
    assert VarBuilder.from_safetensors(path).get((2,), "a").tolist() == [1.5, -2]


FOUR = b"\0" * 4
BAD = {
    "empty header": (b"", b"", None),
    "not json": (b"{", b"", None),
    "not an object": (b"[]", b"", None),
    "not utf-8": (b'{"\xff":1}', b"", None),
    "deep": (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", b"", None),
    "nan": (b'{"a":NaN}', b"", None),
    "a number of 5000 digits": (b'{"a":' + b"9" * 5000 + b"}", b"", None),
    "duplicate name": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":1}', FOUR, None),
    "duplicate key": (b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', FOUR, None),
    "huge length": ({}, b"", 2**63),
    "length past the end": ({}, b"", 1000),
    "length just past the end": ({}, b"", 3),
    "entry is no object": ({"a": 3}, b"", None),
    "entry lacks a key": ({"a": {"dtype": "F32", "shape": [1]}}, FOUR, None),
    "half a byte too many": ({"a": entry([3], 0, 2, "F4")}, b"\0\0", None),
    "four bits in whole bytes": ({"a": entry([4], 0, 4, "F4")}, FOUR, None),
    "unknown dtype": ({"a": entry([1], 0, 4, "F31")}, FOUR, None),
    "dtype is no string": ({"a": entry([1], 0, 4, ["F32"])}, FOUR, None),
    "negative axis": ({"a": entry([-1], 0, 4)}, FOUR, None),
    "two negative axes": ({"a": entry([-1, -1], 0, 4)}, FOUR, None),
    "float axis": ({"a": entry([1.0], 0, 4)}, FOUR, None),
    "boolean axis": ({"a": entry([True], 0, 4)}, FOUR, None),
    "null axis": ({"a": entry([None], 0, 4)}, FOUR, None),
    "shape is no list": ({"a": entry("1", 0, 4)}, FOUR, None),
    "too many axes": ({"a": entry([1] * 65, 0, 4)}, FOUR, None),
    "shape overflows": ({"a": entry([2**32, 2**32], 0, 0)}, b"", None),
    "shape overflows to its size": ({"a": entry([2**62 + 1], 0, 4)}, FOUR, None),
    "shape overflows beside a zero": ({"a": entry([0, 2**40, 2**40], 0, 0)}, b"", None),
    "empty with a huge axis": ({"a": entry([2**40, 0], 0, 0)}, b"", None),
    "huge axis": ({"a": entry([10**30], 0, 4)}, FOUR, None),
    "size does not match": ({"a": entry([2], 0, 4)}, FOUR, None),
    "offsets reversed": ({"a": entry([1], 4, 0)}, FOUR, None),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, FOUR, None),
    "negative offset": ({"a": entry([1], -4, 0)}, FOUR, None),
    "offsets out of range": ({"a": entry([1], 4, 8)}, FOUR, None),
    "offsets far out of range": ({"a": entry([1], 2**63, 2**63 + 4)}, FOUR, None),
    "overlap": ({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, b"\0" * 6, None),
    "the same bytes twice": ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, FOUR, None),
    "gap": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"\0" * 12, None),
    "gap at the start": ({"a": entry([1], 4, 8)}, b"\0" * 8, None),
    "trailing bytes": ({"a": entry([1], 0, 4)}, b"\0" * 5, None),
    "truncated": ({"a": entry([1], 0, 4)}, b"\0" * 3, None),
    "metadata is no object": ({"__metadata__": []}, b"", None),
    "metadata is not strings": ({"__metadata__": {"a": 1}}, b"", None),
}


@pytest.mark.parametrize("case", list(BAD))
def test_damaged_files_are_refused_by_name(tmp_path, case):
    header, data, length = BAD[case]
    path = write(tmp_path / "bad.safetensors", header, data, length)
    with pytest.raises(WeightsError, match=r"bad\.safetensors"):
        open_safetensors(path)


def test_errors_name_the_tensor(tmp_path):
    path = write(tmp_path / "x", {"layer.weight": entry([2], 0, 4)}, FOUR)
    with pytest.raises(WeightsError, match=r"'layer\.weight'.*\[2\] takes 8 bytes, the offsets hold 4"):
        open_safetensors(path)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_files_too_short_for_a_length(tmp_path, size):
    (tmp_path / "x").write_bytes(b"\0" * size)
    with pytest.raises(WeightsError):
        open_safetensors(tmp_path / "x")


def test_a_header_over_the_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", 100_000_001))
    os.truncate(path, 100_000_100)  # sparse
    with pytest.raises(WeightsError, match="at most 100,000,000"):
        open_safetensors(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(ModelNotFoundError):
        open_safetensors(tmp_path / "absent")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(WeightsError, match="not a regular file"):
        open_safetensors(tmp_path / "fifo")
    with pytest.raises(ModelNotFoundError, match="has no"):
        open_safetensors(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_damage_is_an_error_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    save_safetensors({"a": np.arange(3, dtype=np.float32), "b.weight": np.ones((2, 2), np.int8)}, folder / "good")
    raw = bytearray((folder / "good").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (folder / "damaged").write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        source = open_safetensors(folder / "damaged")
    except WeightsError:
        return
    for name in source.names():
        assert source.read(name).nbytes == source.info(name).nbytes


class TestShards:
    def make(self, folder, weight_map, files):
        for file, names in files.items():
            save_safetensors({name: np.full(2, i, np.float32) for i, name in enumerate(names)}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    def test_a_folder_with_an_index(self, tmp_path):
        self.make(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"}, {"1.safetensors": "a", "2.safetensors": "b"})
        for paths in (tmp_path, tmp_path / "model.safetensors.index.json"):
            source = open_safetensors(paths)
            assert set(source.names()) == {"a", "b"}
            assert source.read("b").tolist() == [0, 0]
            assert source.info("b").nbytes == 8
            assert source.info("c") is None
            source.release("b")

    def test_a_list_of_files(self, tmp_path):
        self.make(tmp_path, {"a": "1.safetensors"}, {"1.safetensors": "a", "2.safetensors": "b"})
        source = open_safetensors([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
        assert set(source.names()) == {"a", "b"}
        with pytest.raises(ModelNotFoundError):
            open_safetensors([])

    def test_one_name_in_two_files(self, tmp_path):
        self.make(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"}, {"1.safetensors": "a", "2.safetensors": "ab"})
        with pytest.raises(WeightsError, match="'a' is also in"):
            open_safetensors(tmp_path)

    def test_a_name_that_is_not_where_the_index_says(self, tmp_path):
        self.make(tmp_path, {"a": "2.safetensors", "b": "2.safetensors"}, {"2.safetensors": "b"})
        with pytest.raises(WeightsError, match="'a' is not in"):
            open_safetensors(tmp_path)

    def test_a_missing_shard(self, tmp_path):
        self.make(tmp_path, {"a": "9.safetensors"}, {})
        with pytest.raises(ModelNotFoundError, match=r"9\.safetensors"):
            open_safetensors(tmp_path)

    @pytest.mark.parametrize(
        "file", ["../1.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..\\x.safetensors", "C:x.safetensors", 3]
    )
    def test_paths_that_leave_the_folder(self, tmp_path, file):
        self.make(tmp_path, {"a": file}, {})
        with pytest.raises(WeightsError, match="not a file of this folder"):
            open_safetensors(tmp_path)

    @pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}', "{"])
    def test_a_damaged_index(self, tmp_path, text):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(WeightsError):
            open_safetensors(tmp_path)

    def test_links_out_of_the_folder_are_followed(self, tmp_path):
        """The hub's cache is made of such links."""
        (tmp_path / "blobs").mkdir()
        (tmp_path / "snapshot").mkdir()
        self.make(tmp_path / "blobs", {}, {"1.safetensors": "a"})
        (tmp_path / "snapshot" / "model.safetensors").symlink_to(tmp_path / "blobs" / "1.safetensors")
        assert list(open_safetensors(tmp_path / "snapshot").names()) == ["a"]


class TestSave:
    def test_a_dtype_without_a_name(self, tmp_path):
        with pytest.raises(DTypeError, match="complex128"):
            save_safetensors({"a": np.zeros(1, np.complex128)}, tmp_path / "x")
        assert os.listdir(tmp_path) == []

    def test_nothing_half_written_after_an_interrupt(self, tmp_path, monkeypatch):
        (tmp_path / "x").write_bytes(b"before")

        def interrupt(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_safetensors({"a": np.zeros(1)}, tmp_path / "x")
        assert os.listdir(tmp_path) == ["x"]
        assert (tmp_path / "x").read_bytes() == b"before"

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(WeightsError, match="cannot be written"):
            save_safetensors({}, tmp_path / "no" / "x")

    def test_no_tensors(self, tmp_path):
        save_safetensors({}, tmp_path / "x")
        assert list(open_safetensors(tmp_path / "x").names()) == []
