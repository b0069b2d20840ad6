import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tallow as tl
from tallow import ops
from tallow.errors import ArgumentError, BoundsError, DTypeError, ShapeError
from tests.arrays import ALL, FLOATS, NARROW, arrays, assert_same, few, pairs, shapes

EVERY = (*ALL, *NARROW)


def is_view(x, of):
    return x.size == 0 or np.shares_memory(x.storage, of)


@given(data=st.data())
@few
def test_reshape(data):
    x = data.draw(arrays(EVERY))
    shape = data.draw(st.permutations(x.shape)) if x.ndim else (1, 1)
    t = tl.asarray(x)
    assert_same(tl.reshape(t, tuple(shape)), x.reshape(shape))
    assert_same(t.reshape(*shape), x.reshape(shape))
    assert is_view(tl.reshape(t, tuple(shape)), x)
    assert_same(tl.reshape(t, -1 if x.size else x.size), x.reshape(-1))
    assert_same(t.flatten(), x.reshape(-1))
    if x.size:
        assert_same(t.reshape((*x.shape[:1], -1)), x.reshape((*x.shape[:1], -1)))


def test_reshape_copy():
    t = tl.reshape(tl.arange(6), (2, 3))
    assert np.shares_memory(tl.reshape(t, (3, 2), copy=False).storage, t.storage)
    assert not np.shares_memory(tl.reshape(t, (3, 2), copy=True).storage, t.storage)
    assert not np.shares_memory(tl.reshape(t.T, (2, 3), copy=True).storage, t.storage)
    assert_same(tl.reshape(t.T, (6,)), np.asarray([0, 3, 1, 4, 2, 5]))
    with pytest.raises(ArgumentError, match=r"reshape: \(3, 2\) to \(6,\) needs a copy"):
        tl.reshape(t.T, (6,), copy=False)
    for bad in ((4, 2), (-1, -1), (-1, 4), "a", (2.5,)):
        with pytest.raises(ShapeError, match=r"reshape: 6 element\(s\) of shape \(2, 3\)"):
            tl.reshape(t, bad)


@given(data=st.data())
@few
def test_orders_of_axes(data):
    x = data.draw(arrays(EVERY, shapes(min_dims=1)))
    t = tl.asarray(x)
    order = tuple(data.draw(st.permutations(range(x.ndim))))
    negative = tuple(axis - x.ndim for axis in order)
    for axes in (order, negative):
        assert_same(tl.permute_dims(t, axes), x.transpose(order))
    assert_same(t.permute(*order), x.transpose(order))
    assert_same(t.permute(order), x.transpose(order))
    assert is_view(t.permute(order), x)
    a, b = (data.draw(st.integers(-x.ndim, x.ndim - 1)) for _ in range(2))
    assert_same(t.transpose(a, b), x.swapaxes(a, b))
    assert_same(tl.moveaxis(t, a, b), np.moveaxis(x, a, b))
    sources = data.draw(hnp.valid_tuple_axes(x.ndim))
    goals = data.draw(hnp.valid_tuple_axes(x.ndim, min_size=len(sources), max_size=len(sources)))
    assert_same(tl.moveaxis(t, sources, goals), np.moveaxis(x, sources, goals))
    if x.ndim >= 2:
        assert_same(tl.matrix_transpose(t), x.swapaxes(-1, -2))
        assert_same(t.mT, x.swapaxes(-1, -2))
    if x.ndim == 2:
        assert_same(t.T, x.T)


def test_wrong_axes():
    t = tl.ones((2, 3))
    for axes in ((0,), (0, 1, 2)):
        with pytest.raises(ShapeError, match="permute_dims: "):
            tl.permute_dims(t, axes)
    with pytest.raises(ShapeError, match="twice"):
        tl.permute_dims(t, (0, 0))
    with pytest.raises(BoundsError, match="transpose: axis 2 lies outside a tensor of 2"):
        t.transpose(0, 2)
    with pytest.raises(IndexError):
        tl.moveaxis(t, 0, 5)
    with pytest.raises(ShapeError, match="moveaxis: 2 axes cannot move to 1"):
        tl.moveaxis(t, (0, 1), (0,))
    with pytest.raises(DTypeError, match=r"transpose: expected an integer as axis, found 0\.5"):
        t.transpose(0, 0.5)
    for name in ("T", "mT"):
        with pytest.raises(ShapeError):
            getattr(tl.ones(3), name)
    with pytest.raises(ShapeError, match="T: expected 2 dimensions"):
        _ = tl.ones((2, 2, 2)).T


@given(data=st.data())
@few
def test_expand_dims_and_squeeze(data):
    x = data.draw(arrays(EVERY))
    t = tl.asarray(x)
    axis = data.draw(st.integers(-x.ndim - 1, x.ndim))
    wide = tl.expand_dims(t, axis)
    assert_same(wide, np.expand_dims(x, axis))
    assert_same(tl.expand_dims(t, axis=axis), np.expand_dims(x, axis))
    assert is_view(wide, x)
    assert_same(t.unsqueeze(axis), np.expand_dims(x, axis))
    assert_same(tl.squeeze(wide, axis), x)
    assert_same(wide.squeeze(), x.squeeze())
    both = np.expand_dims(x, (0, -1))
    assert_same(tl.expand_dims(t, (0, -1)), both)
    assert_same(tl.squeeze(tl.asarray(both), axis=(0, -1)), x)


def test_expand_dims_and_squeeze_refuse():
    t = tl.ones((2, 1))
    for axis in (-4, 3):
        with pytest.raises(IndexError):
            tl.expand_dims(t, axis=axis)
        with pytest.raises(BoundsError):
            t.squeeze(axis)
    with pytest.raises(ValueError, match=r"squeeze: axis 0 of shape \(2, 1\) has size 2, not 1"):
        tl.squeeze(t, (0, 1))


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3, min_side=0), st.data())
@few
def test_broadcasting(drawn, data):
    x, y = (data.draw(arrays(EVERY, shape)) for shape in drawn.input_shapes)
    first, second = tl.broadcast_arrays(tl.asarray(x), tl.asarray(y))
    assert_same(first, np.broadcast_to(x, drawn.result_shape))
    assert_same(second, np.broadcast_to(y, drawn.result_shape))
    assert_same(tl.broadcast_to(tl.asarray(x), drawn.result_shape), np.broadcast_to(x, drawn.result_shape))
    assert_same(tl.asarray(x).broadcast_to(*drawn.result_shape), np.broadcast_to(x, drawn.result_shape))
    assert ops.broadcast_shapes(*drawn.input_shapes) == drawn.result_shape


def test_broadcasting_refuses():
    assert_same(tl.ones((2, 1)).expand(3, -1, 4), np.ones((3, 2, 4), "f4"))
    with pytest.raises(ShapeError, match=r"broadcast_to: shape \(2,\) does not broadcast to \(3,\)"):
        tl.broadcast_to(tl.ones(2), (3,))
    with pytest.raises(ShapeError, match=r"broadcast_arrays: shapes \(2,\), \(3,\)"):
        tl.broadcast_arrays(tl.ones(2), tl.ones(3))
    with pytest.raises(ShapeError, match="broadcast_shapes"):
        ops.broadcast_shapes((2,), (3,))
    with pytest.raises(DTypeError, match="read-only"):
        tl.broadcast_to(tl.ones(1), (3,))[0] = 1


@given(data=st.data())
@few
def test_concat_and_stack(data):
    x, y = data.draw(pairs((*FLOATS, "int8", "uint16")))
    assume(x.shape == y.shape)
    a, b, s, t = tl.asarray(x), tl.asarray(y), xp.asarray(x), xp.asarray(y)
    axis = data.draw(st.integers(-x.ndim - 1, x.ndim))
    assert_same(tl.stack([a, b], axis=axis), xp.stack([s, t], axis=axis))
    assert_same(tl.concat((a, b), axis=None), xp.concat((s, t), axis=None))
    if x.ndim:
        axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
        assert_same(tl.concat([a, b], axis=axis), xp.concat([s, t], axis=axis))


def test_concat_of_mixed_types_and_lengths():
    assert_same(tl.concat([tl.asarray([1]), tl.asarray([2.5])]), np.asarray([1, 2.5], "f4"))
    assert tl.stack([tl.ones(1, dtype="bfloat16"), tl.ones(1, dtype="float16")]).dtype is tl.float32
    assert_same(tl.concat([tl.ones((1, 2)), tl.ones((0, 2)), tl.ones((2, 2))]), np.ones((3, 2), "f4"))
    with pytest.raises(ShapeError, match=r"concat: shapes \(1, 2\), \(1, 3\) differ elsewhere than in axis 0"):
        tl.concat([tl.ones((1, 2)), tl.ones((1, 3))])
    with pytest.raises(ShapeError, match=r"stack: expected equal shapes, found \(2,\), \(3,\)"):
        tl.stack([tl.ones(2), tl.ones(3)])
    with pytest.raises(DTypeError, match="concat: int64 and uint64 have no common type"):
        tl.concat([tl.asarray([1]), tl.asarray([1], dtype="uint64")])
    with pytest.raises(ShapeError, match="concat: needs at least one tensor"):
        tl.concat([])
    with pytest.raises(ShapeError, match=r"concat: .* see stack"):
        tl.concat([tl.ones(()), tl.ones(())])
    with pytest.raises(DTypeError, match="stack: expected a Tensor, found int"):
        tl.stack([tl.ones(()), 1])
    with pytest.raises(BoundsError, match="stack: axis 3"):
        tl.stack([tl.ones(2)], axis=3)


@given(data=st.data())
@few
def test_parts_of_an_axis_are_views(data):
    x = data.draw(arrays(EVERY, shapes(min_dims=1)))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    t, size = tl.asarray(x), x.shape[axis]
    parts = tl.unstack(t, axis=axis)
    assert isinstance(parts, tuple)
    assert len(parts) == size
    for i, part in enumerate(parts):
        assert_same(part, np.take(x, i, axis))
        assert is_view(part, x)
    start = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - start))
    part = t.narrow(axis, start, length)
    assert_same(part, np.take(x, range(start, start + length), axis))
    assert is_view(part, x)
    pieces = t.split([start, size - start], axis=axis)
    assert_same(tl.concat(pieces, axis=axis), x)
    assert [piece.shape[axis] for piece in pieces] == [start, size - start]
    step = data.draw(st.integers(1, 5))
    even = t.split(step, axis=axis)
    assert_same(tl.concat(even, axis=axis), x)
    assert all(piece.shape[axis] == step for piece in even[:-1])
    assert_same(tl.concat(t.chunk(step, axis=axis), axis=axis), x)


def test_parts_refuse():
    t = tl.ones((4, 3))
    assert [piece.shape for piece in t.chunk(3)] == [(2, 3), (2, 3)]
    assert float(tl.arange(4).narrow(0, -2, 1)[0]) == 2
    for start, length in ((0, 5), (3, 2), (-5, 1), (0, -1), (-1, 2)):
        with pytest.raises(ShapeError, match=r"narrow: .* axis 0 of shape \(4, 3\)"):
            t.narrow(0, start, length)
    for sizes in ([1, 2], [5, -1], [2, 3]):
        with pytest.raises(ShapeError, match=r"split: sizes .* do not add up to axis 0"):
            t.split(sizes)
    with pytest.raises(ArgumentError, match="split: expected a size of at least 1"):
        t.split(0)
    with pytest.raises(ArgumentError, match="chunk: expected at least 1 part"):
        t.chunk(0)
    with pytest.raises(BoundsError, match="unstack: axis 2"):
        tl.unstack(t, axis=2)


@given(data=st.data())
@few
def test_flip_and_roll(data):
    x = data.draw(arrays(EVERY))
    t = tl.asarray(x)
    axes = st.none() | hnp.valid_tuple_axes(x.ndim)
    axis = data.draw(axes | st.integers(-x.ndim, x.ndim - 1) if x.ndim else axes)
    assert_same(tl.flip(t, axis=axis), np.flip(x, axis))
    assert is_view(tl.flip(t, axis=axis), x)
    shift = data.draw(st.integers(-10, 10))
    assert_same(tl.roll(t, shift, axis=axis), np.roll(x, shift, axis) if axis != () else x)  # NumPy fails for ()
    if isinstance(axis, tuple) and axis:
        several = tuple(data.draw(st.integers(-10, 10)) for _ in axis)
        assert_same(tl.roll(t, several, axis=axis), np.roll(x, several, axis))


def test_roll_needs_as_many_axes_as_shifts():
    for options in ({}, {"axis": 0}, {"axis": (0, 1, 1)}):
        with pytest.raises(ShapeError, match="roll: shifts"):
            tl.roll(tl.ones((2, 2)), (1, 2), **options)


@given(data=st.data())
@few
def test_repeat_and_tile(data):
    x = data.draw(arrays(EVERY))
    t = tl.asarray(x)
    times = data.draw(st.integers(0, 3))
    assert_same(tl.repeat(t, times), np.repeat(x, times))
    counts = data.draw(arrays(("int64", "uint8", "uint64"), (x.size,)).map(lambda c: c % c.dtype.type(4)))
    assert_same(tl.repeat(t, tl.asarray(counts)), np.repeat(x, counts.astype("int64")))
    if x.ndim:
        axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
        assert_same(tl.repeat(t, times, axis=axis), np.repeat(x, times, axis))
        assert_same(t.repeat(tl.asarray([times]), axis=axis), np.repeat(x, times, axis))
    repetitions = tuple(data.draw(st.lists(st.integers(0, 3), max_size=4)))
    assert_same(tl.tile(t, repetitions), np.tile(x, repetitions))


def test_repeat_refuses():
    t = tl.ones((2, 3))
    for counts in (-1, tl.asarray([1, 2]), tl.ones((1, 6), dtype=tl.int64)):
        with pytest.raises(ShapeError, match="repeat: expected one count or 6 counts"):
            tl.repeat(t, counts)
    with pytest.raises(DTypeError, match="repeat: expected integers"):
        tl.repeat(t, tl.ones(6))


def test_flatten_some_axes():
    t = tl.ones((2, 3, 4))
    assert t.flatten(1).shape == (2, 12)
    assert t.flatten(0, 1).shape == (6, 4)
    assert t.flatten(-2, -1).shape == (2, 12)
    assert tl.ones(()).flatten().shape == (1,)
    with pytest.raises(BoundsError, match="flatten: axis 3"):
        t.flatten(3)
