"""What a source of weights is, and the memory-mapped file that every file format stands on."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any, Generic, NamedTuple, NoReturn, Protocol, TypeVar

import numpy as np

from tallow.errors import ModelNotFoundError, WeightsError
from tallow.matrix.weight import Stored

Array = np.ndarray[Any, Any]

MAX_AXES = 32  # more than any model has; NumPy takes 64
_MAX_ELEMENTS = 1 << 48
_MAX_EMPTY = 1 << 28  # an empty tensor takes no bytes of its file, so the file's size does not bound its other axes


class TensorInfo(NamedTuple):
    """What a source says of one tensor before it is read.

    Attributes:
        shape: sizes of its axes.
        dtype: the NumPy dtype of its elements (bfloat16 and float8 through ``ml_dtypes``); for quantised weights that
            of the stored integers.
        nbytes: bytes it takes in the file.
        blocks: the type of GGUF's blocks that it is in, such as ``"q4_k"``; None for plain numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    blocks: str | None = None


class Source(Protocol):
    """A place that weights come from: files of one format, or another source seen under other names.

    Attributes:
        where: the path or description that error messages name.
    """

    where: str

    def names(self) -> Iterable[str]:
        """Every tensor's full name."""
        ...

    def info(self, name: str) -> TensorInfo | None:
        """Shape and dtype of a tensor, or None if there is none of that name. Reads nothing of its contents."""
        ...

    def read(self, name: str) -> Stored:
        """The tensor: a read-only view of the mapped file where that is possible. Its data may be unaligned."""
        ...

    def release(self, name: str) -> None:
        """Say that the tensor's pages are not needed again soon. Reading it again is allowed."""
        ...


S = TypeVar("S", bound=Source)


class JoinedFiles(Generic[S]):
    """Several files that together hold one set of weights. A source of weights.

    Args:
        files: themselves sources. No name may occur in two of them.
        where: what error messages name.
    """

    def __init__(self, files: Sequence[S], where: str) -> None:
        self.where = where
        self.files = files
        self._home: dict[str, S] = {}
        for file in files:
            for name in file.names():
                other = self._home.setdefault(name, file)
                if other is not file:
                    raise WeightsError(f"{file.where}: tensor {name!r} is also in {other.where}")

    def names(self) -> Iterable[str]:
        """Every tensor's name, file by file."""
        return self._home.keys()

    def info(self, name: str) -> TensorInfo | None:
        """Shape and dtype of a tensor, or None if there is none of that name."""
        file = self._home.get(name)
        return file.info(name) if file else None

    def read(self, name: str) -> Stored:
        """A tensor, as its file gives it."""
        return self._home[name].read(name)

    def release(self, name: str) -> None:
        """Give a tensor's pages back to the system."""
        self._home[name].release(name)


class MappedFile:
    """A regular file, mapped read-only. Views of it keep the mapping alive, and ``release`` gives its pages back.

    Args:
        path: the file. It must not be changed or truncated by others while it is mapped.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            status = os.stat(self.path)
            if not stat.S_ISREG(status.st_mode):
                raise WeightsError(f"{self.path}: not a regular file")
            self.size = status.st_size
            if self.size == 0:
                raise WeightsError(f"{self.path}: the file is empty")
            with open(self.path, "rb") as file:
                self.map = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise ModelNotFoundError(f"{self.path}: no such file") from None
        except (OSError, ValueError) as error:
            raise WeightsError(f"{self.path}: cannot be opened: {error}") from None

    def view(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """A read-only array over the bytes from ``offset`` on; the caller has checked that they lie in the file."""
        return np.ndarray(shape, dtype, self.map, offset)

    def release(self, offset: int, nbytes: int) -> None:
        """Give the pages over a range back to the system; views stay valid and read them again from the file.

        Whole pages are dropped, so a neighbour's first or last page may have to be read again: cheap, and correct,
        since the mapping is read-only.
        """
        if nbytes > 0 and hasattr(mmap, "MADV_DONTNEED"):
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            self.map.madvise(mmap.MADV_DONTNEED, start, offset + nbytes - start)


def is_mapped(array: Array) -> bool:
    """Whether an array is a view of a mapped file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def byte_count(shape: Sequence[int], dtype: np.dtype[Any], where: str) -> int:
    """Bytes that a tensor of this shape takes. Raises WeightsError for one larger than any machine could hold."""
    bound = 1
    for axis in shape:  # an axis of 0 must not hide the others: NumPy refuses a shape by the product of the rest
        bound *= max(axis, 1)
        if bound > _MAX_ELEMENTS:
            raise WeightsError(f"{where}: the shape {short(shape)} is impossibly large")
    if 0 not in shape:
        return bound * dtype.itemsize
    if bound > _MAX_EMPTY:
        raise WeightsError(f"{where}: the shape {short(shape)} is empty, yet impossibly large")
    return 0


def short(value: Any) -> str:
    """A value from a file, cut to a length that an error message can bear."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parse_json_object(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object from bytes that nobody has checked.

    Args:
        data: the bytes; must be UTF-8.
        where: what the error message names.

    Raises:
        WeightsError: if it is not UTF-8 or not JSON, repeats a key, is nested too deep, or is not an object.
    """
    import json  # 3 ms, which a program that only makes tensors is spared

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"the name {twice!r} occurs twice")
        return result

    def constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is not JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except UnicodeDecodeError:
        raise WeightsError(f"{where}: not UTF-8 text") from None
    except RecursionError:
        raise WeightsError(f"{where}: JSON nested too deep") from None
    except ValueError as error:
        raise WeightsError(f"{where}: damaged JSON: {error}") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def read_json(path: str | os.PathLike[str], limit: int = 64 << 20) -> dict[str, Any]:
    """The JSON object in a file of at most ``limit`` bytes.

    Raises:
        ModelNotFoundError: if there is no such file.
        WeightsError: if it is too large or not a JSON object.
    """
    where = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise ModelNotFoundError(f"{where}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{where}: cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise WeightsError(f"{where}: larger than {limit:,} bytes")
    return parse_json_object(data, where)
