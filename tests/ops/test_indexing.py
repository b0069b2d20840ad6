import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tallow as tl
from tallow.errors import BoundsError, DTypeError, ShapeError
from tests.arrays import ALL, INTEGERS, NARROW, arrays, assert_same, few, shapes, storage

EVERY = (*ALL, *NARROW)


@given(data=st.data())
@few
def test_basic_indices_are_views(data):
    x = data.draw(arrays(EVERY))
    key = data.draw(hnp.basic_indices(x.shape, allow_newaxis=True, allow_ellipsis=True))
    t = tl.asarray(x)
    part = t[key]
    assert_same(part, np.asarray(x[key]))
    assert part.size == 0 or np.shares_memory(part.storage, x)


def test_a_single_element_is_a_view_too():
    t = tl.zeros((2, 3), dtype="bfloat16")
    t[1][2][...] = 5.0
    one = t[0, 1]
    one += 7
    assert t.tolist() == [[0, 7, 0], [0, 0, 5]]
    vector = tl.zeros(2)
    last = vector[-1]
    last[()] = 3
    assert vector.tolist() == [0, 3]


@given(data=st.data())
@few
def test_masks(data):
    x = data.draw(arrays(EVERY))
    mask = data.draw(arrays("bool", x.shape))
    t, m = tl.asarray(x), tl.asarray(mask)
    assert_same(t[m], x[mask])
    written = tl.ops.copy(t)
    value = x.dtype.type(1)
    written[m] = value.item()
    assert_same(written, np.where(mask, value, x))
    if x.ndim:
        first = data.draw(arrays("bool", x.shape[:1]))
        assert_same(t[tl.asarray(first)], x[first])
        assert_same(t[tl.asarray(first), ...], x[first])


@given(data=st.data())
@few
def test_integer_arrays(data):
    x = data.draw(arrays(EVERY, shapes(min_dims=1, min_side=1)))
    dtype = data.draw(st.sampled_from(["int64", "int8"]))
    keys = data.draw(hnp.integer_array_indices(x.shape, dtype=np.dtype(dtype)))
    t = tl.asarray(x)
    assert_same(t[tuple(map(tl.asarray, keys))], np.asarray(x[keys]))
    assert_same(t[tl.asarray(keys[0])], x[keys[0]])
    assert_same(t[tl.asarray(abs(keys[0]).astype("uint64") % np.uint64(x.shape[0]))], x[abs(keys[0]) % x.shape[0]])
    assert_same(t[tl.asarray(keys[0]), ...], x[keys[0]])
    mixed = (tl.asarray(keys[0]), *(0,) * (x.ndim - 1))
    assert_same(t[mixed], np.asarray(x[(keys[0], *(0,) * (x.ndim - 1))]))


def test_lists_numpy_and_python_objects_as_indices():
    x = np.arange(12).reshape(3, 4)
    t = tl.asarray(x)
    assert_same(t[[0, 2]], x[[0, 2]])
    assert_same(t[[True, False, True]], x[[0, 2]])
    assert_same(t[[]], x[[]])
    assert_same(t[np.asarray([1])], x[[1]])
    assert_same(t[np.int64(1)], x[1])
    assert_same(t[tl.asarray(1)], x[1])
    assert_same(t[tl.asarray(1) : tl.asarray(3)], x[1:3])
    assert_same(t[1, [0, 3]], x[1, [0, 3]])
    assert_same(t[True], x[None])
    assert_same(t[t > 5], x[x > 5])


def test_indices_outside_the_tensor():
    t = tl.ones((2, 3))
    for key in (2, -3, (0, 3), (0, 0, 0), tl.asarray([5]), ([0], [9]), tl.asarray([True] * 3), tl.ones((2, 2)) > 0):
        with pytest.raises(IndexError, match=r"index into float32 \(2, 3\): "):
            t[key]
        with pytest.raises(BoundsError, match=r"index into float32 \(2, 3\): "):
            t[key] = 1
    for key in (1.5, "a", tl.ones(2), [0.5], (0, "a"), object()):
        with pytest.raises(IndexError, match=r"index"):
            t[key]
    with pytest.raises(ShapeError):
        t[7]


@given(data=st.data())
@few
def test_setitem(data):
    x = data.draw(arrays(EVERY))
    key = data.draw(hnp.basic_indices(x.shape, allow_ellipsis=True))
    value = data.draw(arrays(x.dtype.name, np.asarray(x[key]).shape))
    expected = x.copy()
    expected[key] = value
    t = tl.asarray(x, copy=True)
    t[key] = tl.asarray(value)
    assert_same(t, expected)
    scalar = data.draw(arrays(x.dtype.name, ()))
    expected[key] = scalar
    t[key] = scalar.item()
    assert_same(t, expected)
    t[key] = tl.asarray(scalar)
    assert_same(t, expected)


def test_setitem_converts_to_the_same_kind_or_above_only():
    t = tl.zeros(3)
    t[0] = 1
    t[1] = True
    t[2] = tl.asarray(2.5, dtype=tl.float64)
    assert_same(t, np.asarray([1, 1, 2.5], "f4"))
    t[...] = tl.asarray([7, 8, 9], dtype=tl.int64)
    t[:2] = [1.5, 2.5]
    t[2:] = np.asarray([3.5])
    assert_same(t, np.asarray([1.5, 2.5, 3.5], "f4"))
    whole = tl.zeros(2, dtype=tl.int8)
    for value in (1.5, 1j, tl.ones(2), [0.5, 1]):
        with pytest.raises(DTypeError, match=r"setitem: .* does not fit into int8"):
            whole[:] = value
    with pytest.raises(DTypeError, match=r"setitem: 300 .*int8"):
        whole[0] = 300
    with pytest.raises(ShapeError, match=r"setitem: .*\(3,\) does not broadcast to \(2,\)"):
        whole[:] = tl.zeros(3, dtype=tl.int8)
    with pytest.raises(DTypeError, match="setitem: expected a Tensor, found str"):
        whole[0] = "a"
    half = tl.zeros(2, dtype="bfloat16")
    half[:] = 1 + 2**-9
    assert_same(half, np.ones(2, storage("bfloat16")))


@given(data=st.data())
@few
def test_take(data):
    x = data.draw(arrays(EVERY, shapes(min_dims=1, min_side=1)))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    size = x.shape[axis]
    indices = data.draw(hnp.arrays("int64", st.integers(0, 5), elements=st.integers(-size, size - 1)))
    t = tl.asarray(x)
    assert_same(tl.take(t, tl.asarray(indices), axis=axis), np.take(x, indices, axis))
    if x.ndim == 1:
        assert_same(tl.take(t, tl.asarray(indices)), np.take(x, indices))


@given(data=st.data())
@few
def test_take_along_axis(data):
    x = data.draw(arrays(("float32", "int8", "bfloat16"), shapes(min_dims=1, min_side=1)))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    size = x.shape[axis]
    shape = [1 if data.draw(st.booleans()) else n for n in x.shape]
    shape[axis] = data.draw(st.integers(0, 4))
    indices = data.draw(hnp.arrays("int64", tuple(shape), elements=st.integers(-size, size - 1)))
    wide = [n if i != axis % x.ndim else shape[axis] for i, n in enumerate(x.shape)]
    expected = np.take_along_axis(x, np.broadcast_to(indices, wide), axis)
    assert_same(tl.take_along_axis(tl.asarray(x), tl.asarray(indices), axis=axis), expected)


def test_take_refuses():
    t = tl.ones((2, 3))
    with pytest.raises(ShapeError, match=r"take: which axis of shape \(2, 3\)"):
        tl.take(t, tl.asarray([0]))
    with pytest.raises(IndexError, match="index into float32"):
        tl.take(t, tl.asarray([2]), axis=0)
    with pytest.raises(IndexError, match="tensor of integers"):
        tl.take(t, tl.ones(1), axis=0)
    with pytest.raises(ShapeError, match=r"take_along_axis: .* different numbers of dimensions"):
        tl.take_along_axis(t, tl.asarray([0]))
    with pytest.raises(ShapeError, match="take_along_axis: shapes"):
        tl.take_along_axis(t, tl.zeros((3, 1), dtype=tl.int64))
    with pytest.raises(IndexError, match="index into float32"):
        tl.take_along_axis(t, tl.asarray([[9]]))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_type_indexes(dtype):
    assert_same(tl.arange(5)[tl.asarray([1, 3], dtype=dtype)], np.asarray([1, 3]))
    assert_same(tl.take(tl.arange(5), tl.asarray([4], dtype=dtype)), np.asarray([4]))
    x = xp.arange(5)
    assert_same(tl.take(tl.arange(5), tl.asarray([2], dtype=dtype)), xp.take(x, xp.asarray([2])))
