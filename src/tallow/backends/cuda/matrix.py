"""Weights as they lie on a card: plain rows, in the type that they are stored in."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tallow.device import Device
from tallow.dtypes import as_dtype

CHUNK = 16 << 20  # bytes that go to the card at a time


class CudaMatrix:
    """A matrix (out, in) or a convolution's kernel (out, in, …) on a card.

    Args:
        array: the numbers, without gaps.
    """

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or that of a convolution's kernel."""
        return tuple(self.array.shape)

    @property
    def storage(self) -> str:
        """``"float32"``, ``"float16"`` or ``"bfloat16"``."""
        return str(self.array.dtype.name)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.array.nbytes)

    def dequantize(self) -> Any:
        """The matrix in float32."""
        return self.array.astype(np.float32)

    def rows(self, ids: Any) -> Any:
        """The rows ``ids`` in float32: shape (…, in)."""
        return self.array[ids].astype(np.float32)


def upload(array: np.ndarray[Any, Any], storage: str, device: Device) -> CudaMatrix:
    """Bring a matrix to a card.

    Args:
        array: in any floating-point type, of any strides and alignment.
        storage: the type to store it in, not a quantised one.
        device: the card.

    Raises:
        OutOfMemoryError: if the card has no room for it.
    """
    with cupy.cuda.Device(device.index):
        return CudaMatrix(to_card(array, as_dtype(storage).numpy))


def to_card(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> Any:
    """An array copied to the current card in another type.

    It goes in chunks through two pieces of memory that the card reads by itself, so that one is filled (from a file,
    perhaps, or converted) while the other is on its way.
    """
    target = cupy.empty(array.shape, dtype)
    flat, source = target.reshape(-1), np.ascontiguousarray(array).reshape(-1)
    size = max(1, min(CHUNK // dtype.itemsize, source.size))
    stages = [cupy.cuda.alloc_pinned_memory(size * dtype.itemsize) for _ in range(2 if source.size > size else 1)]
    buffers = [np.frombuffer(stage, np.uint8, size * dtype.itemsize).view(dtype) for stage in stages]
    sent = [cupy.cuda.Event() for _ in stages]
    stream = cupy.cuda.get_current_stream()
    for number, begin in enumerate(range(0, source.size, size)):
        which = number % len(stages)
        sent[which].synchronize()  # at once, the first time
        part = source[begin : begin + size]
        buffers[which][: part.size] = part
        flat[begin : begin + part.size].data.copy_from_host_async(
            buffers[which].ctypes.data, part.size * dtype.itemsize, stream
        )
        sent[which].record(stream)
    stream.synchronize()
    return target
