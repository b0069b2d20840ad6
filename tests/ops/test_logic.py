import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallow as tl
from tallow.errors import DTypeError, ShapeError
from tests.arrays import ALL, INTEGERS, NARROW, NUMERIC, REAL, arrays, assert_same, few, pairs, storage

BINARY = {
    "equal": ALL,
    "not_equal": ALL,
    "less": REAL,
    "less_equal": REAL,
    "greater": REAL,
    "greater_equal": REAL,
    "logical_and": ("bool",),
    "logical_or": ("bool",),
    "logical_xor": ("bool",),
    "bitwise_and": ("bool", *INTEGERS),
    "bitwise_or": ("bool", *INTEGERS),
    "bitwise_xor": ("bool", *INTEGERS),
}
UNARY = {
    "isfinite": NUMERIC,
    "isinf": NUMERIC,
    "isnan": NUMERIC,
    "logical_not": ("bool",),
    "bitwise_invert": ("bool", *INTEGERS),
}


@pytest.mark.parametrize("name", BINARY)
@given(data=st.data())
@few
def test_binary_against_the_standard(name, data):
    a, b = data.draw(pairs(BINARY[name]))
    assert_same(getattr(tl, name)(tl.asarray(a), tl.asarray(b)), getattr(xp, name)(xp.asarray(a), xp.asarray(b)))


@pytest.mark.parametrize("name", UNARY)
@given(data=st.data())
@few
def test_unary_against_the_standard(name, data):
    a = data.draw(arrays(UNARY[name]))
    assert_same(getattr(tl, name)(tl.asarray(a)), getattr(xp, name)(xp.asarray(a)))


@pytest.mark.parametrize("name", ["bitwise_left_shift", "bitwise_right_shift"])
@given(data=st.data())
@few
def test_shifts_against_the_standard(name, data):
    a, b = data.draw(pairs(INTEGERS))
    b = np.abs(b) % b.dtype.type(8)
    b = np.where(b < 0, b.dtype.type(0), b)
    assert_same(getattr(tl, name)(tl.asarray(a), tl.asarray(b)), getattr(xp, name)(xp.asarray(a), xp.asarray(b)))


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
@given(data=st.data())
@few
def test_narrow_floats_compare_as_float32(dtype, name, data):
    a, b = data.draw(arrays(dtype, (3,))), data.draw(arrays(dtype, (3,)))
    expected = getattr(np, name)(a.astype("f4"), b.astype("f4"))
    assert_same(getattr(tl, name)(tl.asarray(a), tl.asarray(b)), expected)
    x = tl.asarray(a)
    assert_same(tl.isnan(x), np.isnan(a.astype("f4")))
    assert_same(tl.isinf(x), np.isinf(a.astype("f4")))
    assert_same(tl.isfinite(x), np.isfinite(a.astype("f4")))


def test_scalars_and_mixed_kinds():
    x = tl.asarray([1, 2, 3], dtype=tl.int8)
    assert_same(x == 2, np.asarray([False, True, False]))
    assert_same(x < 2.5, np.asarray([True, True, False]))
    assert_same(x > 2, np.asarray([False, False, True]))
    assert_same(x == tl.asarray([1.0, 2.5, 3.0]), np.asarray([True, False, True]))
    assert_same(x & 1, np.asarray([1, 0, 1], "int8"))
    assert_same(1 | x, np.asarray([1, 3, 3], "int8"))
    assert_same(tl.asarray([True, False]) & True, np.asarray([True, False]))
    assert_same(1 << x, np.asarray([2, 4, 8], "int8"))
    assert_same(tl.asarray([1.0, 2.0], dtype="bfloat16") == 1, np.asarray([True, False]))


def test_logical_operations_take_numbers_as_not_zero():
    x = tl.asarray([0.0, 2.0, float("nan")])
    assert_same(tl.logical_and(x, True), np.asarray([False, True, True]))
    assert_same(tl.logical_not(tl.asarray([0, 3])), np.asarray([True, False]))
    half = tl.asarray([0.0, 1.0], dtype="bfloat16")
    assert_same(tl.logical_or(half, half), np.asarray([False, True]))


def test_errors_name_the_operation():
    with pytest.raises(DTypeError, match="bitwise_and: does not take float32"):
        tl.ones(2) & tl.ones(2)
    with pytest.raises(DTypeError, match="bitwise_invert: does not take float32"):
        ~tl.ones(2)
    with pytest.raises(ShapeError, match=r"equal: shapes \(2,\) and \(3,\)"):
        tl.equal(tl.ones(2), tl.ones(3))
    with pytest.raises(DTypeError, match="equal: uint64 and int64"):
        _ = tl.asarray([1], dtype=tl.uint64) == tl.asarray([1])


def test_bfloat16_bits_survive_copysign_and_signbit():
    x = tl.asarray(np.asarray([-0.0, 0.0, -1.0], storage("bfloat16")))
    assert_same(tl.signbit(x), np.asarray([True, False, True]))
    assert_same(tl.copysign(tl.asarray(2.0, dtype="bfloat16"), x), np.asarray([-2, 2, -2], storage("bfloat16")))
