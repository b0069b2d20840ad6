import math

import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tallow as tl
from tallow.errors import BoundsError, DTypeError, ShapeError
from tests.arrays import (
    ALL,
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
    shapes,
    storage,
)

nan, inf = math.nan, math.inf
FINITE = {"limit": 1e3}


def bounded(dtypes, shape=None):
    """Arrays whose sums and products stay exact or finite."""
    kinds = {"i": lambda x: np.clip(x, -9, 9), "u": lambda x: x % x.dtype.type(9)}
    return arrays(dtypes, shape, limit=9).map(lambda x: kinds.get(x.dtype.kind, lambda x: x)(x))


@st.composite
def axis_options(draw, ndim, dtype=None):
    axes = st.none() | hnp.valid_tuple_axes(ndim)
    options = {"axis": draw(axes | st.integers(-ndim, ndim - 1) if ndim else axes), "keepdims": draw(st.booleans())}
    return {key: value for key, value in options.items() if draw(st.booleans())}


@pytest.mark.parametrize("name", ["sum", "prod"])
@given(data=st.data())
@few
def test_totals_against_the_standard(name, data):
    x = data.draw(bounded(REAL))
    options = data.draw(axis_options(x.ndim))
    a, b = tl.asarray(x), xp.asarray(x)
    assert_close(getattr(tl, name)(a, **options), getattr(xp, name)(b, **options))
    assert_close(getattr(a, name)(**options), getattr(xp, name)(b, **options))
    wide = "float64" if x.dtype.kind == "f" else "uint64" if x.dtype.kind == "u" else "int64"
    expected = getattr(xp, name)(b, dtype=getattr(xp, wide), **options)
    assert_close(getattr(tl, name)(a, dtype=getattr(tl, wide), **options), expected)


@pytest.mark.parametrize("name", ["max", "min"])
@given(data=st.data())
@few
def test_extremes_against_the_standard(name, data):
    x = data.draw(arrays((*REAL, *NARROW), shapes(min_side=1)))
    options = data.draw(axis_options(x.ndim))
    wide = x.astype("f4") if x.dtype.name in NARROW else x
    expected = np.asarray(getattr(np, name)(wide, **options)).astype(x.dtype)
    assert_same(getattr(tl, name)(tl.asarray(x), **options), expected, signs=False)
    assert_same(getattr(tl.asarray(x), name)(**options), expected, signs=False)


@pytest.mark.parametrize("name", ["all", "any"])
@given(data=st.data())
@few
def test_tests_against_the_standard(name, data):
    x = data.draw(arrays((*ALL, *NARROW)))
    options = data.draw(axis_options(x.ndim))
    assert_same(getattr(tl, name)(tl.asarray(x), **options), getattr(np, name)(x != 0, **options))
    assert_same(getattr(tl.asarray(x), name)(**options), getattr(np, name)(x != 0, **options))


@given(data=st.data())
@few
def test_mean_var_and_std_against_numpy(data):
    x = data.draw(arrays(FLOATS, shapes(min_side=1), **FINITE))
    options = data.draw(axis_options(x.ndim))
    correction = data.draw(st.sampled_from([0, 0.0, 0.5, 1]))
    a, wide = tl.asarray(x), x.astype("f8")
    assert_close(tl.mean(a, **options), np.mean(wide, **options).astype(x.dtype), rtol=1e-4, atol=1e-2)
    assert_close(a.mean(**options), tl.mean(a, **options).numpy())
    with np.errstate(all="ignore"):
        variance = np.mean(np.square(wide - np.mean(wide, **{**options, "keepdims": True})), **options)
    count = x.size // max(variance.size, 1)
    expected = variance * count / (count - correction) if count > correction else variance * nan
    assert_close(tl.var(a, correction=correction, **options), np.asarray(expected, x.dtype), rtol=1e-3, atol=1)
    assert_close(tl.std(a, correction=correction, **options), np.sqrt(np.asarray(expected, x.dtype)), 1e-3, 1)
    assert_close(a.var(correction=correction, **options), tl.var(a, correction=correction, **options).numpy())
    assert_close(a.std(correction=correction, **options), tl.std(a, correction=correction, **options).numpy())


def test_narrow_floats_are_accumulated_in_float32():
    for name, limit in (("bfloat16", 256), ("float16", 2048)):
        x = tl.ones(4 * limit, dtype=name)
        assert x.sum().dtype.name == name
        assert float(x.sum()) == 4 * limit
        assert float(x.mean()) == 1
        assert float(tl.cumulative_sum(x)[-1]) == 4 * limit
        assert float(tl.var(x)) == 0
        assert float(tl.prod(tl.full(3, 1.5, dtype=name))) == 3.375
    half = tl.asarray([60000.0, 60000.0, -60000.0], dtype="float16")
    assert float(half.sum()) == 60000
    assert float(half.sum(dtype=tl.float32)) == 60000
    assert tl.ones(3, dtype="bfloat16").sum(dtype=tl.float64).dtype is tl.float64


def test_integers_and_bools():
    assert_same(tl.asarray([100, 100], dtype=tl.int8).sum(), np.asarray(200, "int64"))
    assert_same(tl.asarray([200, 200], dtype=tl.uint8).sum(), np.asarray(400, "uint64"))
    assert_same(tl.asarray([100, 100], dtype=tl.int8).sum(dtype=tl.int8), np.asarray(-56, "int8"))
    assert_same(tl.asarray([True, True]).sum(), np.asarray(2, "int64"))
    assert_same(tl.asarray([1, 2]).mean(), np.asarray(1.5, "f4"))
    assert_same(tl.asarray([True, False]).mean(), np.asarray(0.5, "f4"))
    assert_same(tl.asarray([1, 2, 3]).std(), np.asarray(math.sqrt(2 / 3), "f4"))
    assert_same(tl.asarray([1, 2]).sum(dtype="float32"), np.asarray(3, "f4"))


@given(x=arrays(COMPLEX, **FINITE))
@few
def test_complex_totals(x):
    assert_close(tl.sum(tl.asarray(x)), x.sum(), rtol=1e-4, atol=1e-2)
    if x.size:
        assert_close(tl.mean(tl.asarray(x)), x.mean(), rtol=1e-4, atol=1e-2)


def test_nothing_to_reduce(recwarn):
    none = tl.zeros((0, 3))
    assert_same(none.sum(axis=0), np.zeros(3, "f4"))
    assert_same(none.prod(), np.asarray(1, "f4"))
    assert_same(none.mean(axis=0), np.full(3, nan, "f4"))
    assert_same(none.var(), np.asarray(nan, "f4"))
    assert_same(none.all(), np.asarray(True))
    assert_same(none.any(), np.asarray(False))
    assert_same(tl.ones(2).std(correction=2), np.asarray(nan, "f4"))
    assert not recwarn.list
    for name in ("max", "min"):
        with pytest.raises(ShapeError, match=rf"{name}: nothing to choose from along axis 0 of shape \(0, 3\)"):
            getattr(tl, name)(none, axis=0)
        assert getattr(tl, name)(none, axis=1).shape == (0,)


def test_nan_and_infinity():
    x = tl.asarray([1.0, nan, -inf, inf])
    for name in ("max", "min", "sum", "mean", "var"):
        assert math.isnan(float(getattr(tl, name)(x)))
    assert float(tl.max(tl.asarray([inf, 1.0], dtype="bfloat16"))) == inf
    assert bool(tl.any(tl.asarray([nan])))


def test_reductions_refuse():
    x = tl.ones((2, 3))
    for axis in (2, -3, (0, 5)):
        with pytest.raises(BoundsError, match=r"sum: axis \S+ lies outside a tensor of 2 dimension"):
            x.sum(axis)
    with pytest.raises(ShapeError, match=r"mean: axes \(0, -2\) name one axis twice"):
        x.mean((0, -2))
    with pytest.raises(DTypeError, match="sum: float32 does not add up to int64"):
        x.sum(dtype=tl.int64)
    with pytest.raises(DTypeError, match="var: does not take complex64"):
        tl.var(tl.asarray([1j]))
    with pytest.raises(DTypeError, match="sum: expected a Tensor, found list"):
        tl.sum([1, 2])
    with pytest.raises(DTypeError, match="max: expected an integer as axis"):
        x.max(0.5)


@pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
@given(data=st.data())
@few
def test_running_totals_against_the_standard(name, data):
    x = data.draw(bounded(REAL, shapes(min_dims=1)))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    include = data.draw(st.booleans())
    options = {"include_initial": include, **({} if x.ndim == 1 and data.draw(st.booleans()) else {"axis": axis})}
    expected = getattr(xp, name)(xp.asarray(x), **options)
    assert_close(getattr(tl, name)(tl.asarray(x), **options), expected)
    if x.dtype.kind != "f":
        wide = "uint64" if x.dtype.kind == "u" else "int64"
        assert_same(getattr(tl, name)(tl.asarray(x), dtype=wide, **options), np.asarray(expected).astype(wide))


def test_running_totals_refuse():
    with pytest.raises(ShapeError, match=r"cumulative_sum: which axis of shape \(2, 2\)"):
        tl.cumulative_sum(tl.ones((2, 2)))
    with pytest.raises(ShapeError, match=r"cumulative_prod: which axis of shape \(\)"):
        tl.cumulative_prod(tl.ones(()), axis=0)


@given(data=st.data())
@few
def test_diff(data):
    x = data.draw(bounded((*NUMERIC, "bool"), shapes(min_dims=1)))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    n = data.draw(st.integers(0, 3))
    a = tl.asarray(x)
    assert_same(tl.diff(a, axis=axis, n=n), np.diff(x, n, axis), signs=False)
    assert_same(tl.diff(a, axis=axis, prepend=a), np.diff(x, 1, axis, prepend=x), signs=False)
    assert_same(tl.diff(a, axis=axis, append=a, n=2), np.diff(x, 2, axis, append=x), signs=False)


def test_diff_of_narrow_floats_and_misuse():
    x = tl.asarray([1.0, 4.0, 9.0], dtype="bfloat16")
    assert_same(tl.diff(x), np.asarray([3, 5], storage("bfloat16")))
    assert_same(tl.diff(x, prepend=x[:1] * 0), np.asarray([1, 3, 5], storage("bfloat16")))
    with pytest.raises(ShapeError, match="diff: n is -1"):
        tl.diff(x, n=-1)
    with pytest.raises(BoundsError, match="diff: axis 0"):
        tl.diff(tl.ones(()), axis=0)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_sums_of_the_largest_integers_wrap(dtype):
    largest = np.iinfo(dtype).max
    x = np.asarray([largest, 1], dtype)
    with np.errstate(over="ignore"):
        assert_same(tl.sum(tl.asarray(x), dtype=dtype), np.asarray(x[0] + x[1], dtype))
