import copy
import math
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given

import tallow as tl
from tallow.errors import ArgumentError, DTypeError, ShapeError
from tests.arrays import ALL, COMPLEX, FLOATS, INTEGERS, NARROW, arrays, assert_same, few, storage

EVERY = (*ALL, *NARROW)


def test_what_a_tensor_is():
    x = tl.zeros((2, 3), dtype="bfloat16")
    assert x.shape == (2, 3)
    assert (x.ndim, x.dim(), x.size, x.numel(), x.nbytes, len(x)) == (2, 2, 6, 6, 12, 2)
    assert x.dtype is tl.bfloat16
    assert str(x.device) == "cpu"
    assert x.is_contiguous()
    assert not x.T.is_contiguous()
    assert type(x.storage) is np.ndarray
    assert x.numpy() is x.storage
    with pytest.raises(TypeError):
        hash(x)
    with pytest.raises(TypeError, match="no length"):
        len(tl.ones(()))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (lambda: tl.asarray(1.5), "Tensor(1.5, shape=(), dtype=float32, device='cpu')"),
        (lambda: tl.asarray([1, 2], dtype=tl.int8), "Tensor([1, 2], shape=(2,), dtype=int8, device='cpu')"),
        (lambda: tl.asarray([True]), "Tensor([ True], shape=(1,), dtype=bool, device='cpu')"),
        (lambda: tl.ones(2, dtype="bfloat16") / 3, "Tensor([0.334, 0.334], shape=(2,), dtype=bfloat16, device='cpu')"),
        (lambda: tl.ones((), dtype="bfloat16"), "Tensor(1.0, shape=(), dtype=bfloat16, device='cpu')"),
        (lambda: tl.zeros((0, 3)), "Tensor([], shape=(0, 3), dtype=float32, device='cpu')"),
        (lambda: tl.asarray([1j]), "Tensor([0.+1.j], shape=(1,), dtype=complex64, device='cpu')"),
        (
            lambda: tl.arange(1000),
            "Tensor([  0,   1,   2, ..., 997, 998, 999], shape=(1000,), dtype=int64, device='cpu')",
        ),
        (
            lambda: tl.ones((2, 2)),
            "Tensor([[1., 1.],\n        [1., 1.]], shape=(2, 2), dtype=float32, device='cpu')",
        ),
    ],
)
def test_repr(x, text):
    assert repr(x()) == text
    assert str(x()) == text


def test_repr_of_a_large_tensor_is_short():
    assert len(repr(tl.ones((100, 100, 100)))) < 2000


@given(x=arrays(EVERY))
@few
def test_into_numpy_and_python(x):
    t = tl.asarray(x)
    assert np.asarray(t) is x
    assert not np.shares_memory(np.array(t, copy=True), x)
    np.testing.assert_array_equal(np.asarray(t, dtype="complex128"), x.astype("complex128"))
    assert str(t.tolist()) == str(x.tolist())
    if x.size == 1:
        assert str(t.item()) == str(x.item())


def test_array_protocol():
    x = tl.ones(3)
    assert np.array(x, dtype="float64", copy=None).dtype == np.float64
    assert x.__array__(copy=False) is x.storage
    with pytest.raises(ValueError, match="a copy is needed from float32 on cpu to float64"):
        np.array(x, dtype="float64", copy=False)
    assert np.exp(x).shape == (3,)
    assert np.stack([x, x]).shape == (2, 3)


def test_item_and_single_elements():
    assert tl.asarray([[5]]).item() == 5
    assert type(tl.ones(1, dtype="bfloat16").item()) is float
    for bad in (tl.ones(2), tl.ones(0)):
        with pytest.raises(ShapeError, match=rf"item: expected one element, found shape \({bad.size},\)"):
            bad.item()


@pytest.mark.parametrize("name", EVERY)
def test_python_scalars(name):
    x = tl.ones((), dtype=name)
    assert bool(x) is True
    assert bool(tl.zeros((1, 1), dtype=name)) is False
    assert complex(x) == 1 + 0j
    if name in COMPLEX:
        for kind in (int, float):
            with pytest.raises(TypeError, match=kind.__name__):
                kind(x)
    else:
        assert type(int(x)) is int
        assert type(float(x)) is float
        assert (int(x), float(x)) == (1, 1.0)
    if name in INTEGERS:
        assert [10, 20][x] == 20
        assert operator.index(x) == 1
    else:
        with pytest.raises(TypeError, match="index: expected an integer of no dimension"):
            operator.index(x)


def test_python_scalars_at_the_edges():
    assert bool(tl.asarray(float("nan"))) is True
    assert bool(tl.asarray(-0.0)) is False
    assert int(tl.asarray(-2.7)) == -2
    assert round(float(tl.asarray(0.1)), 7) == 0.1
    with pytest.raises(OverflowError):
        int(tl.asarray(math.inf))
    with pytest.raises(ValueError, match="NaN"):
        int(tl.asarray(math.nan))
    for kind in (bool, int, float, complex):
        with pytest.raises(TypeError, match=rf"{kind.__name__}: expected one element, found shape \(2,\)"):
            kind(tl.ones(2))
    with pytest.raises(TypeError):
        operator.index(tl.asarray([1]))


def test_iteration_and_membership():
    rows = list(tl.asarray([[1, 2], [3, 4]]))
    assert [row.tolist() for row in rows] == [[1, 2], [3, 4]]
    a, b = tl.asarray([1.5, 2.5])
    assert (float(a), float(b)) == (1.5, 2.5)
    assert 2.5 in tl.asarray([1.5, 2.5])
    assert 3 not in tl.asarray([1.5, 2.5])
    assert list(tl.zeros((0, 2))) == []
    with pytest.raises(TypeError, match="iter: "):
        iter(tl.ones(()))


@given(x=arrays(EVERY))
@few
def test_pickle_and_copy(x):
    t = tl.asarray(x)
    for again in (pickle.loads(pickle.dumps(t)), copy.copy(t), copy.deepcopy(t), t.copy(), t.clone()):
        assert_same(again, x)
        assert again.storage.flags.writeable
        assert not np.shares_memory(again.storage, x) or x.size == 0


def test_pickle_of_a_view_holds_the_view_only():
    view = tl.zeros(100_000)[:10]
    assert len(pickle.dumps(view)) < 1000


def test_to():
    x = tl.ones(2)
    assert x.to() is x
    assert x.to("cpu") is x
    assert x.to(None, None) is x
    assert x.to(tl.float32, x.device) is x
    for arguments in (("float16",), (tl.float16,), ("cpu", "float16"), ("f16", "cpu"), (np.float16,), (None, "half")):
        assert x.to(*arguments).dtype is tl.float16
    assert x.to(dtype=tl.int8, device="cpu").dtype is tl.int8
    assert x.to(tl.ones(1, dtype="bfloat16")).dtype is tl.bfloat16
    assert x.to(copy=True) is not x
    assert x.astype("int8").dtype is tl.int8
    assert x.astype(tl.float32) is not x
    assert x.astype(tl.float32, copy=False) is x
    assert [y.dtype for y in (x.half(), x.bfloat16(), x.half().float())] == [tl.float16, tl.bfloat16, tl.float32]
    assert x.float() is x
    with pytest.raises(tl.DeviceError, match="no device 'float8'"):
        x.to("float8")
    with pytest.raises(DTypeError):
        x.to(3)


def test_methods_call_the_operations():
    x = tl.asarray([[1.0, 4.0], [9.0, 16.0]])
    assert_same(x.sqrt(), np.sqrt(x.numpy()))
    assert_same(x.sqr(), np.square(x.numpy()))
    for name in ("exp", "log", "sin", "cos", "tanh", "abs"):
        assert_same(getattr(x, name)(), getattr(np, name)(x.numpy()))
    assert_same(x.clamp(2, 10), np.clip(x.numpy(), 2, 10))
    assert_same(x.clamp(min=2.5), np.maximum(x.numpy(), np.float32(2.5)))
    assert_same(x.clip(max=3), np.minimum(x.numpy(), np.float32(3)))
    assert_same(x.sum(0), np.asarray([10, 20], "f4"))
    assert_same(x.sum(-1, keepdims=True), np.asarray([[5], [25]], "f4"))
    assert_same(x.sum(dtype=tl.float64), np.asarray(30.0))
    assert_same(x.mean(-1), np.asarray([2.5, 12.5], "f4"))
    assert_same(x.max(axis=(0, 1)), np.asarray(16, "f4"))
    assert_same(x.prod(), np.asarray(576, "f4"))
    assert_same(x.argmax(1), np.asarray([1, 1]))
    assert_same(x.take(tl.asarray([1]), axis=0), x.numpy()[1:])
    assert_same(x.flip(0), x.numpy()[::-1])
    assert_same(x.repeat(2, axis=1), np.repeat(x.numpy(), 2, 1))
    assert_same(x.var(0, correction=1), np.var(x.numpy(), 0, ddof=1))
    z = tl.asarray([1 + 2j])
    assert (z.real.tolist(), z.imag.tolist(), z.conj().tolist()) == ([1], [2], [1 - 2j])


def test_views_share_memory():
    x = tl.zeros((2, 3, 4))
    views = [
        x[0],
        x[..., 1:3],
        x.T if x.ndim == 2 else x.mT,
        x.transpose(0, 2),
        x.permute(2, 0, 1),
        x.narrow(1, 1, 2),
        x.unsqueeze(0),
        x[:1].squeeze(0),
        x.reshape(6, 4),
        x.flatten(),
        x.expand(5, 2, 3, 4),
        x.flip(0),
        *x.unstack(axis=1),
        *x.split(2, axis=2),
        *x.chunk(2),
        tl.asarray([1j]).real,
    ]
    x[...] = 1.0
    assert all(float(view.sum()) == view.size for view in views[:-1])


def test_nothing_needs_contiguous():
    x = tl.reshape(tl.arange(24, dtype=tl.float32), (2, 3, 4)).permute(2, 0, 1)
    straight = x.contiguous()
    for function in (lambda t: t.reshape(-1), lambda t: t @ t.mT, lambda t: t.sum(0), lambda t: t[1].exp()):
        assert_same(function(x), function(straight).numpy())


def test_read_only_memory_is_kept_read_only():
    array = np.arange(3.0)
    array.flags.writeable = False
    x = tl.asarray(array)
    for view in (x, x[1:], x.reshape(3, 1)):
        with pytest.raises(DTypeError, match="setitem: this tensor is read-only"):
            view[0] = 1.0
    with pytest.raises(DTypeError, match="read-only"):
        x += 1
    assert (x + 1).storage.flags.writeable


def test_to_device_on_the_cpu():
    x = tl.ones(2)
    assert x.to_device("cpu") is x
    assert x.to_device(x.device) is x
    with pytest.raises(tl.DeviceError):
        x.to_device("gpu")


def test_array_priority_leaves_operators_to_tensors():
    array, x = np.asarray([1.0, 2.0], "f4"), tl.asarray([3.0, 4.0])
    for result in (array + x, x + array):
        assert_same(result, np.asarray([4, 6], "f4"))
    assert_same(array - x, np.asarray([-2, -2], "f4"))
    assert_same(np.float64(2) * x, np.asarray([6, 8], "f4"))
    assert_same(array @ x, np.asarray(11, "f4"))
    assert_same(array < x, np.asarray([True, True]))
    assert_same(x + np.asarray([1, 2], "float64"), np.asarray([4.0, 6.0]))


def test_unknown_names_of_versions():
    with pytest.raises(ArgumentError):
        tl.ones(1).__array_namespace__(api_version="1")


@pytest.mark.parametrize("name", [*FLOATS, *NARROW])
def test_bfloat16_and_the_others_survive_numpy(name):
    x = tl.asarray([1.5, -2.0], dtype=name)
    assert x.numpy().dtype == storage(name)
    assert tl.asarray(x.numpy()).dtype.name == name
