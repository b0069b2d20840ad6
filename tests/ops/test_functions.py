import cmath
import math

import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallow as tl
from tallow.errors import DTypeError
from tests.arrays import COMPLEX, FLOATS, NARROW, arrays, assert_close, assert_same, few, pairs, storage

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
inf, nan, pi = math.inf, math.nan, math.pi

REAL_NAMES = ("exp", "expm1", "log", "log1p", "log2", "log10")
NAMES = (*REAL_NAMES, *(f"{a}{b}{c}" for a in ("", "a") for b in ("sin", "cos", "tan") for c in ("", "h")))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@few
def test_real_functions_against_the_standard(name, data):
    a = data.draw(arrays(FLOATS))
    assert_same(getattr(tl, name)(tl.asarray(a)), getattr(xp, name)(xp.asarray(a)))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@few
def test_complex_functions_against_python(name, data):
    a = data.draw(arrays(COMPLEX, limit=20))
    other = {
        "log1p": lambda z: cmath.log(complex(1 + z.real, z.imag)),
        "expm1": lambda z: cmath.exp(z) - 1,
        "log2": lambda z: cmath.log(z) / math.log(2),
    }
    reference = other.get(name) or getattr(cmath, name)
    try:
        expected = np.asarray([reference(complex(z)) for z in a.ravel()], a.dtype).reshape(a.shape)
    except ValueError:  # a pole
        return
    assert_close(getattr(tl, name)(tl.asarray(a)), expected, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["atan2", "logaddexp"])
@given(data=st.data())
@few
def test_binary_functions_against_the_standard(name, data):
    a, b = data.draw(pairs(FLOATS))
    assert_same(getattr(tl, name)(tl.asarray(a), tl.asarray(b)), getattr(xp, name)(xp.asarray(a), xp.asarray(b)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", NARROW)
@given(data=st.data())
@few
def test_narrow_floats_are_computed_in_float32_and_rounded_once(name, dtype, data):
    a = data.draw(arrays(dtype))
    wide = np.asarray(getattr(xp, name)(xp.asarray(a.astype(np.float32))))
    assert_same(getattr(tl, name)(tl.asarray(a)), wide.astype(storage(dtype)))


@pytest.mark.parametrize("name", NAMES)
def test_integers_and_bools_give_float32(name):
    function = getattr(tl, name)
    assert_same(function(tl.asarray([1, 2], dtype=tl.int64)), function(tl.asarray([1.0, 2.0])).numpy())
    assert_same(function(tl.asarray([True])), function(tl.asarray([1.0])).numpy())


def test_scalars_and_integers_in_binary_functions():
    x = tl.asarray([1, 2], dtype=tl.int8)
    assert_close(tl.atan2(x, 2), np.arctan2(np.asarray([1, 2], "f4"), np.float32(2)))
    assert_close(tl.logaddexp(1.0, x), np.logaddexp(np.float32(1), np.asarray([1, 2], "f4")))
    assert tl.atan2(tl.asarray([1.0], dtype=tl.float64), 1).dtype is tl.float64
    with pytest.raises(DTypeError, match="atan2"):
        tl.atan2(tl.asarray([1j]), 1.0)


_ = None  # a part of a result that the standard leaves open

# (function, real part, imaginary part, real part of the result, imaginary part of it). A sign of zero or infinity that
# the standard leaves open is compared by its size, written as a string.
SPECIAL = [
    *[("acos", a, 0.0, pi / 2, -0.0) for a in (0.0, -0.0)],
    ("acos", 0.0, nan, pi / 2, nan),
    ("acos", 2.0, inf, pi / 2, -inf),
    ("acos", 2.0, nan, nan, nan),
    ("acos", -inf, 3.0, pi, -inf),
    ("acos", inf, 3.0, 0.0, -inf),
    ("acos", -inf, inf, 3 * pi / 4, -inf),
    ("acos", inf, inf, pi / 4, -inf),
    ("acos", inf, nan, nan, "inf"),
    ("acos", nan, 3.0, nan, nan),
    ("acos", nan, inf, nan, -inf),
    *[("acosh", a, 0.0, 0.0, pi / 2) for a in (0.0, -0.0)],
    ("acosh", 2.0, inf, inf, pi / 2),
    ("acosh", 2.0, nan, nan, nan),
    ("acosh", -inf, 3.0, inf, pi),
    ("acosh", inf, 3.0, inf, 0.0),
    ("acosh", -inf, inf, inf, 3 * pi / 4),
    ("acosh", inf, inf, inf, pi / 4),
    ("acosh", -inf, nan, inf, nan),
    ("acosh", nan, 3.0, nan, nan),
    ("acosh", nan, inf, inf, nan),
    ("asinh", 0.0, 0.0, 0.0, 0.0),
    ("asinh", 2.0, inf, inf, pi / 2),
    ("asinh", 2.0, nan, nan, nan),
    ("asinh", inf, 3.0, inf, 0.0),
    ("asinh", inf, inf, inf, pi / 4),
    ("asinh", nan, 0.0, nan, 0.0),
    ("asinh", nan, 3.0, nan, nan),
    ("asinh", nan, inf, "inf", nan),
    ("atanh", 0.0, 0.0, 0.0, 0.0),
    ("atanh", 0.0, nan, 0.0, nan),
    ("atanh", 1.0, 0.0, inf, 0.0),
    ("atanh", 2.0, inf, 0.0, pi / 2),
    ("atanh", 2.0, nan, nan, nan),
    ("atanh", inf, 3.0, 0.0, pi / 2),
    ("atanh", inf, inf, 0.0, pi / 2),
    ("atanh", inf, nan, 0.0, nan),
    ("atanh", nan, 3.0, nan, nan),
    ("atanh", nan, inf, "0", pi / 2),
    ("cosh", 0.0, 0.0, 1.0, 0.0),
    ("cosh", 0.0, inf, nan, "0"),
    ("cosh", 0.0, nan, nan, "0"),
    ("cosh", 2.0, inf, nan, nan),
    ("cosh", inf, 0.0, inf, 0.0),
    ("cosh", inf, 2.0, -inf, inf),
    ("cosh", inf, inf, "inf", nan),
    ("cosh", inf, nan, inf, nan),
    ("cosh", nan, 0.0, nan, "0"),
    ("cosh", nan, 3.0, nan, nan),
    *[("exp", a, 0.0, 1.0, 0.0) for a in (0.0, -0.0)],
    ("exp", 2.0, inf, nan, nan),
    ("exp", 2.0, nan, nan, nan),
    ("exp", inf, 0.0, inf, 0.0),
    ("exp", -inf, 2.0, -0.0, 0.0),
    ("exp", inf, 2.0, -inf, inf),
    ("exp", -inf, inf, "0", "0"),
    ("exp", inf, inf, "inf", nan),
    ("exp", -inf, nan, "0", "0"),
    ("exp", inf, nan, "inf", nan),
    ("exp", nan, 0.0, nan, 0.0),
    ("exp", nan, 2.0, nan, nan),
    *[("expm1", a, 0.0, 0.0, 0.0) for a in (0.0, -0.0)],
    ("expm1", 2.0, inf, nan, nan),
    ("expm1", 2.0, nan, nan, nan),
    ("expm1", inf, 0.0, inf, 0.0),
    ("expm1", -inf, 2.0, -1.0, 0.0),
    ("expm1", inf, 2.0, -inf, inf),
    ("expm1", -inf, inf, -1.0, "0"),
    ("expm1", inf, inf, "inf", nan),
    ("expm1", -inf, nan, -1.0, "0"),
    ("expm1", inf, nan, "inf", nan),
    ("expm1", nan, 0.0, nan, 0.0),
    ("expm1", nan, 2.0, nan, nan),
    ("log", -0.0, 0.0, -inf, pi),
    ("log", 0.0, 0.0, -inf, 0.0),
    ("log", 2.0, inf, inf, pi / 2),
    ("log", 2.0, nan, nan, nan),
    ("log", -inf, 3.0, inf, pi),
    ("log", inf, 3.0, inf, 0.0),
    ("log", -inf, inf, inf, 3 * pi / 4),
    ("log", inf, inf, inf, pi / 4),
    ("log", -inf, nan, inf, nan),
    ("log", nan, 3.0, nan, nan),
    ("log", nan, inf, inf, nan),
    ("log1p", -1.0, 0.0, -inf, 0.0),
    ("log1p", 2.0, inf, inf, pi / 2),
    ("log1p", 2.0, nan, nan, nan),
    ("log1p", -inf, 3.0, inf, pi),
    ("log1p", inf, 3.0, inf, 0.0),
    ("log1p", -inf, inf, inf, 3 * pi / 4),
    ("log1p", inf, inf, inf, pi / 4),
    ("log1p", inf, nan, inf, nan),
    ("log1p", nan, 3.0, nan, nan),
    ("log1p", nan, inf, inf, nan),
    ("sinh", 0.0, 0.0, 0.0, 0.0),
    ("sinh", 0.0, inf, "0", nan),
    ("sinh", 0.0, nan, "0", nan),
    ("sinh", 2.0, inf, nan, nan),
    ("sinh", inf, 0.0, inf, 0.0),
    ("sinh", inf, 2.0, -inf, inf),
    ("sinh", inf, inf, "inf", nan),
    ("sinh", inf, nan, "inf", nan),
    ("sinh", nan, 0.0, nan, 0.0),
    ("sinh", nan, 3.0, nan, nan),
    *[("sqrt", a, 0.0, 0.0, 0.0) for a in (0.0, -0.0)],
    *[("sqrt", a, inf, inf, inf) for a in (1.0, inf, -inf, nan)],
    ("sqrt", 2.0, nan, nan, nan),
    ("sqrt", -inf, 3.0, 0.0, inf),
    ("sqrt", inf, 3.0, inf, 0.0),
    ("sqrt", -inf, nan, nan, "inf"),
    ("sqrt", inf, nan, inf, nan),
    ("sqrt", nan, 3.0, nan, nan),
    ("tanh", 0.0, 0.0, 0.0, 0.0),
    ("tanh", 2.0, inf, nan, nan),
    ("tanh", 2.0, nan, nan, nan),
    ("tanh", inf, 2.0, 1.0, 0.0),
    ("tanh", inf, 1.0, 1.0, 0.0),
    ("tanh", -inf, -2.0, -1.0, -0.0),
    ("tanh", inf, inf, 1.0, "0"),
    ("tanh", inf, nan, 1.0, "0"),
    ("tanh", nan, 0.0, nan, 0.0),
    ("tanh", nan, 3.0, nan, nan),
]


def agrees(part, expected):
    if isinstance(expected, str):
        return abs(part) == float(expected)
    if math.isnan(expected):
        return math.isnan(part)
    if expected == 0 or math.isinf(expected):
        return part == expected and math.copysign(1, part) == math.copysign(1, expected)
    return math.isclose(part, expected, rel_tol=1e-5)


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize(("name", "a", "b", "real", "imaginary"), SPECIAL)
def test_complex_special_cases_of_the_standard(name, a, b, real, imaginary, dtype):
    for times in (1, 9):  # alone, and in a vector register
        result = getattr(tl, name)(tl.asarray([complex(a, b)] * times, dtype=dtype)).tolist()
        assert all(agrees(z.real, real) and agrees(z.imag, imaginary) for z in result), result[0]


@given(data=st.data())
@few
def test_expm1_of_small_complex_numbers_does_not_cancel(data):
    z = data.draw(arrays("complex128", limit=1e-9))
    assert_close(tl.expm1(tl.asarray(z)), z, rtol=1e-8, atol=1e-300)


@pytest.mark.parametrize(("name", "at", "value"), [
    ("exp", -inf, 0.0), ("log", 0.0, -inf), ("log", -0.0, -inf), ("log", -1.0, nan), ("log", 1.0, 0.0),
    ("log1p", -1.0, -inf), ("log1p", -0.0, -0.0), ("log2", 8.0, 3.0), ("log10", 1000.0, 3.0), ("expm1", -inf, -1.0),
    ("asin", 2.0, nan), ("acos", 1.0, 0.0), ("atan", inf, pi / 2), ("tanh", -inf, -1.0), ("atanh", 1.0, inf),
    ("acosh", 0.5, nan), ("sin", inf, nan), ("cos", 0.0, 1.0), ("tan", -0.0, -0.0), ("sinh", -inf, -inf),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_real_values_at_the_edges(name, at, value, dtype):
    result = getattr(tl, name)(tl.asarray(at, dtype=dtype))
    assert result.dtype.name == dtype
    rounded = float(tl.asarray(value, dtype=dtype))
    assert agrees(float(result), rounded), float(result)
