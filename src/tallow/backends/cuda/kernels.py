"""Kernels as functions that can be launched, and what they share."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import cupy
from cupy_backends.cuda.api import driver

from tallow import dtypes
from tallow.backends.cuda import graph
from tallow.backends.cuda.compiler import architecture, machine_code
from tallow.backends.cuda.memory import lasting
from tallow.device import compute_capability, cuda_driver
from tallow.errors import DeviceError
from tallow.ops.kv_cache import KVCache

NAMES = {dtypes.float32.numpy: "f32", dtypes.float16.numpy: "f16", dtypes.bfloat16.numpy: "bf16"}
"""The types that kernels compute on, as the sources call them."""

_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_functions: dict[Any, Kernel] = {}


class _LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute, with the one value that is used."""

    _fields_ = [("id", ctypes.c_int), ("padding", ctypes.c_int), ("value", ctypes.c_int), ("rest", ctypes.c_int * 15)]


class _LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_LaunchAttribute)),
        ("count", ctypes.c_uint),
    ]


_EARLY = _LaunchAttribute(6, 0, 1)  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
_TOGETHER = _LaunchAttribute(2, 0, 1)  # CU_LAUNCH_ATTRIBUTE_COOPERATIVE


class Structure(bytes):
    """An argument that is a structure."""


class Kernel:
    """A kernel on the current card, to be called with a grid, a block and its arguments.

    Arrays, Python integers (64 bits there), floats (double) and structures may be passed; 0 is the null pointer. In a
    recording, where the card can, it is put there while the kernel before it still runs: see ``wait_for_previous`` in
    common.cuh.

    Args:
        function: CuPy's.
        waits: whether the source calls ``wait_for_previous``, and the card can launch early.
    """

    __slots__ = ("_function", "_waits")

    def __init__(self, function: Any, waits: bool) -> None:
        self._function = function
        self._waits = waits

    def __call__(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared: int = 0) -> None:
        """Launch it on the current stream."""
        graph.flush()
        if self._waits and graph.recording():
            self._launch(grid, block, arguments, shared, _EARLY)
        elif Structure in map(type, arguments):
            self._launch(grid, block, arguments, shared)
        else:
            self._function(tuple(grid), tuple(block), tuple(arguments), shared)

    def together(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared: int) -> None:
        """Launch it with all its blocks on the card at once, so that they may wait for each other."""
        self._launch(grid, block, arguments, shared, _TOGETHER)

    def _launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared: int,
        attribute: _LaunchAttribute | None = None,
    ) -> None:
        values: list[Any] = [
            ctypes.c_int64(value) if isinstance(value, int)
            else ctypes.c_double(value) if isinstance(value, float)
            else ctypes.create_string_buffer(value, len(value)) if isinstance(value, Structure)
            else ctypes.c_void_p(value.data.ptr)
            for value in arguments
        ]  # fmt: skip
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = [(ctypes.c_uint * 3)(*given, *[1] * (3 - len(given))) for given in (grid, block)]
        stream = cupy.cuda.get_current_stream().ptr
        attributes = (None, 0) if attribute is None else (ctypes.pointer(attribute), 1)
        config = _LaunchConfig(*sizes, shared, stream, *attributes)
        status = cuda_driver().cuLaunchKernelEx(
            ctypes.byref(config), ctypes.c_void_p(self._function.ptr), pointers, ctypes.c_void_p(0)
        )
        if status:
            raise DeviceError(f"cuLaunchKernelEx failed with status {status}")


def function(file: str, name: str, shared: int = 0, **macros: Any) -> Kernel:
    """A kernel for the current card.

    Args:
        file: its source, without ``.cu``.
        name: its name there.
        shared: bytes of shared memory that it will be launched with.
        macros: what the source leaves open.
    """
    key = (file, name, cupy.cuda.runtime.getDevice(), *macros.values())
    found = _functions.get(key)
    if found is None:
        capability = compute_capability(key[2])
        module = cupy.cuda.function.Module()
        module.load(machine_code(f"{file}.cu", macros, architecture(capability)))
        loaded = module.get_function(name)
        if shared > 48 << 10:
            driver.funcSetAttribute(loaded.ptr, _MAX_DYNAMIC_SHARED, shared)
        found = _functions.setdefault(key, Kernel(loaded, file not in _WHOLLY_AFTER and capability >= (9, 0)))
    return found


_WHOLLY_AFTER = ("attention_flash", "program")
"""Sources without ``wait_for_previous``: for work that is large enough for launches not to matter."""


def multiprocessors() -> int:
    """Of the current card."""
    count = 16  # cudaDevAttrMultiProcessorCount
    return int(cupy.cuda.runtime.deviceGetAttribute(count, cupy.cuda.runtime.getDevice()))


TICKETS = 1 << 16
_zeroed: dict[Any, Any] = {}


def tickets() -> Any:
    """Counters (uint32) by which the last block of a kernel knows that it is; see ``zeroed``."""
    return zeroed("tickets", TICKETS)


def zeroed(name: str, size: int) -> Any:
    """Words (uint32) for what the blocks of a kernel tell each other: zeros between kernels, which see to that.

    There is one for each stream and each recording, as kernels on different ones may run at once.
    """
    now = graph.recorded()
    held = _zeroed if now is None else now.zeroed
    key = (name, cupy.cuda.runtime.getDevice(), cupy.cuda.get_current_stream().ptr)
    if key not in held:
        held[key] = lasting(size, cupy.uint32)
    return held[key]


def table_of(cache: KVCache) -> Any:
    """The pages of a cache's rows, where it lies."""
    assert cache.table is not None
    return cache.table.held.storage
