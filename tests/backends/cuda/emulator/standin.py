"""Stands in for CuPy, over NumPy: ``install()`` before anything of the CUDA backend is imported."""

import contextlib
import ctypes
import itertools
import struct
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np

from tests.backends.cuda.emulator.build import Function

BLOCKS = 3  # multiprocessors, so that shares are uneven
MEMORY = 16 << 30


class CudaError(RuntimeError):
    """What neither CUDA's runtime nor its driver ever raises here."""

    status = 0


class Memory:
    """Bytes that hold no numbers, at an address as aligned as on a card."""

    def __init__(self, size):
        if size > MEMORY:
            raise MemoryError(f"{size} bytes")
        self._bytes = np.full(size + 256, 0xFF, np.uint8)
        self.ptr = self._bytes.ctypes.data + -self._bytes.ctypes.data % 256


class Pointer:
    """An address in memory, which lives as long."""

    def __init__(self, memory, offset=0):
        self.memory, self.ptr = memory, memory.ptr + offset

    def copy_from_host_async(self, address, size, stream=None):
        ctypes.memmove(self.ptr, int(getattr(address, "value", address)), size)

    def copy_to_host_async(self, address, size, stream=None):
        ctypes.memmove(int(getattr(address, "value", address)), self.ptr, size)

    def memset_async(self, value, size, stream=None):
        ctypes.memset(self.ptr, value, size)


class Array(np.ndarray):
    """CuPy's array. All that NumPy makes of one is one, scalars too."""

    def __new__(cls, shape, dtype=float, memptr=None):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memptr = memptr or Pointer(Memory(size))
        buffer = (ctypes.c_uint8 * max(size, 1)).from_address(memptr.ptr)
        array = np.ndarray.__new__(cls, shape, dtype, buffer)
        array.memory = memptr.memory
        return kept(array)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is not None:
            options["out"] = tuple(map(plain, out))
        inputs = [plain(value) for value in inputs]
        return made(lambda: getattr(ufunc, method)(*inputs, **options))

    def __array_function__(self, function, types, args, options):
        return made(lambda: super(Array, self).__array_function__(function, types, args, options))

    def __setitem__(self, key, value):
        do(lambda: plain(self).__setitem__(key, plain(value)))

    def __getitem__(self, key):
        return lying(super().__getitem__(key))

    @property
    def data(self):
        return Pointer(SimpleNamespace(ptr=self.ctypes.data, array=self))

    @property
    def device(self):
        return Device(0)

    def reshape(self, *shape, **options):
        view = super().reshape(*shape, **options)
        shared = np.may_share_memory(view, self)
        return view if shared else made(lambda: plain(self).reshape(*shape, **options))

    def get(self, *_, **__):
        return np.array(plain(self))

    def set(self, values, *_, **__):
        self[...] = values


def _methods():
    """Methods that give scalars, or arrays without having asked ``__array_function__``."""
    for name in ("all", "any", "argmax", "argmin", "argsort", "astype", "copy", "max", "mean", "min", "nonzero", "prod",
                 "std", "sum", "take", "var"):  # fmt: skip

        def method(self, *args, _name=name, **options):
            return made(lambda: getattr(np.ndarray, _name)(plain(self), *map(plain, args), **options))

        setattr(Array, name, method)


def plain(value):
    return value.view(np.ndarray) if isinstance(value, Array) else value


def lying(value):
    """A result of NumPy's as CuPy would give it."""
    if isinstance(value, (tuple, list)):
        parts = [lying(part) for part in value]
        return type(value)._make(parts) if hasattr(value, "_make") else type(value)(parts)
    if isinstance(value, np.generic):
        value = np.asarray(value)
    return kept(value.view(Array)) if isinstance(value, np.ndarray) else value


def made(run):
    """A result of NumPy's, which a recording makes anew when it is launched."""
    result = lying(run())
    if _recordings and isinstance(result, Array):
        _recordings[-1].acts.append(lambda: np.copyto(plain(result), plain(run())))
    return result


class Library(ModuleType):
    """A module of NumPy's, whose functions give arrays that lie on the card."""

    def __init__(self, name, of):
        super().__init__(name)
        self.__spec__, self._of = ModuleSpec(name, None), of

    def __getattr__(self, name):
        found = getattr(self._of, name)
        if isinstance(found, ModuleType):
            found = Library(f"{self.__name__}.{name}", found)
        elif callable(found) and not isinstance(found, type):
            found = _giving(found)
        setattr(self, name, found)
        return found


def _giving(function):
    return lambda *args, **options: made(lambda: function(*args, **options))


def empty(shape, dtype=float, order="C"):
    return Array(shape, dtype)


def asarray(values, dtype=None):
    """Values on the card: copied, unless they are there."""
    return lying(np.array(values, dtype, copy=None if isinstance(values, Array) else True))


class Device:
    """The only one."""

    def __init__(self, index=0):
        self.id = index

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


_recordings = []  # those under way: there is one at most


def kept(array):
    """An array, which a recording may read later."""
    for recording in _recordings:
        recording.memory.append(array)
    return array


def do(act):
    """Do something that a card does, now and whenever a recording of it is launched."""
    act()
    for recording in _recordings:
        recording.acts.append(act)


class Recording:
    """What a stream has captured. It has been done while it was: the first launch does nothing."""

    def __init__(self):
        self.acts, self.memory, self._done = [], [], True

    def launch(self, stream=None):
        if not self._done:
            for act in self.acts:
                act()
        self._done = False

    def get_nodes(self):
        return self.acts


class Stream(Device):
    """A stream that is never behind."""

    ptr = 0

    def __init__(self, **_):
        pass

    def record(self, event=None):
        return Event()

    def synchronize(self):
        pass

    def wait_event(self, event):
        pass

    def begin_capture(self, mode=None):
        _recordings.append(Recording())

    def end_capture(self):
        return _recordings.pop()


class Event:
    """Something that has happened."""

    def __init__(self, **_):
        self.done = True

    def record(self, stream=None):
        pass

    def synchronize(self):
        pass


class Pinned(bytearray):
    """Pinned memory."""

    @property
    def ptr(self):
        return ctypes.addressof(ctypes.c_uint8.from_buffer(self))


class Pool:
    """One that keeps nothing."""

    def malloc(self, size):
        return Pointer(Memory(size))

    def free_all_blocks(self):
        pass

    def used_bytes(self):
        return 0

    total_bytes = free_bytes = used_bytes


class Module:
    """Of kernels: what ``machine_code`` says to compile."""

    def load(self, code):
        self._code = code

    def get_function(self, name):
        return Loaded(Function(self._code[0], name, *self._code[1:]))


class Loaded:
    """A kernel that a module has been asked for; its address is a number by which ``launch`` finds it."""

    _numbers, all = itertools.count(1), {}

    def __init__(self, function):
        self.function, self.ptr = function, next(self._numbers)
        self.all[self.ptr] = self


def launch(config, address, parameters, extra):
    """cuLaunchKernelEx, as kernels.py calls it. ``packed.letters`` says of what types the arguments are."""
    x, y, z, *block, shared, _, _, _ = struct.unpack("7I2PI", ctypes.string_at(config, struct.calcsize("7I2PI")))
    function = Loaded.all[address].function
    if parameters is None:
        pointer, buffer, size, where, end = (ctypes.c_void_p * 5).from_address(extra)
        assert (pointer, size, end) == (1, 2, None)
        given = ctypes.string_at(buffer, ctypes.c_size_t.from_address(where).value)
    else:  # one by one, each of 8 bytes
        assert extra is None
        places = (ctypes.c_void_p * len(packed.letters)).from_address(parameters)
        given = b"".join(ctypes.string_at(place, 8) for place in places)
    values, at = [], 0
    while at < len(given):
        part = given[at : at + function.size(len(values))]
        whole = ctypes.create_string_buffer(part, len(part))
        values.append(struct.unpack(packed.letters[at // 8], part)[0] if len(part) == 8 else whole)
        at += len(part)
    do(lambda: function((x, y, z), block, values, shared))
    return 0


packed = threading.local()
"""``letters``: the types of the arguments that a thread has packed last, as ``struct`` names them."""


def install():
    """Make it what ``import cupy`` finds."""
    _methods()
    pool = Pool()
    allocators, runtime_error = [pool.malloc], type("CUDARuntimeError", (CudaError,), {})
    lack = type("OutOfMemoryError", (MemoryError,), {})
    runtime = SimpleNamespace(
        getDevice=lambda: 0, deviceSynchronize=lambda: None, memGetInfo=lambda: (MEMORY // 2, MEMORY),
        deviceGetAttribute=lambda attribute, index: {16: BLOCKS, 81: 228 << 10, 97: 227 << 10}[attribute],
        streamCaptureModeRelaxed=2, CUDARuntimeError=runtime_error,
    )  # fmt: skip
    cuda = SimpleNamespace(
        Device=Device, Stream=Stream, Event=Event, Memory=Memory, MemoryPointer=Pointer, MemoryPool=Pool,
        runtime=runtime, get_current_stream=Stream, alloc_pinned_memory=Pinned, get_elapsed_time=lambda begin, end: 0.0,
        get_allocator=lambda: allocators[-1], set_allocator=allocators.append,
        using_allocator=lambda allocator: contextlib.nullcontext(), memory=SimpleNamespace(OutOfMemoryError=lack),
        function=SimpleNamespace(Module=Module),
    )  # fmt: skip
    cupy = Library("cupy", np)
    cupy.__dict__.update(
        ndarray=Array, empty=empty, asarray=asarray, cuda=cuda, get_default_memory_pool=lambda: pool,
    )  # fmt: skip
    driver = SimpleNamespace(
        CUDADriverError=type("CUDADriverError", (CudaError,), {}), funcSetAttribute=lambda *_: None
    )
    sys.modules["cupy"] = cupy
    for name in ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.api"):
        sys.modules[name] = ModuleType(name)
    sys.modules["cupy_backends.cuda.api"].driver = sys.modules["cupy_backends.cuda.api.driver"] = driver
    sys.modules["cupy_backends.cuda.api.runtime"] = runtime
