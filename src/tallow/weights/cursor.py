"""Walking through a binary header, with every length checked before it is used."""

from __future__ import annotations

import struct
from typing import Any

from tallow.errors import WeightsError
from tallow.weights.source import MappedFile


class Cursor:
    """Reads little-endian numbers one after the other, and never past the end.

    Args:
        file: the mapped file.

    Attributes:
        position: the byte that comes next.
    """

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.position = 0

    def skip(self, nbytes: int, what: str) -> int:
        """Pass over bytes; where they begin."""
        begin = self.position
        if nbytes > self.file.size - begin:
            raise WeightsError(
                f"{self.file.path}: cut off: {what} needs {nbytes:,} bytes at {begin:,}, "
                f"the file has {self.file.size:,}"
            )
        self.position = begin + nbytes
        return begin

    def number(self, form: str, what: str) -> Any:
        """A number of struct's format ``form``."""
        form = "<" + form
        return struct.unpack_from(form, self.file.map, self.skip(struct.calcsize(form), what))[0]

    def counted(self, form: str, what: str, least: int) -> int:
        """How many of something follow, a number of format ``form``; each takes at least ``least`` bytes."""
        count: int = self.number(form, f"the number of {what}")
        left = self.file.size - self.position
        if count * least > left:
            raise WeightsError(
                f"{self.file.path}: says it has {count:,} {what}, which the {left:,} bytes left cannot hold"
            )
        return count
