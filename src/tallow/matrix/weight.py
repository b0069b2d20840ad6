"""Weight: a matrix that ``ops.linear`` and ``ops.embedding`` take, in whatever form its backend likes best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tallow import dtypes
from tallow.device import CPU, Device, as_device, compute_capability
from tallow.dtypes import DType, as_dtype
from tallow.errors import DTypeError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.fp8 import Fp8Matrix, quantize_fp8, stacked_fp8
from tallow.matrix.quantize import DenseMatrix, Int8Matrix, quantize_int8
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]
Stored = Array | Int8Matrix | Fp8Matrix | BlockMatrix
"""What a weight is made from: plain numbers, or a matrix that is quantised already."""

STORAGES = ("float32", "float16", "bfloat16", "int8", "fp8")
BLOCKS_MADE = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""The types of GGUF's blocks that plain numbers can be put into (``matrix/blocks/encode.py``)."""

BLOCK_STORAGES: dict[str, tuple[str, ...]] = {
    "cuda": ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"),
    "cpu": ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"),
}
"""The types of GGUF's blocks (``matrix/blocks``) that each kind of device multiplies as they are. Matrices in other
types are widened on load."""

CUDA_GROUPS = 16
"""On a card, columns of int8 that share a scale are a multiple of these."""


class Matrix(Protocol):
    """What every packed form of a matrix offers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        ...

    @property
    def storage(self) -> str:
        """One of ``STORAGES``, or a block type's name."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held, scales and padding included."""
        ...

    def dequantize(self) -> Array:
        """The matrix in float32."""
        ...

    def rows(self, ids: Array) -> Array:
        """The rows ``ids`` in float32: shape (…, columns)."""
        ...


class Weight:
    """A matrix (out, in) or a kernel (out, in, …) of a convolution, stored once in the form that its device reads.

    Args:
        packed: the backend's own form; on the CPU a ``tallow._cpu.PackedMatrix``.
        device: where it lies.
    """

    __slots__ = ("device", "packed")

    def __init__(self, packed: Matrix, device: Device = CPU) -> None:
        self.packed = packed
        self.device = device

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape: (out, in), or that of a convolution's kernel."""
        return tuple(self.packed.shape)

    @property
    def storage(self) -> str:
        """How it is stored: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"``, ``"fp8"``, or a block type."""
        return self.packed.storage

    @property
    def nbytes(self) -> int:
        """Bytes it takes, scales included."""
        return self.packed.nbytes

    def dequantize(self) -> Tensor:
        """The matrix as a float32 Tensor (out, in)."""
        return Tensor(self.packed.dequantize(), self.device)

    def rows(self, ids: Tensor) -> Tensor:
        """Some rows, as an embedding looks them up.

        Args:
            ids: integers of any shape, each from 0 to out - 1.

        Returns:
            float32 of shape (*ids.shape, in).
        """
        return Tensor(self.packed.rows(ids.storage), self.device)

    def to(self, device: Device | str | None = None, dtype: DType | str | None = None) -> Weight:
        """The same matrix on another device, or stored in another floating-point type; itself if nothing changes.

        What is quantised stays so where the other device has kernels for it, int8 with its groups of columns, and is
        widened elsewhere, as ``VarBuilder`` does. K-quants that a device has packed are widened to float16, too:
        there is no way back to their blocks.

        Args:
            device: where to; None leaves it.
            dtype: how to store it; None leaves it, and what is quantised stays so.
        """
        place = self.device if device is None else as_device(device)
        quantised = self.storage not in STORAGES[:3]
        storage = self.storage if dtype is None or quantised else as_dtype(dtype).name
        if place is self.device and storage == self.storage:
            return self
        packed, numbers = self.packed, dtypes.float32 if dtype is None else as_dtype(dtype)
        group = getattr(packed, "group", None)
        if self.device.kind == "cuda" and storage == "fp8":
            packed = packed.on_host()  # type: ignore[attr-defined]
        if isinstance(packed, BlockMatrix | Int8Matrix | Fp8Matrix):
            return make_weight(packed, _kept(storage, group, place), place, group, numbers)
        if storage not in (*STORAGES, *BLOCKS_MADE):
            storage = "float16"
        return make_weight(self.dequantize().numpy(), _kept(storage, group, place), place, group, numbers)

    def __repr__(self) -> str:
        return f"Weight(shape={self.shape}, storage={self.storage!r}, device={str(self.device)!r})"


def make_weight(
    array: Stored,
    storage: str,
    device: Device = CPU,
    group: int | None = None,
    dtype: DType = dtypes.float32,
) -> Weight:
    """A Weight made from a matrix.

    Args:
        array: (out, in), in any floating-point type and any strides, or quantised; or a convolution's kernel, (out, in,
            k) or (out, in, kh, kw), not quantised.
        storage: how to store it, one of ``STORAGES`` or of ``BLOCKS_MADE``, or the very type of the blocks that it
            comes in. On the CPU fp8 is kept in its plain form, for which there is no kernel.
        device: where to.
        group: for int8, the columns that share a scale; None for one scale a row.
        dtype: on a card, the type in which rows of a quantised matrix are looked up.

    Raises:
        DTypeError: for a storage that isn't there, or that the device has no kernels for.
    """
    if storage == "fp8" and device.kind == "cuda":
        if not multiplies_fp8(device):
            raise DTypeError(NO_FP8.format(device))
        from tallow.backends.cuda import fp8

        return Weight(fp8.upload(array if isinstance(array, Fp8Matrix) else _plain(array), device, dtype.numpy), device)
    if storage not in STORAGES and not (isinstance(array, BlockMatrix) and storage == array.storage):
        array = _in_blocks(array, storage)
    if device.kind == "cpu" and storage != "fp8" and (storage in STORAGES or storage in BLOCK_STORAGES["cpu"]):
        from tallow.backends.cpu.packing import pack

        if storage in STORAGES and not (isinstance(array, Int8Matrix) and storage == "int8"):
            array = _plain(array, "float32" if storage == "int8" else storage)
        assert not isinstance(array, Fp8Matrix)  # but plain by now
        return Weight(pack(array, storage, group), device)
    if device.kind == "cuda" and storage not in STORAGES[:3]:
        from tallow.backends.cuda import blocks

        quantised = array if isinstance(array, BlockMatrix) else _in_int8(array, group)
        return Weight(blocks.upload(quantised, device, dtype.numpy), device)
    if device.kind == "cuda":
        return make_stacked([_plain(array, storage)], storage, device)
    return Weight(pack_reference(array, storage, group), device)


def _kept(storage: str, group: int | None, device: Device) -> str:
    """How a matrix that is stored so is stored on a device: as it is, or widened where there are no kernels for it."""
    if storage == "fp8":
        return storage if multiplies_fp8(device) else widened_storage(device)
    if storage == "int8" and group is not None and device.kind == "cuda" and group % CUDA_GROUPS:
        return "float16"
    return storage if storage in STORAGES or storage in BLOCK_STORAGES[device.kind] else "float16"


def widened_storage(device: Device) -> str:
    """What a matrix in fp8 is widened to: on a card the type of the model's other tensors, bfloat16."""
    return "float16" if device.kind == "cpu" else "bfloat16"


def make_stacked(arrays: Sequence[Array], storage: str, device: Device) -> Weight:
    """A Weight on a card made from matrices of one width, each of which is brought straight to its place.

    Args:
        arrays: as for ``make_weight``, not quantised.
        storage: of ``STORAGES``, not int8.
        device: the card.
    """
    from tallow.backends.cuda.matrix import upload

    return Weight(upload(arrays, storage, device), device)


def multiplies_fp8(device: Device) -> bool:
    """Whether a device has instructions for numbers in E4M3, so that there are kernels for matrices of them."""
    return device.kind == "cuda" and compute_capability(device.index) >= (8, 9)


NO_FP8 = (
    "fp8 is for NVIDIA GPUs of compute capability 8.9 (Ada, Hopper) and up, which {} is not; int8 is for every device"
)


def reads_later(array: Stored, storage: str, device: Device) -> bool:
    """Whether ``make_weight`` reads a matrix in the background, and then gives back the pages of its file itself."""
    return (
        isinstance(array, BlockMatrix)
        and storage == array.storage
        and storage in BLOCK_STORAGES["cpu"]
        and (device.kind == "cpu")
    )


def pack_reference(array: Stored, storage: str, group: int | None = None) -> Matrix:
    """The plain NumPy form of a matrix, which copies it: the oracle for what a backend packs."""
    if isinstance(array, BlockMatrix) and storage == array.storage:
        return array.copy()
    if isinstance(array, Int8Matrix) and storage == "int8":
        return Int8Matrix(array.values.copy(), array.scales.copy())
    if storage == "int8":
        return _in_int8(array, group)
    if storage == "fp8":
        kept = array if isinstance(array, Fp8Matrix) else quantize_fp8(_plain(array))
        return Fp8Matrix(kept.values.copy(), kept.scales.copy())
    return DenseMatrix(_plain(array, storage).astype(as_dtype(storage).numpy, order="C"))


def _in_int8(array: Stored, group: int | None) -> Int8Matrix:
    return array if isinstance(array, Int8Matrix) else quantize_int8(_plain(array, "float32"), group)


def _in_blocks(array: Stored, storage: str) -> BlockMatrix:
    """A matrix in GGUF's blocks, made from its numbers."""
    if storage not in BLOCKS_MADE:
        raise DTypeError(f"no storage {storage!r} for weights; there are {', '.join(STORAGES + BLOCKS_MADE)}")
    from tallow.matrix.blocks.encode import quantize

    return quantize(_plain(array, "float32"), storage)


def _plain(array: Stored, storage: str = "float32") -> Array:
    """A matrix as numbers that can be stored as ``storage``."""
    if isinstance(array, (BlockMatrix, Fp8Matrix)):
        return array.widen(as_dtype(storage).numpy)
    return array.dequantize() if isinstance(array, Int8Matrix) else array


def stacked(arrays: Sequence[Stored]) -> Stored:
    """Matrices of one width, one on top of the other, in their own form if it is one and the same."""
    blocks = [array for array in arrays if isinstance(array, BlockMatrix)]
    if len(blocks) == len(arrays) and len({array.storage for array in blocks}) == 1:
        return BlockMatrix([part for array in blocks for part in array.parts], blocks[0].kind)
    fp8 = [array for array in arrays if isinstance(array, Fp8Matrix)]
    if len(fp8) == len(arrays):
        return stacked_fp8(fp8)
    int8 = [array for array in arrays if isinstance(array, Int8Matrix)]
    if len(int8) == len(arrays):
        return Int8Matrix(np.concatenate([a.values for a in int8]), np.concatenate([a.scales for a in int8]))
    return np.concatenate([array if isinstance(array, np.ndarray) else array.dequantize() for array in arrays])
