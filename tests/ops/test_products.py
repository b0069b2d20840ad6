import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallow as tl
from tallow.errors import BoundsError, DTypeError, ShapeError
from tests.arrays import (
    COMPLEX,
    FLOATS,
    INTEGERS,
    NARROW,
    NUMERIC,
    arrays,
    assert_close,
    assert_same,
    few,
    promotable,
    storage,
)

sizes = st.integers(0, 4)


def small(x):
    """Integers small enough that products do not depend on the order of sums."""
    return {"i": lambda: np.clip(x, -9, 9), "u": lambda: x % x.dtype.type(9)}.get(x.dtype.kind, lambda: x)()


@st.composite
def factors(draw, first, second, dtypes=NUMERIC):
    a, b = draw(promotable(dtypes))
    return small(draw(arrays(a, first, limit=9))), small(draw(arrays(b, second, limit=9)))


@given(data=st.data(), n=sizes, k=sizes, m=sizes)
@few
def test_matmul_against_the_standard(data, n, k, m):
    stacks = data.draw(st.sampled_from([((), ()), ((2,), ()), ((), (3,)), ((2, 1), (3,)), ((0,), (1,))]))
    x, y = data.draw(factors((*stacks[0], n, k), (*stacks[1], k, m)))
    if data.draw(st.booleans()):
        x = np.swapaxes(np.swapaxes(x, -1, -2).copy(), -1, -2)
    expected = xp.matmul(xp.asarray(x), xp.asarray(y))
    assert_close(tl.matmul(tl.asarray(x), tl.asarray(y)), expected, 1e-4, 1e-4)
    assert_close(tl.asarray(x) @ tl.asarray(y), expected, 1e-4, 1e-4)
    assert_close(tl.asarray(x).matmul(tl.asarray(y)), expected, 1e-4, 1e-4)


@given(data=st.data(), n=sizes, k=sizes)
@few
def test_matmul_of_vectors(data, n, k):
    for shapes in (((k,), (k,)), ((n, k), (k,)), ((k,), (k, n)), ((k,), (2, k, n))):
        x, y = data.draw(factors(*shapes, dtypes=("float64", "int32")))
        assert_close(tl.matmul(tl.asarray(x), tl.asarray(y)), np.matmul(x, y))


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_products_are_summed_in_float32_and_rounded_once(dtype):
    ones = tl.ones((1, 4096), dtype=dtype)
    assert_same(ones @ ones.T, np.full((1, 1), 4096, storage(dtype)))
    assert_same(tl.vecdot(ones, ones), np.full(1, 4096, storage(dtype)))
    assert_same(tl.tensordot(ones[0], ones[0], axes=1), np.asarray(4096, storage(dtype)))
    assert (ones @ tl.ones((4096, 1))).dtype is tl.float32
    assert (ones @ tl.ones((4096, 1), dtype=tl.int8)).dtype.name == dtype


def test_matmul_says_what_does_not_fit():
    a = tl.ones((2, 3))
    for b, reason in [
        (tl.ones((4, 5)), r"x1 has 3 columns, x2 4 rows"),
        (tl.ones(2), r"x1 has 3 columns, x2 2 rows"),
        (tl.ones(()), r"both need at least one axis"),
    ]:
        with pytest.raises(ShapeError, match=rf"matmul: shapes \(2, 3\) and .* do not fit: {reason}"):
            a @ b
    with pytest.raises(ShapeError, match=r"leading axes \(2,\) and \(3,\) do not broadcast"):
        tl.ones((2, 1, 1)) @ tl.ones((3, 1, 1))
    with pytest.raises(DTypeError, match="matmul: expected a Tensor, found float"):
        a @ 2.0
    with pytest.raises(DTypeError, match="matmul: uint64 and int64"):
        tl.ones((1, 1), dtype=tl.uint64) @ tl.ones((1, 1), dtype=tl.int64)
    with pytest.raises(TypeError, match="unsupported operand"):
        a @ "text"


@given(data=st.data(), n=sizes, k=sizes, m=sizes)
@few
def test_tensordot_against_the_standard(data, n, k, m):
    x, y = data.draw(factors((n, k, m), (m, k, 2)))
    a, b, s, t = tl.asarray(x), tl.asarray(y), xp.asarray(x), xp.asarray(y)
    pairs = (([1], [1]), ((2, 1), (0, 1)), ([-1, 0], [0, 2]) if n == 2 else ([-1], [-3]), 1, 0)
    for axes in pairs:
        assert_close(tl.tensordot(a, b, axes=axes), xp.tensordot(s, t, axes=axes), 1e-4, 1e-3)
    assert_close(tl.tensordot(a, tl.permute_dims(b, (1, 0, 2))), np.tensordot(x, y.transpose(1, 0, 2), 2), 1e-4, 1e-3)


def test_tensordot_refuses():
    a = tl.ones((2, 3))
    with pytest.raises(ShapeError, match=r"tensordot: shapes \(2, 3\) and \(2, 3\) do not fit along axes"):
        tl.tensordot(a, a, axes=1)
    with pytest.raises(ShapeError, match="have no 3 axes"):
        tl.tensordot(a, a, axes=3)
    with pytest.raises(BoundsError, match="tensordot: axis 2"):
        tl.tensordot(a, a, axes=([2], [0]))


@given(data=st.data(), n=sizes)
@few
def test_vecdot_against_the_standard(data, n):
    shapes, axis = data.draw(
        st.sampled_from(
            [(((n,), (n,)), -1), (((2, n), (n,)), -1), (((n, 2), (3, n, 1)), -2), (((2, 1, n), (3, n)), -1)]
        )
    )
    x, y = data.draw(factors(*shapes))
    expected = xp.vecdot(xp.asarray(x), xp.asarray(y), axis=axis)
    assert_close(tl.vecdot(tl.asarray(x), tl.asarray(y), axis=axis), expected, 1e-4, 1e-3)


def test_vecdot_conjugates_the_first_and_refuses():
    assert_same(tl.vecdot(tl.asarray([1j]), tl.asarray([1j])), np.asarray(1, "c8"))
    with pytest.raises(ShapeError, match=r"vecdot: shapes \(2,\) and \(1,\) differ along axis -1"):
        tl.vecdot(tl.ones(2), tl.ones(1))
    with pytest.raises(ShapeError, match="do not broadcast beside axis -1"):
        tl.vecdot(tl.ones((2, 3)), tl.ones((4, 3)))
    with pytest.raises(BoundsError, match="vecdot: axis -2"):
        tl.vecdot(tl.ones(2), tl.ones(2), axis=-2)


@given(data=st.data(), n=sizes, m=sizes)
@few
def test_outer(data, n, m):
    x, y = data.draw(factors((n,), (m,)))
    assert_close(tl.linalg.outer(tl.asarray(x), tl.asarray(y)), xp.linalg.outer(xp.asarray(x), xp.asarray(y)))


@given(data=st.data())
@few
def test_cross_against_the_standard(data):
    shapes, axis = data.draw(
        st.sampled_from([(((3,), (3,)), -1), (((2, 3), (3,)), -1), (((3, 2), (4, 3, 1)), -2), (((0, 3), (1, 3)), -1)])
    )
    x, y = data.draw(factors(*shapes, dtypes=(*FLOATS, *COMPLEX, *INTEGERS)))
    expected = xp.linalg.cross(xp.asarray(x), xp.asarray(y), axis=axis)
    assert_close(tl.linalg.cross(tl.asarray(x), tl.asarray(y), axis=axis), expected, 1e-4, 1e-4)


def test_outer_and_cross_refuse():
    with pytest.raises(ShapeError, match="outer: expected two vectors"):
        tl.linalg.outer(tl.ones(2), tl.ones((2, 2)))
    with pytest.raises(ShapeError, match=r"cross: shapes \(3,\) and \(2,\) do not both have size 3"):
        tl.linalg.cross(tl.ones(3), tl.ones(2))
    with pytest.raises(ShapeError, match="size 3"):
        tl.linalg.cross(tl.ones((3, 3)), tl.ones((3, 1)))
    with pytest.raises(ShapeError, match=r"cross: shapes .* do not broadcast"):
        tl.linalg.cross(tl.ones((2, 3)), tl.ones((4, 3)))
