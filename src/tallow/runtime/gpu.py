"""What is asked of a GPU: to be done, and how much memory it has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tallow import _cpu
from tallow.device import Device, as_device
from tallow.errors import DeviceError
from tallow.tensor import Tensor

kept_bytes: list[Callable[[Device], int]] = []
"""Say how many bytes are kept for later in tensors, which are given up where memory lacks."""


class MemoryInfo(NamedTuple):
    """Bytes of a GPU's memory.

    Attributes:
        total: of the card.
        free: that this process can still take: what the driver has free, and what tensors have left behind.
        used: by this process's tensors.
        kept: left behind by tensors, for the next ones, or by a call on a model, for its next; ``free`` counts it.
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
    from tallow.runtime import encoding

    with explaining("memory_info"), cupy.cuda.Device(place.index):
        free, total = cupy.cuda.runtime.memGetInfo()
        pool, caches = cupy.get_default_memory_pool(), sum(count(place) for count in kept_bytes)
        left = pool.free_bytes() + caches + encoding.nbytes(place)  # recordings have pools of their own
        return MemoryInfo(total, free + left, pool.used_bytes() - caches, left)


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


class _Pinned:
    """Memory of the CPU's that a GPU copies to or from by itself.

    It goes back to its pool with this object, but not before the last copy is done, wherever it is let go: by an
    exception, or by a stream of batches that nobody reads on.

    Attributes:
        bytes: the memory, perhaps more than was asked for.
        copied: when the last copy is done; None before the first.
    """

    def __init__(self, nbytes: int) -> None:
        import cupy

        self.copied: Any = None
        self.bytes = cupy.cuda.alloc_pinned_memory(nbytes)

    def copy(self, start: Callable[[int, int, Any], None], nbytes: int, stream: Any) -> None:
        """Begin a copy.

        Args:
            start: begins it, given the address, ``nbytes`` and ``stream``.
            nbytes: how much.
            stream: where.
        """
        try:
            start(self.bytes.ptr, nbytes, stream)
        finally:  # Ctrl-C may come when it has begun
            self.copied = stream.record()

    def wait(self) -> None:
        """Until the last copy is done."""
        if self.copied is not None:
            self.copied.synchronize()

    def __del__(self) -> None:
        if not sys.is_finalizing():  # then nobody gets the memory any more
            self.wait()


class Arriving:
    """A tensor's values on their way from a card, as they are when everything asked for before is done.

    Args:
        x: the tensor; it may be overwritten afterwards.
    """

    def __init__(self, x: Tensor) -> None:
        import cupy

        array = x.storage
        with cupy.cuda.Device(x.device.index):
            self._memory = _Pinned(array.nbytes)
            self._memory.copy(array.data.copy_to_host_async, array.nbytes, cupy.cuda.get_current_stream())
        self._shape, self._dtype = array.shape, array.dtype

    def wait(self) -> np.ndarray[Any, Any]:
        """The values, once they are here."""
        self._memory.wait()
        count = int(np.prod(self._shape))
        return np.frombuffer(self._memory.bytes, self._dtype, count).reshape(self._shape)


class BatchUploader:
    """Brings batches to a card on a stream of its own, while it works on the batch before.

    Args:
        device: the card.
    """

    def __init__(self, device: Device) -> None:
        import cupy

        self._device = device
        with cupy.cuda.Device(device.index):
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self._places = [_Place(), _Place()]

    def __call__(self, arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        """A batch, on the card when what is asked of it next begins.

        Args:
            arrays: of one shape and type.

        Returns:
            (len(arrays), …). It lasts until the second next batch is brought; what reads it must have been asked for
            before the next one is.
        """
        import cupy

        import tallow.backends.cpu  # noqa: F401  # tells the native module about NumPy
        from tallow.backends.cuda.memory import explaining

        last, place = reversed(self._places)
        self._places.reverse()
        nbytes, shape = sum(array.nbytes for array in arrays), (len(arrays), *arrays[0].shape)
        with cupy.cuda.Device(self._device.index), explaining("a batch of inputs"):
            now = cupy.cuda.get_current_stream()
            last.read = now.record()
            pinned = place.hold(nbytes)
            bytes_ = np.frombuffer(pinned.bytes, np.uint8, nbytes).reshape(len(arrays), -1)
            for to, array in zip(bytes_, arrays, strict=True):
                _cpu.copy_bytes(to, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            self._stream.wait_event(place.read)
            try:
                pinned.copy(place.card.data.copy_from_host_async, nbytes, self._stream)
            finally:
                now.wait_event(pinned.copied)  # as do those who get the card's memory when this object goes
            return Tensor(cupy.ndarray(shape, arrays[0].dtype, place.card.data), self._device)


class _Place:
    """Memory for a batch, here and on the card."""

    pinned: _Pinned | None = None
    card: Any = None
    read: Any = None  # when whatever was asked of the card has read it there

    def hold(self, nbytes: int) -> _Pinned:
        """Be large enough, and free to be written here. Returns the memory here."""
        import cupy

        if self.pinned is not None:
            self.pinned.wait()
        if self.pinned is None or self.card is None or self.card.size < nbytes:
            self.pinned = _Pinned(nbytes)
            self.card = cupy.empty(nbytes, np.uint8)
            self.read = cupy.cuda.get_current_stream().record()  # whoever had the memory before may still be at work
        return self.pinned


def _card(device: Device | str) -> Device:
    place = as_device(device)
    if place.kind != "cuda":
        raise DeviceError(f"memory_info: expected a GPU, found {place}; see tl.estimate_memory for the CPU")
    return as_device(str(place))  # a Device can be made where there is none
