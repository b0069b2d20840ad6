import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.errors import ModelNotFoundError, WeightsError
from tallow.matrix.quantize import Int8Matrix
from tallow.weights.ctranslate2 import CTranslate2File

from .ct2 import WHISPER_ALIASES, ct2_bytes, whisper_variables


@pytest.fixture
def open_bytes(tmp_path):
    def open_(data):
        (tmp_path / "model.bin").write_bytes(data)
        return CTranslate2File(tmp_path / "model.bin")

    return open_


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int32])
def test_variables_and_aliases(open_bytes, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    source = open_bytes(ct2_bytes({"a/weight": array, "n": np.int16(-7)}, [("b/weight", "a/weight")]))
    assert (source.spec, source.revision) == ("WhisperSpec", 3)
    assert list(source.names()) == ["a/weight", "n", "b/weight"]
    for name in ("a/weight", "b/weight"):
        assert source.info(name)[:3] == ((2, 3), np.dtype(dtype), array.nbytes)
        np.testing.assert_array_equal(source.read(name), array)
        assert not source.read(name).flags.writeable
        source.release(name)
    assert source.info("n").shape == ()
    assert int(source.read("n")) == -7


def test_int8_has_a_scale_for_each_row(open_bytes):
    values = np.array([[127, -127, 3], [1, 2, 0]], np.int8)
    scales = np.array([2, 4], np.float32)
    source = open_bytes(ct2_bytes({"w": values, "w_scale": scales}, [("alias", "w")]))
    for name in ("w", "alias"):
        matrix = source.read(name)
        assert isinstance(matrix, Int8Matrix)
        np.testing.assert_allclose(matrix.dequantize(), values / scales[:, None], rtol=1e-6)


def test_int8_kernels_and_int16_are_widened(open_bytes):
    kernel = np.arange(12, dtype=np.int8).reshape(2, 3, 2)
    matrix = np.array([[1024, -5]], np.int16)
    source = open_bytes(
        ct2_bytes({"c": kernel, "c_scale": np.float32([2, 4]), "m": matrix, "m_scale": np.float32(512)})
    )  # fmt: skip
    np.testing.assert_array_equal(source.read("c"), kernel / np.float32([2, 4])[:, None, None])
    assert source.read("m").tolist() == [[2, -5 / 512]]
    assert source.read("m").dtype == np.float32


@pytest.mark.parametrize(
    "scale",
    [None, np.float32([1]), np.float16([1, 1]), np.float32([1, 0]), np.float32([1, -1]), np.float32([1, np.nan]),
     np.float32([1, np.inf]), np.float32([1, 1e-45])],
)  # fmt: skip
def test_scales_that_do_not_fit(open_bytes, scale):
    variables = {"w": np.zeros((2, 2), np.int8)} | ({} if scale is None else {"w_scale": scale})
    source = open_bytes(ct2_bytes(variables))
    with pytest.raises(WeightsError, match=r"model\.bin: variable 'w'"):
        source.read("w")


ONE = {"w": np.zeros(4, np.float32)}
GOOD = ct2_bytes(ONE, [("v", "w")])


def variable(name=b"w\0", rank=1, shape=(4,), kind=0, nbytes=16, data=b"\0" * 16, count=1):
    head = ct2_bytes({})[:-8] + struct.pack("<I", count)
    return (
        head + struct.pack("<H", len(name)) + name + struct.pack(f"<B{len(shape)}I", rank, *shape)
        + struct.pack("<BI", kind, nbytes) + data + struct.pack("<I", 0)
    )  # fmt: skip


_VARIABLE = variable()[len(ct2_bytes({})) - 4 : -4]
TWICE = ct2_bytes({})[:-8] + struct.pack("<I", 2) + 2 * _VARIABLE + struct.pack("<I", 0)

BAD = {
    "old version": ct2_bytes(ONE, version=3),
    "new version": ct2_bytes(ONE, version=7),
    "empty string": variable(name=b"\0"),
    "string of no bytes": variable(name=b""),
    "string without zero": variable(name=b"ww"),
    "zero inside a string": variable(name=b"w\0\0"),
    "not utf-8": variable(name=b"\xff\0"),
    "more variables than there are": variable(count=2),
    "more variables than can be": variable(count=2**32 - 1),
    "more axes than there are": variable(rank=200),
    "unknown dtype": variable(kind=6),
    "too few bytes": variable(nbytes=12, data=b"\0" * 12),
    "too many bytes": variable(nbytes=20, data=b"\0" * 20),
    "shape overflows": variable(rank=4, shape=(65536,) * 4, nbytes=0, data=b""),
    "size past the end": variable(shape=(2**30 - 1,), nbytes=2**32 - 4),
    "the same name twice": TWICE,
    "alias of nothing": ct2_bytes(ONE, [("v", "u")]),
    "alias of a name in use": ct2_bytes(ONE, [("w", "w")]),
    "more aliases than can be": ct2_bytes(ONE)[:-4] + struct.pack("<I", 2**31),
    "trailing byte": GOOD + b"\0",
}  # fmt: skip


def test_the_builder_of_bad_files_builds_a_good_one(open_bytes):
    assert list(open_bytes(variable()).names()) == ["w"]


@pytest.mark.parametrize("case", list(BAD))
def test_damaged_files_are_refused_by_name(open_bytes, case):
    with pytest.raises(WeightsError, match=r"model\.bin"):
        open_bytes(BAD[case])


def test_the_same_name_twice(open_bytes):
    with pytest.raises(WeightsError, match="'w': the name occurs twice"):
        open_bytes(TWICE)


def test_every_truncation_is_refused(open_bytes):
    for size in range(len(GOOD)):
        with pytest.raises(WeightsError):
            open_bytes(GOOD[:size])


def test_no_such_file(tmp_path):
    with pytest.raises(ModelNotFoundError):
        CTranslate2File(tmp_path / "model.bin")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_damage_is_an_error_or_harmless(tmp_path_factory, data):
    raw = bytearray(ct2_bytes(whisper_variables(encoder=1), WHISPER_ALIASES))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "model.bin"
    path.write_bytes(raw)
    try:
        source = CTranslate2File(path)
        for name in source.names():
            assert source.read(name).shape == source.info(name).shape
    except WeightsError:
        pass
