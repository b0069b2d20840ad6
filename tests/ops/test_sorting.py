import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallow as tl
from tallow.errors import BoundsError, ShapeError
from tests.arrays import ALL, NARROW, REAL, arrays, assert_same, few, shapes, storage

nan = float("nan")


@given(data=st.data())
@few
def test_sort_against_the_standard(data):
    x = data.draw(arrays((*REAL, *NARROW), shapes(min_dims=1), nan=False))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    descending = data.draw(st.booleans())
    options = {"axis": axis, "descending": descending, "stable": data.draw(st.booleans())}
    wide = x.astype("f4") if x.dtype.name in NARROW else x
    expected = np.asarray(xp.sort(xp.asarray(wide), **options)).astype(x.dtype)
    assert_same(tl.sort(tl.asarray(x), **options), expected, signs=False)
    order = tl.argsort(tl.asarray(x), **options)
    assert_same(order, xp.argsort(xp.asarray(wide), **{**options, "stable": True}))
    assert_same(tl.take_along_axis(tl.asarray(x), order, axis=axis), expected, signs=False)


def test_equal_elements_keep_their_order():
    x = tl.asarray([2, 1, 2, 1, 2])
    assert tl.argsort(x).tolist() == [1, 3, 0, 2, 4]
    assert tl.argsort(x, descending=True).tolist() == [0, 2, 4, 1, 3]


def test_nan_is_the_largest():
    x = tl.asarray([nan, 1.0, -np.inf, np.inf])
    assert_same(tl.sort(x), np.asarray([-np.inf, 1, np.inf, nan], "f4"))
    assert_same(tl.sort(x, descending=True), np.asarray([nan, np.inf, 1, -np.inf], "f4"))
    assert tl.argsort(x).tolist() == [2, 1, 3, 0]


def test_sort_does_not_touch_its_input():
    x = tl.asarray([3, 1, 2])
    tl.sort(x)
    assert x.tolist() == [3, 1, 2]
    with pytest.raises(ShapeError, match="sort: a tensor of no dimension"):
        tl.sort(tl.ones(()))
    with pytest.raises(BoundsError, match="argsort: axis 1"):
        tl.argsort(x, axis=1)


@given(data=st.data())
@few
def test_unique(data):
    x = data.draw(arrays((*ALL, *NARROW)))
    t = tl.asarray(x)
    values, indices, inverse, counts = everything = tl.unique_all(t)
    wide = x.astype("f4") if x.dtype.name in NARROW else x
    expected = np.unique(wide, equal_nan=False).astype(x.dtype)
    assert_same(values, expected, signs=False)
    assert_same(tl.unique_values(t), values.numpy())
    assert everything._fields == ("values", "indices", "inverse_indices", "counts")
    for a, b in zip(tl.unique_counts(t), (values, counts), strict=True):
        assert_same(a, b.numpy())
    for a, b in zip(tl.unique_inverse(t), (values, inverse), strict=True):
        assert_same(a, b.numpy())
    assert tl.unique_counts(t)._fields == ("values", "counts")
    assert tl.unique_inverse(t)._fields == ("values", "inverse_indices")
    assert inverse.shape == x.shape
    assert {indices.dtype, inverse.dtype, counts.dtype} == {tl.int64}
    assert int(counts.sum()) == x.size
    if x.size:
        assert_same(t.flatten()[indices], values.numpy(), signs=False)
        assert_same(values[inverse], x, signs=False)


def test_every_nan_is_unique():
    x = tl.asarray([nan, 1.0, nan, -0.0, 0.0], dtype="bfloat16")
    values, counts = tl.unique_counts(x)
    assert_same(values, np.asarray([0, 1, nan, nan], storage("bfloat16")), signs=False)
    assert counts.tolist() == [2, 1, 1, 1]
    assert tl.unique_values(tl.asarray([complex(nan, 1), complex(nan, 1)])).shape == (2,)
    assert tl.unique_all(tl.zeros((0, 2))).values.shape == (0,)
