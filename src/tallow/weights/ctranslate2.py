"""CTranslate2's ``model.bin``: a reader that maps the file and copies nothing.

Format, little-endian (CTranslate2, ``python/ctranslate2/specs/model_spec.py``): u32 binary version, the name of the
model's specification, u32 its revision, u32 count of variables; for each its name, u8 rank, u32 sizes, u8 dtype,
u32 bytes, the bytes; then u32 count of aliases, each an alias and the name it stands for. A string is a u16 length that
counts a closing NUL, then the characters. Weights in int8 and int16 have their scale beside them, ``NAME_scale``, and
mean ``value / scale``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import ml_dtypes
import numpy as np

from tallow.errors import WeightsError
from tallow.matrix.quantize import Int8Matrix
from tallow.weights.cursor import Cursor
from tallow.weights.source import MAX_AXES, Array, MappedFile, TensorInfo, byte_count

_VERSIONS = range(4, 7)  # 4 brought dtype ids; 6 is the newest
_DTYPES = tuple(np.dtype(t) for t in (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16))


class CTranslate2File:
    """A mapped ``model.bin``. A source of weights (see ``weights/source.py``) under CTranslate2's own names.

    Args:
        path: the file.

    Attributes:
        spec: what kind of model it is, such as ``"WhisperSpec"``.
        revision: of that specification.

    Raises:
        ModelNotFoundError: if there is no such file.
        WeightsError: if it is damaged; the message names the file and, where there is one, the variable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = MappedFile(path)
        self.where = self.file.path
        cursor = _Cursor(self.file)
        version = cursor.number("I", "the version")
        if version not in _VERSIONS:
            raise WeightsError(
                f"{self.where}: expected CTranslate2's binary version {_VERSIONS[0]} to {_VERSIONS[-1]}, found "
                f"{version}; convert the model again with a current CTranslate2, or this is no CTranslate2 file"
            )
        self.spec = cursor.string("the specification's name")
        self.revision = cursor.number("I", "the specification's revision")
        self._tensors: dict[str, TensorInfo] = {}
        self._offsets: dict[str, int] = {}
        for _ in range(cursor.count("variables", 10)):
            self._read_variable(cursor)
        for _ in range(cursor.count("aliases", 6)):
            self._read_alias(cursor)
        if cursor.position != self.file.size:
            raise WeightsError(f"{self.where}: {self.file.size - cursor.position:,} bytes too many at the end")

    def _read_variable(self, cursor: _Cursor) -> None:
        name = cursor.string("a variable's name")
        where = f"{self.where}: variable {name!r}"
        rank = cursor.number("B", f"the rank of {name!r}")
        if rank > MAX_AXES:
            raise WeightsError(f"{where}: {rank} axes; at most {MAX_AXES} are allowed")
        shape = tuple(cursor.number("I", f"the shape of {name!r}") for _ in range(rank))
        kind = cursor.number("B", f"the dtype of {name!r}")
        if kind >= len(_DTYPES):
            raise WeightsError(f"{where}: unknown dtype id {kind}; there are 0 to {len(_DTYPES) - 1}")
        dtype = _DTYPES[kind]
        nbytes = cursor.number("I", f"the size of {name!r}")
        expected = byte_count(shape, dtype, where)
        if nbytes != expected:
            raise WeightsError(f"{where}: {dtype} of shape {shape} takes {expected:,} bytes, found {nbytes:,}")
        if name in self._tensors:
            raise WeightsError(f"{where}: the name occurs twice")
        self._tensors[name] = TensorInfo(shape, dtype, nbytes)
        self._offsets[name] = cursor.skip(nbytes, f"the contents of {name!r}")

    def _read_alias(self, cursor: _Cursor) -> None:
        alias = cursor.string("an alias")
        name = cursor.string(f"what {alias!r} stands for")
        if name not in self._tensors:
            raise WeightsError(f"{self.where}: alias {alias!r} stands for {name!r}, which is not there")
        if alias in self._tensors:
            raise WeightsError(f"{self.where}: alias {alias!r}: the name occurs twice")
        for suffix in ("", "_scale"):
            if name + suffix in self._tensors:
                self._tensors[alias + suffix] = self._tensors[name + suffix]
                self._offsets[alias + suffix] = self._offsets[name + suffix]

    def names(self) -> Iterable[str]:
        """Every variable's and alias's name."""
        return self._tensors.keys()

    def info(self, name: str) -> TensorInfo | None:
        """Shape and dtype of a variable, or None if there is none of that name."""
        return self._tensors.get(name)

    def raw(self, name: str) -> Array:
        """A variable as it is stored: a read-only view, possibly unaligned, without its scale."""
        info = self._tensors[name]
        return self.file.view(self._offsets[name], info.dtype, info.shape)

    def read(self, name: str) -> Array | Int8Matrix:
        """A variable's value: the stored view; an int8 matrix with its scales; other quantised ones in float32.

        Raises:
            WeightsError: if the scale of a quantised weight is missing, of the wrong shape, zero or not finite.
        """
        array = self.raw(name)
        if array.ndim < 2 or array.dtype not in (np.int8, np.int16):
            return array
        scale = self._scale(name, array)
        if array.dtype == np.int8 and array.ndim == 2 and scale.ndim == 1:
            return Int8Matrix(array, 1 / scale)
        return array / scale.reshape(scale.shape + (1,) * (array.ndim - scale.ndim))

    def _scale(self, name: str, array: Array) -> Array:
        where = f"{self.where}: variable {name!r}"
        info = self._tensors.get(f"{name}_scale")
        if info is None:
            raise WeightsError(f"{where} is {array.dtype}, but {name + '_scale'!r} is not there")
        if info.shape not in ((), array.shape[:1]) or info.dtype != np.float32:
            raise WeightsError(
                f"{where} of shape {array.shape}: expected float32 scales of shape {array.shape[:1]} or (), "
                f"found {info.dtype} of shape {info.shape}"
            )
        scale = self.raw(f"{name}_scale").copy()
        with np.errstate(divide="ignore", over="ignore"):
            usable = np.isfinite(scale) & (scale > 0) & np.isfinite(1 / scale)
        if not usable.all():
            raise WeightsError(f"{where}: scales must be positive and finite")
        return scale

    def release(self, name: str) -> None:
        """Give a variable's pages back to the system."""
        self.file.release(self._offsets[name], self._tensors[name].nbytes)


class _Cursor(Cursor):
    """Reads a header of CTranslate2's."""

    def count(self, what: str, least: int) -> int:
        """How many ``what`` follow, each of at least so many bytes."""
        return self.counted("I", what, least)

    def string(self, what: str) -> str:
        """A string of at least one character."""
        length = self.number("H", what)
        begin = self.skip(length, what)
        data = self.file.map[begin : begin + length]
        if length < 2 or data.find(b"\0") != length - 1:
            raise WeightsError(f"{self.file.path}: {what} at byte {begin:,} is not a string closed by a zero")
        try:
            return data[:-1].decode("utf-8")
        except UnicodeDecodeError:
            raise WeightsError(f"{self.file.path}: {what} at byte {begin:,} is not UTF-8") from None
