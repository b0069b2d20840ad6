"""VarBuilder: the one door through which weights reach a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tallow import dtypes
from tallow.device import CPU, Device, as_device
from tallow.dtypes import DType
from tallow.errors import DTypeError, ShapeError, WeightsError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.fp8 import Fp8Matrix
from tallow.matrix.quantize import Int8Matrix
from tallow.matrix.weight import (
    BLOCK_STORAGES,
    NO_FP8,
    STORAGES,
    Stored,
    Weight,
    make_stacked,
    make_weight,
    multiplies_fp8,
    reads_later,
    stacked,
    widened_storage,
)
from tallow.tensor import Tensor
from tallow.weights.random import RandomSource
from tallow.weights.source import Source

Shape = int | Sequence[int]
log = logging.getLogger("tallow.weights")

_MAX_BITS = {"int8": 9, "fp8": 9, "int4": 5}  # of a number with its scale that may stay as it is
_BLOCK = 32  # columns of a block of Q4_1 or Q8_0


class VarBuilder:
    """Hands out weights by name and shape, and does on the way in what was asked for when it was made.

    ``vb.pp("encoder").pp("norm").get(384, "weight")`` is the tensor ``encoder.norm.weight``. A name that is not there
    or a shape that does not fit is a WeightsError that says what was asked for and what was found.

    Args:
        source: where the weights come from (``weights/source.py``).
        device: where they go.
        dtype: how to store weights and tensors. None keeps matrices as the file has them (GGUF's blocks and fp8 too, if
            the device's kernels work on their type; else they are widened to float16), and gives tensors in float32.
        quantize: how to store every matrix asked for with ``weight``, unless it is in so few bits already: ``"int8"``,
            with one scale a row (but see ``with_quant_group_size``); ``"fp8"``, on GPUs of compute capability 8.9 and
            up: E4M3, with one scale a row; or ``"int4"``: GGUF's Q4_1, and Q8_0 for tables of tokens. Tensors asked for
            with ``get`` (biases, norms, convolutions, positions) are never quantised.
        rank: which of ``world`` equal slices a ``split`` weight gives.
        world: how many slices there are.

    Examples:
        >>> vb = tl.VarBuilder.random(quantize="int8").pp("encoder")
        >>> vb.pp("norm").get((4,), "weight").shape
        (4,)
        >>> vb.pp("layers.0").weight((8, 16)).storage
        'int8'
    """

    def __init__(
        self,
        source: Source | RandomSource,
        *,
        device: Device | str | None = None,
        dtype: DType | str | None = None,
        quantize: str | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if quantize is not None and quantize not in _MAX_BITS:
            raise DTypeError(f"quantize={quantize!r}: there are 'int8', 'fp8' and 'int4'")
        if dtype is not None and dtypes.as_dtype(dtype).name not in STORAGES[:3]:
            raise DTypeError(
                f"dtype={str(dtype)!r}: weights are stored as {', '.join(STORAGES[:3])}; quantize= stores fewer bits"
            )
        if not 0 <= rank < world:
            raise ShapeError(f"rank {rank} of {world}: ranks count from 0 to world - 1")
        self.source = source
        self.device = as_device(device) if device is not None else CPU
        if quantize == "fp8" and not multiplies_fp8(self.device):
            raise DTypeError(f"quantize='fp8': {NO_FP8.format(self.device)}")
        self.dtype = None if dtype is None else dtypes.as_dtype(dtype)
        self.quantize = quantize
        self.group: int | None = None
        self.factors: np.ndarray[Any, Any] | None = None
        self.rank = rank
        self.world = world
        self.prefix = ""
        self._used: set[str] = set()
        self._said: set[str] = set()

    @classmethod
    def from_safetensors(
        cls,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        dtype: DType | str | None = None,
        device: Device | str | None = None,
        **options: Any,
    ) -> VarBuilder:
        """Weights from safetensors: a file, a list of files, an index or a folder, memory-mapped.

        Args:
            paths: see ``open_safetensors``.
            dtype: as in the constructor.
            device: as in the constructor.
            options: the constructor's others.
        """
        from tallow.weights.safetensors import open_safetensors

        return cls(open_safetensors(paths), dtype=dtype, device=device, **options)

    @classmethod
    def random(
        cls, seed: int = 0, dtype: DType | str | None = None, device: Device | str | None = None, **options: Any
    ) -> VarBuilder:
        """Random weights of whatever names and shapes are asked for; see ``RandomSource``.

        Args:
            seed: the same seed gives the same values for the same names.
            dtype: as in the constructor.
            device: as in the constructor.
            options: the constructor's others.
        """
        return cls(RandomSource(seed), dtype=dtype, device=device, **options)

    def pp(self, name: str | int) -> VarBuilder:
        """This builder one level down: names are looked up under ``name`` (which may itself hold dots)."""
        return self._changed(prefix=self.full_name(str(name)) + ".")

    def with_quant_group_size(self, columns: int) -> VarBuilder:
        """This builder, but so many columns of int8 matrices share a scale, not all; rows of no whole groups do."""
        return self._changed(group=columns)

    def scaled(self, factors: Tensor) -> VarBuilder:
        """This builder, but whatever it gives is multiplied along its first axis by ``factors`` (out,).

        A linear layer made from it multiplies its outputs by them.
        """
        return self._changed(factors=factors.to("cpu").numpy().astype(np.float32))

    def _changed(self, **attributes: Any) -> VarBuilder:
        child = object.__new__(VarBuilder)
        child.__dict__.update(self.__dict__ | attributes)
        return child

    def full_name(self, name: str) -> str:
        """A name with the path that ``pp`` has made."""
        return self.prefix + name

    def contains(self, name: str) -> bool:
        """Whether there is a tensor of that name here. Random weights have every name."""
        return isinstance(self.source, RandomSource) or self.source.info(self.full_name(name)) is not None

    def names(self) -> list[str]:
        """The names under this level, without the path to it. Random weights have none to list."""
        if isinstance(self.source, RandomSource):
            return []
        return [name.removeprefix(self.prefix) for name in self.source.names() if name.startswith(self.prefix)]

    def unused(self) -> list[str]:
        """Full names that the source has and that no builder made from this one has been asked for."""
        return [] if isinstance(self.source, RandomSource) else [n for n in self.source.names() if n not in self._used]

    def get(
        self, shape: Shape, name: str, dtype: DType | str | None = None, *, split: str | None = None
    ) -> Tensor:  # fmt: skip
        """A tensor: bias, gain, convolution kernel, position table.

        Args:
            shape: what it must be, before any split.
            name: its name here.
            dtype: its type; None means the builder's on a GPU, or the file's own if the builder has none, and float32
                on the CPU, whose activations are float32.
            split: None, or ``"out"`` for this rank's slice of the first axis, ``"in"`` for one of the second.

        Raises:
            WeightsError: if it is missing or has another shape.
        """
        full, array = self._read(shape, name, split)
        if not isinstance(array, np.ndarray):
            array = array.dequantize()
        wanted = dtypes.as_dtype(dtype) if dtype is not None else self._tensor_dtype(array)
        if self.device.kind != "cpu":
            placed = Tensor(array.astype(wanted.numpy)).to(self.device)
            self._release(full)
            return placed
        if array.dtype == wanted.numpy and array.flags.aligned and array.flags.c_contiguous:
            return Tensor(array, self.device)  # used in place, so its pages stay
        result = array.astype(wanted.numpy, order="C")
        self._release(full)
        return Tensor(result, self.device)

    def weight(
        self,
        shape: Shape,
        name: str | Sequence[str] = "weight",
        split: str | None = None,
        rows: Sequence[int] | None = None,
        table: bool = False,
    ) -> Weight:
        """A matrix for ``ops.linear`` or ``ops.embedding``, packed for the device.

        Args:
            shape: (out, in) as it must be, before any split. For several names, the shape of all of them stacked.
            name: its name here; or several names whose matrices are stacked along ``out`` (equal parts, or whatever the
                file has), so that one product does the work of all.
            split: None; ``"out"`` for this rank's share of the rows (of each name's); ``"in"`` for its share of the
                columns.
            rows: how many rows each of several names has, before any split.
            table: whether it holds the vectors of tokens, which matter most: it keeps 8 bits where 4 are asked for.

        Raises:
            WeightsError: if it is missing or has another shape.
        """
        if isinstance(name, str):
            full, array = self._read(shape, name, split)
            parts = [(full, array)]
        else:
            out, columns = _as_shape(shape)
            counts = rows or self._stacked_rows(list(name), out)
            parts = [self._read((count, columns), part, split) for part, count in zip(name, counts, strict=True)]
            arrays = [array for _, array in parts if isinstance(array, np.ndarray)]
            if self.device.kind == "cuda" and not self.quantize and len(arrays) == len(parts) and _alike(arrays):
                weight = make_stacked(arrays, self._storage(arrays[0]), self.device)
                self._release_all(parts)
                return weight
            array = stacked([array for _, array in parts])
        if reads_later(array, self._storage(array, table), self.device):
            return self._pack(array, table)
        copied = len(parts) > 1
        if copied:  # the file's pages go before the packed form comes: a large embedding is then held twice, not thrice
            self._release_all(parts)
        weight = self._pack(array, table)
        if not copied:
            self._release_all(parts)
        return weight

    def kernel(self, shape: Shape, name: str = "weight", groups: int = 1) -> Weight | Tensor:
        """A convolution's kernel, packed for the device, and never quantised.

        Args:
            shape: (out, in / groups, k) or (out, in / groups, kh, kw).
            name: its name here.
            groups: of the convolution; where there are several, the kernel is given as a Tensor.

        Raises:
            WeightsError: if it is missing or has another shape.
        """
        if groups != 1:
            return self.get(shape, name)
        full, array = self._read(shape, name, None)
        numbers = array if isinstance(array, np.ndarray) else array.dequantize()
        kept = numbers.dtype.name if numbers.dtype.name in STORAGES[:3] else "float32"
        weight = make_weight(numbers, kept if self.dtype is None else self.dtype.name, self.device)
        self._release(full)
        return weight

    def storage(self, name: str) -> str:
        """How ``weight`` would store the matrix of that name, if it is there: what has one storage can be stacked."""
        full = self.full_name(name)
        if isinstance(self.source, RandomSource) or self.source.info(full) is None:
            return self.quantize or (self.dtype.name if self.dtype else "float32")
        return self._storage(self.source.read(full))

    def _stacked_rows(self, names: list[str], out: int) -> list[int]:
        """How many rows each of several stacked matrices has: as the source says, equal parts if it can't."""
        if not isinstance(self.source, RandomSource):
            infos = [self.source.info(self.full_name(name)) for name in names]
            rows = [info.shape[0] if info and info.shape else -1 for info in infos]
            if -1 in rows or sum(rows) == out:
                return [out // len(names) if r < 0 else r for r in rows]
        return [out // len(names)] * len(names)

    def _tensor_dtype(self, array: np.ndarray[Any, Any]) -> DType:
        if self.device.kind == "cpu":
            return dtypes.float32
        kept = array.dtype.name if array.dtype.name in STORAGES[:3] else "float32"
        return self.dtype or dtypes.as_dtype(kept)

    def _looked_up(self, array: Stored) -> DType:
        """The type of rows of a quantised matrix, on a card that of all tensors."""
        if self.dtype is not None or not isinstance(array, np.ndarray):
            return self.dtype or dtypes.float32
        return self._tensor_dtype(array)

    def _pack(self, array: Stored, table: bool) -> Weight:
        storage = self._storage(array, table)
        if isinstance(array, (BlockMatrix, Fp8Matrix)) and storage != array.storage and array.storage not in self._said:
            self._said.add(array.storage)
            log.info("%s: matrices in %s are widened to %s", self.source.where, array.storage, storage)
        group = self.group if self.group and array.shape[1] % self.group == 0 else None
        return make_weight(array, storage, self.device, group, self._looked_up(array))

    def _storage(self, array: Stored, table: bool = False) -> str:
        """How a matrix is to be stored."""
        blocks = array if isinstance(array, (BlockMatrix, Fp8Matrix)) and self._has_kernels(array) else None
        if self.quantize:
            bits = _MAX_BITS["int8" if table else self.quantize] * array.shape[0] * array.shape[1]
            if blocks is not None and 8 * blocks.nbytes <= bits:
                return blocks.storage
            if self.quantize == "fp8":
                return "fp8"
            if self.quantize == "int8" or array.shape[1] % _BLOCK:
                return "int8"
            return "q8_0" if table else "q4_1"
        on_cpu = self.device.kind == "cpu"
        if blocks is not None and (self.dtype is None or not on_cpu):  # on a card dtype says what is computed in
            return blocks.storage
        if self.dtype is not None:
            return self.dtype.name
        if isinstance(array, Int8Matrix):
            return "int8" if on_cpu else "float16"
        if isinstance(array, Fp8Matrix):
            return widened_storage(self.device)
        if isinstance(array, BlockMatrix):
            return "float16"
        return array.dtype.name if array.dtype.name in STORAGES[:3] else "float32"

    def _has_kernels(self, array: BlockMatrix | Fp8Matrix) -> bool:
        """Whether the device multiplies such a matrix as it is."""
        if isinstance(array, Fp8Matrix):
            return multiplies_fp8(self.device)
        return array.storage in BLOCK_STORAGES[self.device.kind]

    def _read(self, shape: Shape, name: str, split: str | None) -> tuple[str, Stored]:
        """The full name and this rank's slice of a tensor, after its shape has been checked."""
        wanted = _as_shape(shape)
        full = self.full_name(name)
        if isinstance(self.source, RandomSource):
            array: Stored = self.source.draw(full, wanted)
        else:
            info = self.source.info(full)
            if info is None:
                raise WeightsError(self._missing(full, wanted))
            if info.shape != wanted:
                raise WeightsError(
                    f"{self.source.where}: {full!r}: the model wants shape {wanted}, the file has {info.shape}; "
                    "do config and weights belong together?"
                )
            array = self.source.read(full)
            if isinstance(array, np.ndarray) and array.dtype.kind in "iubc":
                raise WeightsError(
                    f"{self.source.where}: {full!r}: the model wants floating-point numbers, the file has {array.dtype}"
                )
        self._used.add(full)
        if self.factors is not None:
            numbers = array if isinstance(array, np.ndarray) else array.dequantize()
            product = numbers.astype(np.float32)
            product *= self.factors.reshape(-1, *[1] * (len(wanted) - 1))
            array = product.astype(numbers.dtype, copy=False)
            self._release(full)
        return full, self._slice(array, full, split)

    def _slice(self, array: Stored, full: str, split: str | None) -> Stored:
        if split not in (None, "out", "in"):
            raise ShapeError(f"{full!r}: split={split!r}; there are None, 'out' and 'in'")
        if split is None or self.world == 1:
            return array
        axis = 0 if split == "out" else 1
        if len(array.shape) <= axis or array.shape[axis] % self.world:
            raise ShapeError(f"{full!r} of shape {array.shape} cannot be split {split!r} into {self.world} equal parts")
        size = array.shape[axis] // self.world
        part = slice(self.rank * size, (self.rank + 1) * size)
        if axis == 0:
            return array[part]
        if isinstance(array, BlockMatrix):
            return array.columns(part)
        return (array if isinstance(array, np.ndarray) else array.dequantize())[:, part]

    def _release_all(self, parts: list[tuple[str, Stored]]) -> None:
        for full, _ in parts:
            self._release(full)

    def _release(self, full: str) -> None:
        if not isinstance(self.source, RandomSource):
            self.source.release(full)

    def _missing(self, full: str, wanted: tuple[int, ...]) -> str:
        import difflib

        assert not isinstance(self.source, RandomSource)
        names = list(self.source.names())
        near = difflib.get_close_matches(full, names, n=3, cutoff=0.75)
        hint = f"; near names: {', '.join(near)}" if near else f"; it has {len(names)} names, such as {names[:3]}"
        return f"{self.source.where}: no tensor {full!r} of shape {wanted}{hint}"


def _alike(arrays: Sequence[np.ndarray[Any, Any]]) -> bool:
    """Whether they have one type."""
    return len({array.dtype for array in arrays}) == 1


def _as_shape(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)
