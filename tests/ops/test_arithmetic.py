import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tallow as tl
from tallow.errors import DTypeError, ShapeError
from tests.arrays import (
    COMPLEX,
    FLOATS,
    INTEGERS,
    NARROW,
    NUMERIC,
    REAL,
    arrays,
    assert_close,
    assert_same,
    few,
    pairs,
    storage,
)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
inf, nan = float("inf"), float("nan")

BINARY = {
    "add": NUMERIC,
    "subtract": NUMERIC,
    "multiply": NUMERIC,
    "divide": FLOATS + COMPLEX,
    "remainder": REAL,
    "maximum": REAL,
    "minimum": REAL,
    "copysign": FLOATS,
    "hypot": FLOATS,
    "nextafter": FLOATS,
}
UNARY = {
    "abs": NUMERIC,
    "negative": NUMERIC,
    "positive": NUMERIC,
    "square": NUMERIC,
    "sqrt": FLOATS + COMPLEX,
    "reciprocal": FLOATS + COMPLEX,
    "signbit": FLOATS,
    "ceil": REAL,
    "floor": REAL,
    "trunc": REAL,
    "round": NUMERIC,
    "conj": COMPLEX,
    "real": COMPLEX,
    "imag": COMPLEX,
}


@pytest.mark.parametrize("name", BINARY)
@given(data=st.data())
@few
def test_binary_against_the_standard(name, data):
    a, b = data.draw(pairs(BINARY[name]))
    expected = getattr(xp, name)(xp.asarray(a), xp.asarray(b))
    found = getattr(tl, name)(tl.asarray(a), tl.asarray(b))
    if np.asarray(expected).dtype.kind == "c":  # NumPy itself rounds otherwise for operands of other strides
        assert_close(found, expected, rtol=1e-6 if np.asarray(expected).dtype == np.complex64 else 1e-15, atol=0)
    else:
        assert_same(found, expected)


@pytest.mark.parametrize("name", UNARY)
@given(data=st.data())
@few
def test_unary_against_the_standard(name, data):
    a = data.draw(arrays(UNARY[name]))
    assert_same(getattr(tl, name)(tl.asarray(a)), getattr(xp, name)(xp.asarray(a)))


@pytest.mark.parametrize("name", [name for name in BINARY if name != "nextafter"])
@pytest.mark.parametrize("dtype", NARROW)
@given(data=st.data())
@few
def test_narrow_floats_are_computed_in_float32_and_rounded_once(name, dtype, data):
    a, b = (x.astype(storage(dtype)) for x in data.draw(pairs(("float16",))))
    wide = np.asarray(getattr(xp, name)(xp.asarray(a.astype("f4")), xp.asarray(b.astype("f4"))))
    assert_same(getattr(tl, name)(tl.asarray(a), tl.asarray(b)), wide.astype(storage(dtype)))


def test_nextafter_steps_by_the_narrow_types_own_spacing():
    one, two = (tl.asarray(value, dtype="bfloat16") for value in (1.0, 2.0))
    assert float(tl.nextafter(one, two)) == 1 + 2**-7
    assert float(tl.nextafter(one.half(), two.half())) == 1 + 2**-10
    assert tl.nextafter(one, 2.0).dtype is tl.bfloat16


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (7.0, 2.0, 3.0),
        (-7.0, 2.0, -4.0),
        (1.0, 0.1, 9.0),
        (inf, 2.0, inf),
        (inf, -2.0, -inf),
        (-inf, 2.0, -inf),
        (-inf, -2.0, inf),
        (3.0, inf, 0.0),
        (3.0, -inf, -0.0),
        (-3.0, inf, -0.0),
        (-3.0, -inf, 0.0),
        (inf, inf, nan),
        (0.0, 0.0, nan),
        (-0.0, 0.0, nan),
        (1.0, 0.0, inf),
        (-1.0, 0.0, -inf),
        (0.0, 3.0, 0.0),
        (-0.0, 3.0, -0.0),
        (0.0, -3.0, -0.0),
        (nan, 1.0, nan),
        (inf, nan, nan),
        (nan, inf, nan),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_floor_divide_at_the_edges(a, b, expected, dtype):
    result = tl.floor_divide(tl.asarray(a, dtype=dtype), tl.asarray(b, dtype=dtype))
    assert_same(result, np.asarray(expected, storage(dtype)))


@given(pairs(INTEGERS))
@few
def test_floor_divide_of_integers(two):
    a, b = two
    b = np.where(b == 0, b.dtype.type(1), b)
    assert_same(tl.floor_divide(tl.asarray(a), tl.asarray(b)), np.floor_divide(a, b))


@given(arrays(FLOATS + INTEGERS))
@few
def test_sign(a):
    expected = np.where(np.isnan(a), a, (a > 0).astype(a.dtype) - (a < 0).astype(a.dtype)).astype(a.dtype)
    assert_same(tl.sign(tl.asarray(a)), expected + a.dtype.type(0))


def test_sign_of_complex_numbers():
    z = tl.asarray([3 + 4j, 0j, complex(-0.0, -0.0), complex(nan, 1)])
    unit, zero, minus, bad = tl.sign(z).tolist()
    assert unit == pytest.approx(0.6 + 0.8j)
    assert str(zero) == str(minus) == "0j"
    assert bad.real != bad.real


@pytest.mark.parametrize("dtype", [*FLOATS, "complex64"])
@given(data=st.data())
@few
def test_pow(dtype, data):
    a, b = data.draw(pairs((dtype,), limit=8) if dtype[0] == "c" else pairs((dtype,)))
    assume(dtype[0] == "c" or not (b == 0.5).any())  # the root, of which NumPy's power may be the float beside it
    assert_same(tl.pow(tl.asarray(a), tl.asarray(b)), xp.pow(xp.asarray(a), xp.asarray(b)))


@pytest.mark.parametrize(
    ("base", "exponent", "expected"),
    [
        (-inf, 0.5, inf),
        (-0.0, 0.5, 0.0),
        (-inf, 2.0, inf),
        (-inf, 3.0, -inf),
        (-inf, -3.0, -0.0),
        (-0.0, -1.0, -inf),
        (nan, 0.0, 1.0),
        (1.0, nan, 1.0),
        (-1.0, inf, 1.0),
        (-8.0, 1 / 3, nan),
    ],
)
def test_pow_at_the_edges(base, exponent, expected):
    x = tl.asarray([base], dtype=tl.float64)
    assert_same(x**exponent, np.asarray([expected]))
    assert_same(tl.pow(x, tl.asarray(exponent, dtype=tl.float64)), np.asarray([expected]))
    x **= tl.asarray([exponent], dtype=tl.float64)
    assert_same(x, np.asarray([expected]))


def test_pow_of_integers():
    assert_same(tl.asarray([2, -3], dtype=tl.int16) ** 3, np.asarray([8, -27], "int16"))
    with pytest.raises(DTypeError, match=r"pow: .*negative"):
        tl.asarray([2]) ** -1


@given(data=st.data())
@few
def test_clip_keeps_the_type_and_broadcasts(data):
    x = data.draw(arrays(REAL, nan=False))
    low, high = sorted(data.draw(arrays(x.dtype.name, (2,), nan=False)).tolist())
    expected = np.clip(x, x.dtype.type(low), x.dtype.type(high))
    assert_same(tl.clip(tl.asarray(x), low, high), expected, signs=False)
    bounds = [tl.asarray(np.asarray([value], x.dtype)) for value in (low, high)]
    assert_same(tl.clip(tl.asarray(x), *bounds), expected if x.ndim else expected[None], signs=False)
    assert_same(tl.clip(tl.asarray(x), min=low), np.maximum(x, x.dtype.type(low)), signs=False)
    assert_same(tl.clip(tl.asarray(x), max=high), np.minimum(x, x.dtype.type(high)), signs=False)


def test_clip_at_the_edges():
    x = tl.asarray([1.0, nan, 3.0])
    assert_same(tl.clip(x, 2, None), np.asarray([2, nan, 3], "f4"))
    assert_same(tl.clip(x, tl.asarray(nan), None), np.asarray([nan] * 3, "f4"))
    copy = tl.clip(x)
    copy[0] = 9.0
    assert float(x[0]) == 1.0
    small = tl.asarray([-100, 5, 100], dtype=tl.int8)
    assert_same(tl.clip(small, -1000, 2.7), np.asarray([-100, 2, 2], "int8"))
    assert_same(tl.clip(small, 0.5, inf), np.asarray([1, 5, 100], "int8"))
    assert_same(tl.clip(tl.asarray([7], dtype=tl.uint8), -inf, 300), np.asarray([7], "uint8"))
    with pytest.raises(DTypeError, match=r"clip: .*NaN"):
        tl.clip(small, nan, 3)


@pytest.mark.parametrize("dtype", [*FLOATS, *NARROW])
def test_scalars_are_weak(dtype):
    x = tl.asarray([1.0, 2.0], dtype=dtype)
    for scalar in (2, 0.5, True, np.float64(0.5), np.int8(3)):
        assert (x * scalar).dtype is x.dtype
        assert (scalar * x).dtype is x.dtype
    assert (x * 1j).dtype is (tl.complex128 if dtype == "float64" else tl.complex64)


def test_scalars_of_a_higher_kind_give_the_default_type():
    assert_same(tl.asarray([1, 2], dtype=tl.int8) * 0.5, np.asarray([0.5, 1], "f4"))
    assert_same(tl.asarray([1, 2]) + 1j, np.asarray([1 + 1j, 2 + 1j], "c8"))
    assert_same(tl.asarray([True, False]) + 1, np.asarray([2, 1]))
    assert_same(tl.asarray([True]) * 2.5, np.asarray([2.5], "f4"))
    assert_same(tl.divide(tl.asarray([1, 2]), 4), np.asarray([0.25, 0.5], "f4"))


def test_division_by_zero_is_silent(recwarn):
    assert_same(tl.asarray([1.0, -1.0, 0.0]) / 0.0, np.asarray([inf, -inf, nan], "f4"))
    assert_same(tl.asarray([1, 2], dtype=tl.int32) // 0, np.asarray([0, 0], "int32"))
    assert_same(tl.asarray([3e38]) * 10, np.asarray([inf], "f4"))
    assert_same(tl.asarray([1e300], dtype=tl.float64).float(), np.asarray([inf], "f4"))
    assert not recwarn.list


def test_errors_name_the_operation_and_both_operands():
    with pytest.raises(ShapeError, match=r"add: shapes \(2, 3\) and \(4,\)"):
        tl.ones((2, 3)) + tl.ones(4)
    with pytest.raises(DTypeError, match=r"subtract: does not take bool"):
        tl.asarray([True]) - tl.asarray([False])
    with pytest.raises(DTypeError, match=r"add: uint64 and int64 have no common type"):
        tl.asarray([1], dtype=tl.uint64) + tl.asarray([1])
    with pytest.raises(DTypeError, match=r"add: .*300"):
        tl.asarray([1], dtype=tl.uint8) + 300
    with pytest.raises(DTypeError, match=r"multiply: 300 does not fit in uint8"):
        np.int64(300) * tl.asarray([1], dtype=tl.uint8)
    with pytest.raises(DTypeError, match=r"add: expected a Tensor, found str"):
        tl.add(tl.ones(2), "1")
    with pytest.raises(DTypeError, match=r"add: expected a Tensor, found float"):
        tl.add(1.0, 2.0)
    with pytest.raises(DTypeError, match=r"abs: expected a Tensor, found list"):
        tl.abs([1])
    with pytest.raises(DTypeError, match=r"floor: does not take complex64"):
        tl.floor(tl.asarray([1j]))
