import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tallow as tl
from tallow.errors import ArgumentError, BoundsError, DTypeError, ShapeError
from tests.arrays import ALL, NARROW, NUMERIC, REAL, arrays, assert_same, few, pairs, shapes

EVERY = (*ALL, *NARROW)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@given(data=st.data())
@few
def test_places_of_extremes(name, data):
    x = data.draw(arrays((*REAL, *NARROW), shapes(min_side=1)))
    keepdims = data.draw(st.booleans())
    axis = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1)) if x.ndim else None
    wide = x.astype("f4") if x.dtype.name in NARROW else x
    expected = getattr(np, name)(wide, axis=axis, keepdims=keepdims)
    assert_same(getattr(tl, name)(tl.asarray(x), axis=axis, keepdims=keepdims), expected)
    assert_same(getattr(tl.asarray(x), name)(axis, keepdims), expected)


def test_places_of_extremes_refuse():
    with pytest.raises(ShapeError, match=r"argmax: nothing to choose from along axis None of shape \(0,\)"):
        tl.argmax(tl.zeros(0))
    with pytest.raises(BoundsError, match="argmin: axis 1"):
        tl.argmin(tl.zeros(2), axis=1)
    with pytest.raises(DTypeError, match="argmax: does not take complex64"):
        tl.argmax(tl.asarray([1j]))


@given(data=st.data())
@few
def test_where_against_the_standard(data):
    x, y = data.draw(pairs(ALL))
    shape = np.broadcast_shapes(x.shape, y.shape)
    condition = data.draw(arrays("bool", shape))
    expected = xp.where(xp.asarray(condition), xp.asarray(x), xp.asarray(y))
    assert_same(tl.where(tl.asarray(condition), tl.asarray(x), tl.asarray(y)), expected)


def test_where_with_scalars():
    condition = tl.asarray([True, False])
    x = tl.asarray([1.5, 2.5], dtype="bfloat16")
    assert_same(tl.where(condition, x, 0), tl.asarray([1.5, 0], dtype="bfloat16").numpy())
    assert_same(tl.where(condition, 0, x), tl.asarray([0, 2.5], dtype="bfloat16").numpy())
    assert_same(tl.where(condition, 1, 2), np.asarray([1, 2]))
    assert_same(tl.where(condition, 1, 2.5), np.asarray([1, 2.5], "f4"))
    assert_same(tl.where(tl.asarray([2, 0]), 1.0, -1.0), np.asarray([1, -1], "f4"))
    assert_same(tl.where(condition, tl.asarray([1, 2]), float("-inf")), np.asarray([1, -np.inf], "f4"))
    with pytest.raises(ShapeError, match=r"where: shapes \(2,\) and \(3,\)"):
        tl.where(condition, tl.ones(3), 0)
    with pytest.raises(ShapeError, match=r"where: shapes \(2,\) and \(3,\)"):
        tl.where(tl.asarray(True), tl.ones(2), tl.ones(3))
    with pytest.raises(DTypeError, match="where: expected a Tensor, found bool"):
        tl.where(True, 1, 2)


@given(data=st.data())
@few
def test_nonzero_and_count(data):
    x = data.draw(arrays(EVERY, shapes(min_dims=1)))
    found = tl.nonzero(tl.asarray(x))
    expected = (x != 0).nonzero()
    assert isinstance(found, tuple)
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)
    axes = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1) | hnp.valid_tuple_axes(x.ndim))
    keepdims = data.draw(st.booleans())
    counted = (x != 0).sum(axis=axes, keepdims=keepdims)
    assert_same(tl.count_nonzero(tl.asarray(x), axis=axes, keepdims=keepdims), counted)


def test_nonzero_needs_an_axis():
    with pytest.raises(ShapeError, match="nonzero: a tensor of no dimension"):
        tl.nonzero(tl.ones(()))
    assert_same(tl.count_nonzero(tl.ones(())), np.asarray(1))


@given(data=st.data())
@few
def test_searchsorted(data):
    dtype = data.draw(st.sampled_from((*REAL, *NARROW)))
    x = data.draw(arrays(dtype, shapes(1, 1), nan=False))
    values = data.draw(arrays(dtype, nan=False))
    side = data.draw(st.sampled_from(["left", "right"]))
    order = np.argsort(x, kind="stable")
    wide = (lambda a: a.astype("f4")) if dtype in NARROW else (lambda a: a)
    expected = np.searchsorted(wide(x[order]), wide(values), side=side)
    assert_same(tl.searchsorted(tl.asarray(x[order]), tl.asarray(values), side=side), expected)
    sorter = tl.asarray(order)
    assert_same(tl.searchsorted(tl.asarray(x), tl.asarray(values), side=side, sorter=sorter), expected)


def test_searchsorted_promotes_and_refuses():
    assert_same(tl.searchsorted(tl.asarray([1, 3], dtype=tl.int8), tl.asarray([2.5])), np.asarray([1]))
    with pytest.raises(ShapeError, match="searchsorted: expected a sorted vector"):
        tl.searchsorted(tl.ones((2, 2)), tl.ones(1))
    with pytest.raises(ArgumentError, match="searchsorted: side is 'middle'"):
        tl.searchsorted(tl.ones(2), tl.ones(1), side="middle")


@pytest.mark.parametrize("dtype", NUMERIC)
def test_the_first_of_equals(dtype):
    if dtype.startswith("complex"):
        pytest.skip("complex numbers have no order")
    x = tl.asarray([[1, 3, 3], [0, 0, 2]], dtype=dtype)
    assert_same(tl.argmax(x, axis=1), np.asarray([1, 2]))
    assert_same(tl.argmin(x, axis=1), np.asarray([0, 0]))
