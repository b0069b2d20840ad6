import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallow as tl
from tallow.errors import ArgumentError, DTypeError, ShapeError
from tests.arrays import ALL, NARROW, arrays, assert_same, few, shapes, storage

EVERY = (*ALL, *NARROW)


@given(data=st.data())
@few
def test_arrays_are_shared_and_scalars_become_default_types(data):
    x = data.draw(arrays(EVERY, shapes(min_side=1)))
    t = tl.asarray(x)
    assert_same(t, x)
    assert np.shares_memory(t.storage, x)
    assert tl.asarray(t) is t
    default = {"f": "f4", "c": "c8", "i": "i8", "u": "i8", "b": "?"}.get(x.dtype.kind, "f4")
    if x.dtype.kind != "u" or int(x.max()) < 2**63:
        with np.errstate(over="ignore"):
            assert_same(tl.asarray(x.tolist()), x.astype(default))
    assert_same(tl.asarray(x.tolist(), dtype=getattr(tl, x.dtype.name)), x)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (True, "bool"),
        (1, "int64"),
        (1.5, "float32"),
        (1j, "complex64"),
        ([True, 2], "int64"),
        ([1, 2.5], "float32"),
        ([[1], [2j]], "complex64"),
        ([True, False], "bool"),
        ([], "float32"),
        ([[], []], "float32"),
        (range(3), "int64"),
        ((1, (2)), "int64"),
        (np.float64(2), "float64"),
        ([np.float64(2)], "float64"),
        ([np.arange(2, dtype="int8")], "int8"),
    ],
)
def test_types_of_python_objects(value, dtype):
    assert_same(tl.asarray(value), np.asarray(value, dtype))


def test_tensors_in_lists_are_stacked():
    x = tl.asarray([1, 2], dtype=tl.int8)
    assert_same(tl.asarray([x, x + 1]), np.asarray([[1, 2], [2, 3]], "int8"))
    assert_same(tl.asarray([[x[0], x[1]]]), np.asarray([[1, 2]], "int8"))
    assert_same(tl.asarray([x[0], 2.5]), np.asarray([1, 2.5], "f4"))
    assert_same(tl.asarray(tuple(x), dtype=tl.float32), np.asarray([1, 2], "f4"))


def test_buffers_and_foreign_byte_orders():
    assert_same(tl.asarray(b"\x01\xff"), np.asarray([1, 255], "uint8"))
    assert_same(tl.asarray(bytearray(b"ab")), np.asarray([97, 98], "uint8"))
    numbers = array.array("d", [1.0, 2.0])
    t = tl.asarray(numbers)
    numbers[0] = 5.0
    assert_same(t, np.asarray([5.0, 2.0]))
    assert_same(tl.asarray(np.asarray([1, 2], ">i4")), np.asarray([1, 2], "int32"))
    assert_same(tl.asarray(np.ma.asarray([1, 2])), np.asarray([1, 2]))

    class Grid:
        def __array__(self, dtype=None, copy=None):
            return np.asarray([[1, 2]], "int16")

    assert_same(tl.asarray(Grid()), np.asarray([[1, 2]], "int16"))


def test_copy():
    x = np.arange(3.0)
    t = tl.asarray(x)
    assert tl.asarray(t, copy=False) is t
    assert np.shares_memory(tl.asarray(x, copy=False).storage, x)
    for source in (x, t):
        copied = tl.asarray(source, copy=True)
        assert_same(copied, x)
        assert not np.shares_memory(copied.storage, x)
    for other in ([1, 2], 3):
        with pytest.raises(ArgumentError, match="needs a copy"):
            tl.asarray(other, copy=False)
    with pytest.raises(ArgumentError, match="needs a copy"):
        tl.asarray(t, dtype=tl.float32, copy=False)
    assert tl.asarray(t, dtype=tl.float64, device="cpu", copy=False) is t


def test_asarray_refuses():
    with pytest.raises(ShapeError, match="equal lengths"):
        tl.asarray([[1], [1, 2]])
    for text in ("text", ["a"], {"a": 1}, None, [None], object()):
        with pytest.raises(tl.TallowError, match=r"asarray: "):
            tl.asarray(text)
    with pytest.raises(DTypeError, match="datetime"):
        tl.asarray(np.asarray(["2020-01-01"], "datetime64[D]"))
    for value in (2**63, -(2**63) - 1, [2**70], 2**64):
        with pytest.raises(ArgumentError, match="asarray: an integer lies outside the range of int64"):
            tl.asarray(value)
    for value in (float("nan"), [float("nan")], float("inf")):
        with pytest.raises(ArgumentError, match=r"asarray: "):
            tl.asarray(value, dtype=tl.int8)
    assert_same(tl.asarray([1.5, 2**70]), np.asarray([1.5, 2**70], "f4"))
    assert_same(tl.asarray([1j, 2**70]), np.asarray([1j, 2**70], "c8"))
    with pytest.raises(ArgumentError, match="uint8"):
        tl.asarray([300], dtype=tl.uint8)
    for value in (1j, [1j], np.asarray([1j]), tl.asarray([1j])):
        with pytest.raises(DTypeError, match=r"asarray: "):
            tl.asarray(value, dtype=tl.float32)
    assert_same(tl.asarray(2**64 - 1, dtype=tl.uint64), np.asarray(2**64 - 1, "uint64"))


@given(data=st.data())
@few
def test_astype(data):
    x = data.draw(arrays(EVERY, limit=100))
    target = data.draw(st.sampled_from(EVERY))
    t = tl.asarray(x)
    if x.dtype.kind == "c" and target not in ("complex64", "complex128", "bool"):
        with pytest.raises(DTypeError, match="astype: complex"):
            tl.astype(t, target)
        return
    with np.errstate(all="ignore"):
        expected = x.astype(storage(target))
    result = tl.astype(t, getattr(tl, target))
    assert_same(result, expected)
    assert not np.shares_memory(result.storage, x)
    assert (tl.astype(t, target, copy=False) is t) == (x.dtype == storage(target))
    assert_same(tl.astype(t, target, device="cpu"), expected)


@pytest.mark.parametrize("name", NARROW)
def test_rounding_to_narrow_floats_is_to_nearest_even(name):
    spacing = 2.0 ** -(7 if name == "bfloat16" else 10)
    x = tl.asarray([1 + spacing / 2, 1 + 3 * spacing / 2, 1 + spacing * 0.51, 1e39, -1e-50], dtype=tl.float64)
    expected = [1.0, 1 + 2 * spacing, 1 + spacing, float("inf"), -0.0]
    assert_same(x.to(name), np.asarray(expected, "f4").astype(storage(name)))


def test_to_device_and_contiguous():
    x = tl.ones((2, 3))
    assert tl.ops.to_device(x, "cpu") is x
    assert x.to_device("cpu", stream=None) is x
    assert tl.ops.contiguous(x) is x
    turned = x.T
    assert not turned.is_contiguous()
    straight = turned.contiguous()
    assert straight.is_contiguous()
    assert_same(straight, turned.numpy())
    copied = tl.ops.copy(x)
    copied[0, 0] = 5
    assert float(x[0, 0]) == 1
    with pytest.raises(tl.DeviceError):
        x.to_device("cuda:99")
