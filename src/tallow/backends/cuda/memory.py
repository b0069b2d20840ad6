"""When a card's memory runs out: one error, which says what there is, and a process that goes on."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np
from cupy_backends.cuda.api.driver import CUDADriverError
from cupy_backends.cuda.api.runtime import CUDARuntimeError

from tallow.errors import DeviceError, OutOfMemoryError, TallowError

_ADVICE = "let go of models or tensors, or take a smaller batch, fewer max_tokens or quantize='int8'"
_LACK = 2  # cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY


eviction_callbacks: list[Callable[[], None]] = []
"""What lets go of memory that is kept for later: called where memory lacks."""


def register_eviction(give: Callable[[], None]) -> bool:
    """Have ``give`` called where memory lacks.

    Returns:
        Whether tensors ask for it too: not if they get their memory from an allocator of the user's own.
    """
    if give not in eviction_callbacks:
        eviction_callbacks.append(give)
    if cupy.cuda.get_allocator() == cupy.get_default_memory_pool().malloc:
        with contextlib.suppress(ValueError):  # the caller is inside CuPy's ``using_allocator``
            cupy.cuda.set_allocator(allocate)
    return bool(cupy.cuda.get_allocator() is allocate)


def make_room() -> None:
    """Give back to the card whatever can be missed."""
    for give in list(eviction_callbacks):
        give()
    cupy.get_default_memory_pool().free_all_blocks()


def allocated(malloc: Callable[[int], Any], nbytes: int) -> Any:
    """What ``malloc(nbytes)`` gives; where there is no memory for it, it is asked again once there is room."""
    try:
        return malloc(nbytes)
    except (MemoryError, RuntimeError) as error:
        if not is_oom(error):
            raise
    make_room()
    return malloc(nbytes)


def allocate(nbytes: int) -> Any:
    """CuPy's allocator, but that room is made where memory lacks."""
    return allocated(cupy.get_default_memory_pool().malloc, nbytes)


def is_oom(error: BaseException) -> bool:
    """Whether an error of CuPy's says that memory has run out."""
    if isinstance(error, CUDARuntimeError | CUDADriverError):
        return bool(error.status == _LACK)
    return isinstance(error, cupy.cuda.memory.OutOfMemoryError)


def explained(what: str, error: BaseException) -> TallowError | None:
    """What the user should see of an error of CuPy's: an OutOfMemoryError or a DeviceError; None for other errors.

    What the calls that failed have left behind goes back to the card.

    Args:
        what: could not be done.
        error: was raised.
    """
    if is_oom(error):
        release(error)
        asked = re.search(r"([\d,]+) bytes", str(error))
        return OutOfMemoryError(lack(what, int(asked[1].replace(",", "")) if asked else None))
    if isinstance(error, CUDARuntimeError | CUDADriverError):
        return DeviceError(f"{what}: the GPU fails: {error}")
    return None


def lack(what: str, asked: int | None = None) -> str:
    """The message: what was asked for, what there is, what can be done.

    Args:
        what: could not be done.
        asked: bytes that it wanted, where that is known.
    """
    size = "enough memory" if asked is None else f"{asked / 1e6:,.1f} MB"
    where = f"cuda:{cupy.cuda.runtime.getDevice()}"
    try:
        free, total = cupy.cuda.runtime.memGetInfo()
    except CUDARuntimeError:  # CUDA itself finds no room there
        return f"{what}: {where} has no memory left for this process; end the programs that hold it"
    pool = cupy.get_default_memory_pool()
    held = total - free - pool.total_bytes()
    return (
        f"{what}: {where} cannot give {size}: of {total / 1e6:,.0f} MB it has {free / 1e6:,.0f} MB free, tensors of "
        f"this process hold {pool.used_bytes() / 1e6:,.0f} MB, recordings, CUDA and other programs "
        f"{held / 1e6:,.0f} MB; {_ADVICE}"
    )


def release(error: BaseException) -> None:
    """Give back what the calls that an error has ended still hold, and whatever else can be missed."""
    traceback.clear_frames(error.__traceback__)
    make_room()


@contextmanager
def explaining(what: str) -> Iterator[None]:
    """Errors of CuPy's inside become those of ``explained``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = explained(what, error)
        if told is None:
            raise
        raise told from None


def lasting(size: int, dtype: Any) -> Any:
    """Zeros on the card from now on, even if this thread is recording; nothing else is given their memory.

    Args:
        size: how many.
        dtype: NumPy's.
    """
    nbytes = size * np.dtype(dtype).itemsize
    outside_pools = allocated(cupy.cuda.Memory, nbytes)  # and so in no recording that may be going on
    array = cupy.ndarray((size,), dtype, cupy.cuda.MemoryPointer(outside_pools, 0))
    stream = cupy.cuda.Stream(non_blocking=True)  # not the one that is being recorded
    array.data.memset_async(0, nbytes, stream)
    stream.synchronize()
    return array
