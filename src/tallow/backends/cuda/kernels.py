"""Kernels as functions that can be launched, and what they share."""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import cupy
from cupy_backends.cuda.api import driver

from tallow import dtypes
from tallow.backends.cuda import graph
from tallow.backends.cuda.compiler import architecture, machine_code
from tallow.backends.cuda.memory import lasting
from tallow.device import compute_capability, cuda_driver
from tallow.ops.kv_cache import KVCache

NAMES = {dtypes.float32.numpy: "f32", dtypes.float16.numpy: "f16", dtypes.bfloat16.numpy: "bf16"}
"""The types that kernels compute on, as the sources call them."""

_MAX_DYNAMIC_SHARED, _SHARED_CARVEOUT = 8, 9  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, …_CARVEOUT
_functions: dict[Any, Kernel] = {}

_CONFIG = "7I2PI0P"  # CUlaunchConfig: grid, block, bytes of shared memory; stream, attributes, how many these are
_EARLY = (ctypes.c_int * 18)(6, 0, 1)  # CUlaunchAttribute: CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, true
_TOGETHER = (ctypes.c_int * 18)(2, 0, 1)  # CU_LAUNCH_ATTRIBUTE_COOPERATIVE, true
_EARLY_ADDRESS, _TOGETHER_ADDRESS = ctypes.addressof(_EARLY), ctypes.addressof(_TOGETHER)
_BUFFER_POINTER, _BUFFER_SIZE, _END = 1, 2, 0  # CU_LAUNCH_PARAM_…
_MAX_BYTES = 4096  # of a kernel's arguments


class _Room(threading.local):
    """Where a thread writes what it tells the driver of a launch: the configuration, and the arguments behind it."""

    config = 0  # its address, once there is one

    def prepare(self) -> None:
        """To be done before the thread's first launch."""
        cupy.cuda.runtime.memGetInfo()  # gives the thread the card's context, without which the driver does nothing
        self.words = ctypes.create_string_buffer(struct.calcsize(_CONFIG) + _MAX_BYTES)
        self.config = ctypes.addressof(self.words)
        self.size = ctypes.c_size_t()  # of the arguments
        where = self.config + struct.calcsize(_CONFIG), ctypes.addressof(self.size)
        self._extra = (ctypes.c_void_p * 5)(_BUFFER_POINTER, where[0], _BUFFER_SIZE, where[1], _END)
        self.extra = ctypes.addressof(self._extra)


_room = _Room()


class Kernel:
    """A kernel on the current card, to be called with a grid, a block and its arguments.

    Arrays, Python integers (64 bits there) and floats (double) may be passed; None is the null pointer, and a structure
    of such is passed as its members. In a recording, where the card can, it is put there while the kernel before it
    still runs: see ``wait_for_previous`` in common.cuh.

    Args:
        function: CuPy's.
        waits: whether the source calls ``wait_for_previous``, and the card can launch early.
        together: whether its blocks wait for each other. The launch is a cooperative one: the GPU begins none of them
            before there is room for all, as it would where the blocks of two such kernels have shared the room out. It
            is never early.
    """

    __slots__ = ("_address", "_function", "_shared", "_together", "_waits")

    def __init__(self, function: Any, waits: bool, together: bool = False) -> None:
        self._function = function
        self._address = function.ptr
        self._waits, self._together = waits, together
        self._shared = 0  # bytes that have been asked for, for each block

    def __call__(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared: int = 0) -> None:
        """Launch it on the current stream."""
        graph.flush()
        room = _room
        if not room.config:
            room.prepare()
        if shared > self._shared:
            self._ask_for(shared)
        sizes = (*grid, 1, 1)[:3] + (*block, 1, 1)[:3]
        stream = cupy.cuda.get_current_stream().ptr
        attributes = (0, 0)
        if self._together:
            attributes = (_TOGETHER_ADDRESS, 1)
        elif self._waits and graph.recording():
            attributes = (_EARLY_ADDRESS, 1)
        words = [value.data.ptr if type(value) is _Array else value or 0 for value in arguments]
        packing = _packing(tuple(map(type, arguments)))
        packing.pack_into(room.words, 0, *sizes, shared, stream, *attributes, *words)
        if self._together:  # whose arguments the driver takes one by one alone
            begin = room.config + struct.calcsize(_CONFIG)
            places = (ctypes.c_void_p * len(words))(*range(begin, begin + 8 * len(words), 8))
            status = _launcher()(room.config, self._address, ctypes.addressof(places), None)
        else:
            room.size.value = 8 * len(words)
            status = _launcher()(room.config, self._address, None, room.extra)
        if status:
            raise driver.CUDADriverError(status)

    def _ask_for(self, shared: int) -> None:
        """Ask for shared memory, as is needed where a block has more than 48 KB, the kernel's own included."""
        with _lock:
            if shared > self._shared:
                driver.funcSetAttribute(self._address, _MAX_DYNAMIC_SHARED, shared)
                self._shared = shared


_lock = threading.Lock()
_Array = cupy.ndarray


@functools.cache
def _packing(kinds: tuple[type, ...]) -> struct.Struct:
    """How the configuration and arguments of these types lie one behind the other."""
    letters = []
    for kind in kinds:
        letter = next((letter for known, letter in _LETTERS.items() if issubclass(kind, known)), None)
        if letter is None:
            raise TypeError(f"kernels take arrays, integers and floats, not {kind.__name__}")
        letters.append(letter)
    return struct.Struct(_CONFIG + "".join(letters))


_LETTERS = {cupy.ndarray: "Q", int: "q", float: "d", type(None): "Q"}


@functools.cache
def _launcher() -> Any:
    launch = cuda_driver().cuLaunchKernelEx
    launch.argtypes = [ctypes.c_void_p] * 4
    return launch


def function(file: str, name: str, **macros: Any) -> Kernel:
    """A kernel for the current card.

    Args:
        file: its source, without ``.cu``.
        name: its name there.
        macros: what the source leaves open.
    """
    key = (file, name, cupy.cuda.runtime.getDevice(), *macros.values())
    found = _functions.get(key)
    if found is None:
        card = capability()
        module = cupy.cuda.function.Module()
        module.load(machine_code(f"{file}.cu", macros, architecture(card)))
        loaded = module.get_function(name)
        waits = file not in _WHOLLY_AFTER and card >= (9, 0)
        if waits:  # a multiprocessor divides its memory anew when it is idle only: all divide it alike, to begin early
            driver.funcSetAttribute(loaded.ptr, _SHARED_CARVEOUT, 100)
        found = _functions.setdefault(key, Kernel(loaded, waits, file in _WAITING_FOR_EACH_OTHER))
    return found


_WHOLLY_AFTER = ("attention_flash",)
"""Sources without ``wait_for_previous``: for work that is large enough for launches not to matter."""

_WAITING_FOR_EACH_OTHER = ("sample",)
"""Sources whose blocks wait for each other, so that all of a launch must run at once."""


_capability = functools.cache(compute_capability)


def capability() -> tuple[int, int]:
    """Compute capability of the current card."""
    return _capability(cupy.cuda.runtime.getDevice())


def multiprocessors() -> int:
    """Of the current card."""
    return _attribute(16, cupy.cuda.runtime.getDevice())  # cudaDevAttrMultiProcessorCount


def most_shared() -> int:
    """Bytes of shared memory that a block may have on the current card."""
    return _attribute(97, cupy.cuda.runtime.getDevice())  # cudaDevAttrMaxSharedMemoryPerBlockOptin


def blocks_at_once(shared: int) -> int:
    """Blocks that a multiprocessor of the current card has shared memory for, of so many bytes each."""
    whole = _attribute(81, cupy.cuda.runtime.getDevice())  # cudaDevAttrMaxSharedMemoryPerMultiprocessor
    return whole // (shared + 1024)  # which the driver takes for itself


@functools.cache
def _attribute(number: int, device: int) -> int:
    return int(cupy.cuda.runtime.deviceGetAttribute(number, device))


TICKETS = 1 << 16
_zeroed: dict[Any, Any] = {}


def tickets() -> Any:
    """Counters (uint32) by which the last block of a kernel knows that it is; see ``zeroed``."""
    return zeroed("tickets", TICKETS)


def ticket() -> Any:
    """The last of ``tickets``, for kernels that need one."""
    return _of_stream("ticket", lambda: tickets()[-1:])


def zeroed(name: str, size: int) -> Any:
    """Words (uint32) for what the blocks of a kernel tell each other: zeros between kernels, which see to that.

    There is one for each stream and each recording, as kernels on different ones may run at once.
    """
    return _of_stream(name, lambda: lasting(size, cupy.uint32))


def _of_stream(name: str, make: Callable[[], Any]) -> Any:
    now = graph.recorded()
    held = _zeroed if now is None else now.zeroed
    key = (name, cupy.cuda.runtime.getDevice(), cupy.cuda.get_current_stream().ptr)
    if key not in held:
        held[key] = make()
    return held[key]


def table_of(cache: KVCache) -> Any:
    """The pages of a cache's rows, where it lies."""
    assert cache.table is not None
    return cache.table.held.storage
