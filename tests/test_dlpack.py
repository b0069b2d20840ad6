import gc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallow as tl
from tallow.errors import ArgumentError, DeviceError, DTypeError, ExchangeError
from tests.arrays import ALL, NARROW, arrays, assert_same, few, storage

EVERY = (*ALL, *NARROW)


def frozen(x):
    x.storage.flags.writeable = False
    return x


@given(x=arrays(EVERY), read_only=st.booleans())
@few
def test_there_and_back_without_a_copy(x, read_only):
    t = tl.asarray(x)
    if read_only:
        frozen(t)
    again = tl.from_dlpack(t)
    assert again is t

    class Foreign:
        """A library of its own, as far as from_dlpack can tell."""

        def __dlpack_device__(self):
            return t.__dlpack_device__()

        def __dlpack__(self, **options):
            return t.__dlpack__(**options)

    for taken in (tl.from_dlpack(Foreign()), tl.asarray(Foreign())):
        assert_same(taken, x)
        assert np.shares_memory(taken.storage, x) or x.size == 0
        assert taken.storage.flags.writeable is not read_only
    copied = tl.from_dlpack(Foreign(), copy=True)
    assert_same(copied, x)
    assert not np.shares_memory(copied.storage, x)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "bfloat16"])
def test_numpy_takes_tensors(name):
    x = tl.ones((2, 3), dtype=name)
    taken = np.from_dlpack(x)
    assert taken.dtype == storage(name)
    assert np.shares_memory(taken, x.storage)
    assert np.from_dlpack(x.T).shape == (3, 2)
    read_only = np.from_dlpack(frozen(x))
    assert not read_only.flags.writeable
    assert np.shares_memory(read_only, x.storage)


def test_tensors_take_numpy():
    array = np.arange(6.0).reshape(2, 3)[:, ::2]
    x = tl.from_dlpack(array)
    assert_same(x, array)
    assert np.shares_memory(x.storage, array)


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 1)])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_capsules_of_both_kinds(name, version):
    x = frozen(tl.ones(3, dtype=name))
    capsule = x.__dlpack__(max_version=version)
    versioned = version is not None and version >= (1, 0)
    assert ("dltensor_versioned" if versioned else "dltensor") in repr(capsule)


def test_memory_lives_as_long_as_a_capsule_or_what_was_made_of_it():
    class Owner:
        def __init__(self):
            self.array = np.ones(4, "f4")
            self.__array_interface__ = self.array.__array_interface__

    owner = Owner()
    watch = weakref.ref(owner)
    x = frozen(tl.asarray(owner))
    taken = np.from_dlpack(x)
    del x, owner
    gc.collect()
    assert watch() is not None
    assert taken.sum() == 4
    del taken
    gc.collect()
    assert watch() is None


def test_copies():
    x = tl.ones(3, dtype="bfloat16")

    class Copying:
        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **options):
            return x.__dlpack__(**{**options, "copy": True})

    taken = tl.from_dlpack(Copying())
    taken[0] = 5.0
    assert float(x[0]) == 1


def test_devices_and_streams():
    x = tl.ones(2)
    assert x.__dlpack_device__() == (1, 0)
    assert "dltensor" in repr(x.__dlpack__(dl_device=(1, 0), stream=None, copy=False))
    with pytest.raises(BufferError, match=r"__dlpack__: the tensor lies on the CPU, \(1, 0\), not on \(2, 0\)"):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(ExchangeError, match="has no streams, found stream=1"):
        x.__dlpack__(stream=1)

    class Elsewhere:
        __dlpack__ = None

        def __dlpack_device__(self):
            return (8, 0)

    with pytest.raises(DeviceError, match="DLPack device kind 8"):
        tl.from_dlpack(Elsewhere())


def test_what_cannot_be_taken():
    with pytest.raises(DTypeError, match="from_dlpack: expected an array with __dlpack__, found list"):
        tl.from_dlpack([1, 2])

    class Refuses:
        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **options):
            raise BufferError("not today")

    with pytest.raises(BufferError, match="from_dlpack: Refuses: not today"):
        tl.from_dlpack(Refuses())
    with pytest.raises(ArgumentError, match="needs a copy"):
        tl.asarray(np.ones(2), dtype=tl.int8, copy=False)
    assert tl.from_dlpack(tl.ones(2), device="cpu", copy=False).shape == (2,)


def test_torch_shares_memory_both_ways():
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra `oracle`")
    for name in ("float32", "bfloat16", "float16", "int64", "bool", "complex64"):
        x = tl.ones((2, 3), dtype=name)
        there = torch.from_dlpack(x)
        assert str(there.dtype) == f"torch.{name}"
        back = tl.from_dlpack(there)
        assert back.dtype.name == name
        assert np.shares_memory(back.storage, x.storage)
        assert_same(tl.asarray(torch.zeros(3, dtype=there.dtype)[::2]), np.zeros(2, storage(name)))
    assert torch.from_dlpack(frozen(tl.ones(3, dtype="bfloat16"))).sum() == 3
