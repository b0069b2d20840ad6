"""GGUF files: a reader that maps them, checks every field of the header, and copies nothing.

Format (github.com/ggml-org/ggml, ``docs/gguf.md``), little-endian: ``GGUF``, u32 version, u64 count of tensors, u64
count of metadata; the metadata, each a key, u32 type and value; for each tensor its name, u32 rank, u64 sizes (the
innermost first), u32 type, u64 offset in the data; then the data, which begins at a multiple of the alignment. A string
is a u64 length and UTF-8 bytes; an array is a u32 type, a u64 count and the values.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable

import numpy as np

from tallow.errors import WeightsError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.blocks import BlockType, dequantize, type_of_id
from tallow.weights.gguf_header import Header, read_header
from tallow.weights.source import Array, JoinedFiles, MappedFile, TensorInfo, byte_count

_MAX_AXES = 4  # ggml's own limit
_MAX_NAME = 1024
_MAX_SPLITS = 1000


class GGUFFile:
    """One mapped file. A source of weights (see ``weights/source.py``) under the file's own names.

    Args:
        path: the file.

    Attributes:
        metadata: the header's keys and values: numbers, strings, booleans; arrays of numbers as NumPy arrays, arrays of
            strings as ``StringArray``.
        alignment: of tensors in the data, in bytes.

    Raises:
        ModelNotFoundError: if there is no such file.
        WeightsError: if it is damaged or of a kind that Tallow does not read; the message names the file and, where
            there is one, the key or tensor.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = MappedFile(path)
        self.where = self.file.path
        header, tensor_count, self.metadata = read_header(self.file)
        self.alignment = self._read_alignment()
        self._tensors: dict[str, TensorInfo] = {}
        self._kinds: dict[str, BlockType] = {}
        self._offsets: dict[str, int] = {}
        for _ in range(tensor_count):
            self._read_tensor(header)
        start = -(-header.position // self.alignment) * self.alignment
        self._offsets = {name: start + offset for name, offset in self._offsets.items()}
        self._check_spans()

    def _read_alignment(self) -> int:
        value = self.metadata.get("general.alignment", 32)
        if type(value) is not int or value < 1 or value & (value - 1):
            raise WeightsError(f"{self.where}: general.alignment must be a power of two, found {value!r}")
        return value

    def _read_tensor(self, header: Header) -> None:
        name = header.text("a tensor's name", _MAX_NAME)
        where = f"{self.where}: tensor {name!r}"
        if name in self._tensors:
            raise WeightsError(f"{where}: the name occurs twice")
        rank = header.number("I", f"the rank of {name!r}")
        if rank > _MAX_AXES:
            raise WeightsError(f"{where}: {rank} axes; at most {_MAX_AXES} are allowed")
        shape = tuple(header.number("Q", f"the shape of {name!r}") for _ in range(rank))[::-1]
        try:
            kind = type_of_id(header.number("I", f"the type of {name!r}"))
        except WeightsError as error:
            raise WeightsError(f"{where}: {error}") from None
        row = shape[-1] if shape else 1
        if row % kind.elements:
            raise WeightsError(f"{where}: rows of {row} are no whole blocks of {kind.elements} ({kind.name})")
        count = byte_count(shape, np.dtype(np.uint8), where)
        offset = header.number("Q", f"the offset of {name!r}")
        if offset % self.alignment:
            raise WeightsError(f"{where}: offset {offset:,} is no multiple of the alignment {self.alignment}")
        dtype, blocks = (kind.layout, None) if kind.is_plain else (np.dtype(np.uint8), kind.name)
        self._tensors[name] = TensorInfo(shape, dtype, count // kind.elements * kind.nbytes, blocks)
        self._kinds[name] = kind
        self._offsets[name] = offset

    def _check_spans(self) -> None:
        """Every tensor lies in the file, and no two share a byte."""
        spans = sorted((self._offsets[name], info.nbytes, name) for name, info in self._tensors.items() if info.nbytes)
        end = 0
        for begin, nbytes, name in spans:
            if begin < end:
                raise WeightsError(f"{self.where}: tensor {name!r} overlaps the tensor before it")
            end = begin + nbytes
            if end > self.file.size:
                raise WeightsError(
                    f"{self.where}: tensor {name!r} ends at byte {end:,} of {self.file.size:,}; the file is cut off"
                )

    def names(self) -> Iterable[str]:
        """Every tensor's name."""
        return self._tensors.keys()

    def info(self, name: str) -> TensorInfo | None:
        """Shape and dtype of a tensor, or None if there is none of that name."""
        return self._tensors.get(name)

    def kind(self, name: str) -> BlockType:
        """The type of a tensor's data."""
        return self._kinds[name]

    def raw(self, name: str) -> Array:
        """A tensor's bytes as they lie in the file: (rows, bytes in a row) uint8, a read-only view."""
        info, kind = self._tensors[name], self._kinds[name]
        rows = math.prod(info.shape[:-1])
        row = info.shape[-1] if info.shape else 1
        return self.file.view(self._offset(name), np.dtype(np.uint8), (rows, row // kind.elements * kind.nbytes))

    def read(self, name: str) -> Array | BlockMatrix:
        """A tensor: a view in its own dtype if it is plain, in its blocks if it is a matrix, else in float32."""
        info, kind = self._tensors[name], self._kinds[name]
        if kind.is_plain:
            return self.file.view(self._offset(name), kind.layout, info.shape)
        if len(info.shape) == 2:
            return BlockMatrix(self.raw(name), kind)
        return dequantize(self.raw(name), kind, info.shape)

    def release(self, name: str) -> None:
        """Give a tensor's pages back to the system."""
        self.file.release(self._offset(name), self._tensors[name].nbytes)

    def _offset(self, name: str) -> int:
        """Where a tensor begins; the file's start for one that has no bytes, wherever it says it is."""
        return self._offsets[name] if self._tensors[name].nbytes else 0


class SplitGGUF(JoinedFiles[GGUFFile]):
    """The files that a large model was split into, ``NAME-00001-of-00003.gguf`` and on. A source of weights.

    Args:
        files: all of them, the first first: its metadata is the model's.
    """

    def __init__(self, files: list[GGUFFile]) -> None:
        super().__init__(files, files[0].where)
        self.metadata = files[0].metadata

    def kind(self, name: str) -> BlockType:
        """The type of a tensor's data."""
        return self._home[name].kind(name)


def open_gguf(path: str | os.PathLike[str]) -> GGUFFile | SplitGGUF:
    """Open a GGUF file, and with the first of several parts the others beside it.

    Raises:
        ModelNotFoundError: if a file is not there.
        WeightsError: if a file is damaged, or is a part other than the first.
    """
    first = GGUFFile(path)
    count = first.metadata.get("split.count", 1)
    if count == 1 or count == 0:
        return first
    name = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", first.where, re.DOTALL | re.IGNORECASE)
    if type(count) is not int or count > _MAX_SPLITS or name is None or int(name[3]) != count or int(name[2]) != 1:
        raise WeightsError(
            f"{first.where}: one of {count} parts of a model; expected the first, under its own name, "
            "NAME-00001-of-0000N.gguf, with the others beside it"
        )
    return SplitGGUF([first, *(GGUFFile(f"{name[1]}-{part:05}-of-{name[3]}{name[4]}") for part in range(2, count + 1))])
