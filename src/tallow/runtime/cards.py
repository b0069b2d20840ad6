"""What is asked of a GPU: to be done, and how much memory it has."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tallow.device import Device, as_device
from tallow.errors import DeviceError
from tallow.tensor import Tensor


class MemoryInfo(NamedTuple):
    """Bytes of a GPU's memory.

    Attributes:
        total: of the card.
        free: that this process can still take: what the driver has free, and what tensors have left behind.
        used: by this process's tensors.
        kept: left behind by tensors, for the next ones; ``free`` counts it.
    """

    total: int
    free: int
    used: int
    kept: int


def memory_info(device: Device | str = "cuda") -> MemoryInfo:
    """How much memory a GPU has, and what became of it.

    Args:
        device: ``"cuda"``, ``"cuda:N"`` or a Device.

    Raises:
        DeviceError: for the CPU, or a GPU that is not there.
        OutOfMemoryError: if other programs hold so much of the GPU that CUDA cannot start.
    """
    place = _card(device)
    import cupy

    from tallow.backends.cuda.memory import explaining

    with explaining("memory_info"), cupy.cuda.Device(place.index):
        free, total = cupy.cuda.runtime.memGetInfo()
        pool = cupy.get_default_memory_pool()
        return MemoryInfo(total, free + pool.free_bytes(), pool.used_bytes(), pool.free_bytes())


def synchronize(device: Device | str = "cuda") -> None:
    """Wait until a GPU has done all that it was asked to; operations return before they are done.

    Args:
        device: ``"cuda"``, ``"cuda:N"`` or a Device; the CPU is never waited for.
    """
    if as_device(device).kind == "cpu":
        return
    place = _card(device)
    import cupy

    from tallow.backends.cuda.memory import explaining

    with explaining("synchronize"), cupy.cuda.Device(place.index):
        cupy.cuda.runtime.deviceSynchronize()


class Arriving:
    """A tensor's values on their way from a card, as they are when everything asked for before is done.

    They must be waited for: the memory that they come into is lent to others when this object goes.

    Args:
        x: the tensor; it may be overwritten afterwards.
    """

    def __init__(self, x: Tensor) -> None:
        import cupy

        array = x.storage
        with cupy.cuda.Device(x.device.index):
            stream = cupy.cuda.get_current_stream()
            self._memory = cupy.cuda.alloc_pinned_memory(array.nbytes)
            array.data.copy_to_host_async(self._memory.ptr, array.nbytes, stream)
            self._done = stream.record()
        self._shape, self._dtype = array.shape, array.dtype

    def wait(self) -> np.ndarray[Any, Any]:
        """The values, once they are here."""
        self._done.synchronize()
        count = int(np.prod(self._shape))
        return np.frombuffer(self._memory, self._dtype, count).reshape(self._shape)


def _card(device: Device | str) -> Device:
    place = as_device(device)
    if place.kind != "cuda":
        raise DeviceError(f"memory_info: expected a GPU, found {place}; see tl.estimate_memory for the CPU")
    return as_device(str(place))  # a Device can be made where there is none
