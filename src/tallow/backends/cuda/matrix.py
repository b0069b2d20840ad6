"""Weights as they lie on a card: plain rows, in the type that they are stored in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cupy
import numpy as np

from tallow.backends.cuda.memory import explaining
from tallow.backends.cuda.upload import uploads
from tallow.device import Device
from tallow.dtypes import as_dtype


class CudaMatrix:
    """A matrix (out, in) or a convolution's kernel (out, in, …) on a card.

    Args:
        array: the numbers, without gaps.
        wait: waits until they are there; None if they are.
    """

    __slots__ = ("_array", "_wait")

    def __init__(self, array: Any, wait: Callable[[], None] | None = None) -> None:
        self._array = array
        self._wait = wait

    def __del__(self) -> None:
        if self._wait is not None:  # else others would be given memory that is still written to
            self._wait()

    @property
    def array(self) -> Any:
        """The numbers, which are there."""
        if self._wait is not None:
            self._wait()
            self._wait = None
        return self._array

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or that of a convolution's kernel."""
        return tuple(self._array.shape)

    @property
    def storage(self) -> str:
        """``"float32"``, ``"float16"`` or ``"bfloat16"``."""
        return str(self._array.dtype.name)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self._array.nbytes)

    def dequantize(self) -> Any:
        """The matrix in float32."""
        return self.array.astype(np.float32)

    def rows(self, ids: Any) -> Any:
        """The rows ``ids`` in float32: shape (…, in)."""
        return self.array[ids].astype(np.float32)


def upload(parts: Sequence[np.ndarray[Any, Any]], storage: str, device: Device) -> CudaMatrix:
    """Bring a matrix to a card.

    Args:
        parts: one, or several that are stacked along their first axis; in any floating-point type, of any strides and
            alignment. What is read-only (a mapped file) is read in the background.
        storage: the type to store it in, not a quantised one.
        device: the card.

    Raises:
        OutOfMemoryError: if the card has no room for it.
    """
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    with cupy.cuda.Device(device.index), explaining(f"a matrix {shape} in {storage}"):
        whole, begin = cupy.empty(shape, as_dtype(storage).numpy), 0
        pairs = []
        for part in parts:
            pairs.append((part, whole[begin : begin + part.shape[0]]))
            begin += part.shape[0]
        wait = uploads().bring_later(pairs)
        if not any(part.flags.writeable for part in parts):
            return CudaMatrix(whole, wait)
        wait()
        return CudaMatrix(whole)
