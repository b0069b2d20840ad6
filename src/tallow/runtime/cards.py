"""What is asked of a GPU: to be done, and how much memory it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tallow import _cpu
from tallow.device import Device, as_device
from tallow.errors import DeviceError
from tallow.tensor import Tensor


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
    from tallow.runtime.kept import nbytes

    with explaining("memory_info"), cupy.cuda.Device(place.index):
        free, total = cupy.cuda.runtime.memGetInfo()
        pool, of_models = cupy.get_default_memory_pool(), nbytes(place)
        kept = pool.free_bytes() + of_models
        return MemoryInfo(total, free + kept, pool.used_bytes() - of_models, kept)


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


class Feed:
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
            place.hold(nbytes)
            bytes_ = np.frombuffer(place.pinned, np.uint8, nbytes).reshape(len(arrays), -1)
            for to, array in zip(bytes_, arrays, strict=True):
                _cpu.copy_bytes(to, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            self._stream.wait_event(place.read)
            place.card.data.copy_from_host_async(place.pinned.ptr, nbytes, self._stream)
            place.sent = self._stream.record()
            now.wait_event(place.sent)
            return Tensor(cupy.ndarray(shape, arrays[0].dtype, place.card.data), self._device)


class _Place:
    """Memory for a batch, here and on the card."""

    pinned: Any = None
    card: Any = None
    sent: Any = None  # when the card has read it here
    read: Any = None  # when whatever was asked of the card has read it there

    def hold(self, nbytes: int) -> None:
        """Be large enough, and free to be written here."""
        import cupy

        if self.sent is not None:
            self.sent.synchronize()
        if self.card is None or self.card.size < nbytes:
            self.pinned = cupy.cuda.alloc_pinned_memory(nbytes)
            self.card = cupy.empty(nbytes, np.uint8)
            self.read = cupy.cuda.get_current_stream().record()  # whoever had the memory before may still be at work


def _card(device: Device | str) -> Device:
    place = as_device(device)
    if place.kind != "cuda":
        raise DeviceError(f"memory_info: expected a GPU, found {place}; see tl.estimate_memory for the CPU")
    return as_device(str(place))  # a Device can be made where there is none
