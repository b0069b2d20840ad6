import math

import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import tallow as tl
from tallow.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from tests.arrays import ALL, FLOATS, INTEGERS, NARROW, arrays, assert_close, assert_same, few, shapes, storage

nan, inf = math.nan, math.inf
EVERY = (*ALL, *NARROW)


@pytest.mark.parametrize("name", ["zeros", "ones"])
@given(shape=shapes(), dtype=st.sampled_from(EVERY))
@few
def test_zeros_and_ones(name, shape, dtype):
    expected = getattr(np, name)(shape, storage(dtype))
    assert_same(getattr(tl, name)(shape, dtype=dtype), expected)
    assert_same(getattr(tl, name)(shape, dtype=getattr(tl, dtype), device="cpu"), expected)
    assert_same(getattr(tl, name)(shape), getattr(np, name)(shape, "f4"))
    x = tl.zeros(shape, dtype=dtype)
    assert_same(getattr(tl, f"{name}_like")(x), expected)
    assert_same(getattr(tl, f"{name}_like")(x, dtype=tl.int8), getattr(np, name)(shape, "i1"))


@given(shape=shapes(), dtype=st.sampled_from(EVERY))
@few
def test_empty(shape, dtype):
    for x in (tl.empty(shape, dtype=dtype), tl.empty_like(tl.zeros(shape, dtype=dtype))):
        assert x.shape == shape
        assert x.dtype.name == dtype
    assert tl.empty(3).shape == (3,)
    assert tl.empty([2, 3]).dtype is tl.float32


@pytest.mark.parametrize(
    ("value", "dtype"), [(True, "bool"), (3, "int64"), (2.5, "float32"), (1j, "complex64"), (np.float64(1), "float64")]
)
def test_full_takes_its_type_from_the_value(value, dtype):
    assert_same(tl.full((2, 1), value), np.full((2, 1), value, dtype))
    assert_same(tl.full((), tl.asarray(value)), np.full((), value, dtype))


@given(data=st.data())
@few
def test_full_of_every_type(data):
    value = data.draw(arrays(EVERY, ()))
    shape = data.draw(shapes())
    dtype = getattr(tl, value.dtype.name)
    assert_same(tl.full(shape, value.item(), dtype=dtype), np.full(shape, value))
    assert_same(tl.full_like(tl.zeros(shape, dtype=dtype), value.item()), np.full(shape, value))


def test_full_refuses_what_does_not_fit():
    with pytest.raises(ArgumentError, match="full: 300 lies outside the range of uint8"):
        tl.full(2, 300, dtype=tl.uint8)
    with pytest.raises(DTypeError, match="full: 1j does not fit in float32"):
        tl.full(2, 1j, dtype=tl.float32)
    with pytest.raises(DTypeError, match="full: expected a scalar"):
        tl.full(2, "a")


@given(
    start=st.integers(-100, 100),
    stop=st.none() | st.integers(-100, 100),
    step=st.integers(-20, 20).filter(bool),
    dtype=st.none() | st.sampled_from(INTEGERS + FLOATS),
)
@few
def test_arange_of_integers(start, stop, step, dtype):
    values = range(0, start, step) if stop is None else range(start, stop, step)
    kind = np.dtype(dtype or "int64")
    assume(kind.kind != "u" or all(value >= 0 for value in values))
    assert_same(tl.arange(start, stop, step, dtype=dtype), np.asarray(list(values), kind))


@given(start=st.floats(-100, 100), stop=st.floats(-100, 100), step=st.floats(-50, 50).filter(lambda s: abs(s) > 0.01))
@example(start=0.0, stop=1.0, step=0.1)
@few
def test_arange_of_floats(start, stop, step):
    count = max(math.ceil((stop - start) / step), 0)
    x = tl.arange(start, stop, step, dtype=tl.float64)
    assert_same(x, start + np.arange(count) * step)
    assert tl.arange(start, stop, step).dtype is tl.float32


def test_arange_at_the_edges():
    assert_same(tl.arange(2**63, 2**63 + 3, dtype=tl.uint64), np.asarray([2**63, 2**63 + 1, 2**63 + 2], "uint64"))
    assert_same(tl.arange(2**63 + 5, 2**63, -2, dtype=tl.uint64), np.asarray([2**63 + n for n in (5, 3, 1)], "uint64"))
    assert tl.arange(0, 108086391056891901, 1080863910568919, dtype=tl.uint64).size == 101
    assert_same(tl.arange(-(2**63), 2**63 - 1, 2**62), np.arange(-2, 2) * 2**62)
    assert_same(tl.arange(2**70, 2**70 + 1, 5, dtype=tl.float64), np.asarray([2.0**70]))
    assert_same(tl.arange(2**53 + 1, 2**53 + 2, dtype=tl.int64), np.asarray([2**53 + 1]))
    assert_same(tl.arange(3, dtype="bfloat16"), np.asarray([0, 1, 2], storage("bfloat16")))
    assert_same(tl.arange(5, 0, -2), np.asarray([5, 3, 1]))
    assert_same(tl.arange(0), np.asarray([], "int64"))
    assert_same(tl.arange(3.0), np.asarray([0, 1, 2], "f4"))
    for bad in ((0, 5, 0), (0.0, inf), (nan, 1.0)):
        with pytest.raises(ArgumentError, match="arange: expected finite numbers"):
            tl.arange(*bad)
    assert_same(tl.arange(tl.asarray(3)), np.asarray([0, 1, 2]))
    assert_same(tl.arange(np.float32(2)), np.asarray([0, 1], "f4"))
    for bad in (1j, "3", None, tl.asarray(1j)):
        with pytest.raises(DTypeError, match="arange: expected real numbers"):
            tl.arange(bad)
    with pytest.raises(ArgumentError, match=r"arange: .*uint8"):
        tl.arange(0, 300, dtype=tl.uint8)
    with pytest.raises(ArgumentError, match=r"arange: .*int64"):
        tl.arange(2**70, 2**70 + 2)


@given(
    start=st.floats(-1e6, 1e6, width=32),
    stop=st.floats(-1e6, 1e6, width=32),
    num=st.integers(0, 40),
    endpoint=st.booleans(),
)
@few
def test_linspace(start, stop, num, endpoint):
    x = tl.linspace(start, stop, num, endpoint=endpoint)
    assert_close(x, np.linspace(start, stop, num, endpoint=endpoint, dtype="f4"))
    if num:
        assert float(x[0]) == start
    if num > 1 and endpoint:
        assert float(x[-1]) == stop
    if not endpoint:
        assert_same(x, tl.linspace(start, stop, num + 1).numpy()[:-1])


def test_linspace_of_other_types():
    assert_same(tl.linspace(0, 10, 5, dtype=tl.int32), np.asarray([0, 2, 5, 7, 10], "int32"))
    assert_same(tl.linspace(0, 1j, 3), np.asarray([0, 0.5j, 1j], "c8"))
    assert_same(tl.linspace(0, 1, 3, dtype="float16"), np.asarray([0, 0.5, 1], "f2"))
    assert tl.linspace(0, 1, 2, dtype=tl.float64).dtype is tl.float64
    assert_same(tl.linspace(-1e308, 1e308, 3, dtype=tl.float64), np.asarray([-1e308, 0, 1e308]))
    for bad in (-1, 2.5):
        with pytest.raises(ShapeError, match="linspace: "):
            tl.linspace(0, 1, bad)
    with pytest.raises(DTypeError, match="linspace: complex numbers do not fit in float32"):
        tl.linspace(0, 1j, 3, dtype=tl.float32)


@given(rows=st.integers(0, 5), columns=st.none() | st.integers(0, 5), k=st.integers(-7, 7))
@few
def test_eye(rows, columns, k):
    assert_same(tl.eye(rows, columns, k=k), np.eye(rows, columns, k, "f4"))
    assert_same(
        tl.eye(rows, columns, k=k, dtype="bfloat16"), np.eye(rows, columns, k, "f4").astype(storage("bfloat16"))
    )


@pytest.mark.parametrize("name", ["tril", "triu"])
@given(x=arrays(EVERY, shapes(min_dims=2)), k=st.integers(-5, 5))
@few
def test_triangles(name, x, k):
    assert_same(getattr(tl, name)(tl.asarray(x), k=k), getattr(np, name)(x, k))


def test_triangles_need_a_matrix():
    with pytest.raises(ShapeError, match=r"tril: expected at least 2 dimensions, found shape \(3,\)"):
        tl.tril(tl.ones(3))


@pytest.mark.parametrize("indexing", ["xy", "ij"])
@given(sizes=st.lists(st.integers(0, 3), max_size=4))
@few
def test_meshgrid(indexing, sizes):
    vectors = [np.arange(n) for n in sizes]
    grids = tl.meshgrid(*map(tl.asarray, vectors), indexing=indexing)
    expected = xp.meshgrid(*map(xp.asarray, vectors), indexing=indexing) if vectors else []
    assert isinstance(grids, list)
    assert len(grids) == len(expected)
    for grid, other in zip(grids, expected, strict=True):
        assert_same(grid, other)


def test_meshgrid_refuses_matrices_and_other_orders():
    with pytest.raises(ShapeError, match="meshgrid: expected vectors"):
        tl.meshgrid(tl.ones((2, 2)))
    with pytest.raises(ArgumentError, match="meshgrid: indexing"):
        tl.meshgrid(tl.ones(2), indexing="ji")


def test_shapes_and_devices_are_checked():
    for bad in ((-1,), "ab", 2.5, (1, None)):
        with pytest.raises(ShapeError, match="zeros: "):
            tl.zeros(bad)
    with pytest.raises(DeviceError, match="no device 'tpu'"):
        tl.zeros(2, device="tpu")
    with pytest.raises(DTypeError, match="not a dtype: 'float8'"):
        tl.zeros(2, dtype="float8")
    with pytest.raises(DTypeError, match="zeros_like: expected a Tensor"):
        tl.zeros_like([1, 2])
