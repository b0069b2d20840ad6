"""The header of a GGUF file: counts and metadata, read with every length checked first. See ``gguf.py``."""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import Any

import numpy as np

from tallow import _cpu
from tallow.errors import WeightsError
from tallow.weights.cursor import Cursor
from tallow.weights.source import MappedFile

_MAX_KEY = 65_535  # the format's own limit
_MAX_DEPTH = 4  # of arrays in arrays; no published file has any
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
Buffer = bytes | mmap
_BOOL, _STRING, _ARRAY = 7, 8, 9


class StringArray:
    """The strings of a metadata array. They stay in the file until they are asked for.

    Args:
        buffer: the file's bytes.
        begin: where the first one's length stands.
        count: how many there are.
        where: what errors name.

    Attributes:
        native: the ``_cpu.Strings``.

    Raises:
        IndexError: if they do not lie within the bytes.
    """

    def __init__(self, buffer: Buffer, begin: int, count: int, where: str) -> None:
        self.native = _cpu.Strings(buffer, begin, count)
        self._where = where

    def __len__(self) -> int:
        return len(self.native)

    def __getitem__(self, place: int) -> str:
        try:
            return self.native[place]  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            raise WeightsError(f"{self._where}: holds a string that is not UTF-8") from None

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def tolist(self) -> list[str]:
        """All of them."""
        return list(self)


class Header(Cursor):
    """Reads a header's strings and values too."""

    def count(self, what: str, least: int) -> int:
        """How many of something follow, each of which takes at least ``least`` bytes."""
        return self.counted("Q", what, least)

    def text(self, what: str, limit: int | None = None) -> str:
        """A string; ``limit`` bounds its bytes."""
        length: int = self.number("Q", f"the length of {what}")
        if limit is not None and length > limit:
            raise WeightsError(f"{self.file.path}: {what} says it is {length:,} bytes long; at most {limit:,} may be")
        begin = self.skip(length, what)
        try:
            return self.file.map[begin : self.position].decode()
        except UnicodeDecodeError:
            raise WeightsError(f"{self.file.path}: {what} is not UTF-8") from None

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        """A value of one of the format's types."""
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind], what)
        if kind == _BOOL:
            return self._bool(self.number("B", what), what)
        if kind == _STRING:
            return self.text(what)
        if kind == _ARRAY:
            return self._array(what, depth)
        raise WeightsError(f"{self.file.path}: {what} is of unknown type {kind}")

    def _array(self, what: str, depth: int) -> Any:
        kind = self.number("I", f"the type of {what}")
        if kind in _NUMBERS:
            dtype = np.dtype("<" + _NUMBERS[kind])
            count = self.count(f"values of {what}", dtype.itemsize)
            return np.ndarray((count,), dtype, self.file.map, self.skip(count * dtype.itemsize, what))
        if kind == _BOOL:
            begin = self.skip(self.count(f"values of {what}", 1), what)
            return [self._bool(byte, what) for byte in self.file.map[begin : self.position]]
        if kind == _STRING:
            return self._strings(self.count(f"values of {what}", 8), what)
        if kind != _ARRAY:
            raise WeightsError(f"{self.file.path}: {what} is an array of unknown type {kind}")
        if depth == _MAX_DEPTH:
            raise WeightsError(f"{self.file.path}: {what} nests arrays more than {_MAX_DEPTH} deep")
        return [self._array(what, depth + 1) for _ in range(self.count(f"values of {what}", 12))]

    def _strings(self, count: int, what: str) -> StringArray:
        begin = self.position
        try:
            strings = StringArray(self.file.map, begin, count, f"{self.file.path}: {what}")
        except IndexError:
            raise WeightsError(f"{self.file.path}: cut off in {what}, or a string in it has a wrong length") from None
        self.skip(strings.native.end - begin, what)
        return strings

    def _bool(self, byte: int, what: str) -> bool:
        if byte > 1:
            raise WeightsError(f"{self.file.path}: {what} must be true (1) or false (0), found {byte}")
        return byte == 1


def read_header(file: MappedFile) -> tuple[Header, int, dict[str, Any]]:
    """The header up to its tensors.

    Returns:
        The reader, which stands at the first tensor's description; how many tensors there are; the metadata.

    Raises:
        WeightsError: if it is no GGUF file, of another version or byte order, or damaged.
    """
    header = Header(file)
    begin = header.skip(4, "the magic number")
    if file.map[begin : begin + 4] != b"GGUF":
        raise WeightsError(f"{file.path}: not a GGUF file: it does not begin with 'GGUF'")
    version = header.number("I", "the version")
    if version not in (2, 3):
        if version & 0xFFFF == 0 and version:
            raise WeightsError(f"{file.path}: a big-endian GGUF file; Tallow reads little-endian ones")
        raise WeightsError(f"{file.path}: GGUF version {version}; Tallow reads versions 2 and 3")
    tensor_count = header.count("tensors", 24)
    metadata: dict[str, Any] = {}
    for _ in range(header.count("metadata", 13)):
        key = header.text("a key of the metadata", _MAX_KEY)
        if key in metadata:
            raise WeightsError(f"{file.path}: the key {key!r} occurs twice in the metadata")
        metadata[key] = header.value(header.number("I", f"the type of {key!r}"), repr(key))
    return header, tensor_count, metadata
