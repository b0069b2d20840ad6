"""Weights as they lie on a card: plain rows, in the type that they are stored in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from tallow.backends.cuda.memory import explaining
from tallow.backends.cuda.upload import bring
from tallow.device import Device
from tallow.dtypes import as_dtype


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


def upload(parts: Sequence[np.ndarray[Any, Any]], storage: str, device: Device) -> CudaMatrix:
    """Bring a matrix to a card.

    Args:
        parts: one, or several that are stacked along their first axis; in any floating-point type, of any strides and
            alignment.
        storage: the type to store it in, not a quantised one.
        device: the card.

    Raises:
        OutOfMemoryError: if the card has no room for it.
    """
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    with cupy.cuda.Device(device.index), explaining(f"a matrix {shape} in {storage}"):
        whole, begin = cupy.empty(shape, as_dtype(storage).numpy), 0
        for part in parts:
            bring(part, whole[begin : begin + part.shape[0]])
            begin += part.shape[0]
        return CudaMatrix(whole)
