"""Safetensors files: a reader that maps them and copies nothing, and a writer.

Format: 8 bytes of little-endian header length, a JSON header ``{"name": {"dtype", "shape", "data_offsets"}}``, then the
data without gaps (https://github.com/huggingface/safetensors, section "Format"). Everything in the header is checked
against the file's size before a byte of data is looked at.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tallow.errors import DTypeError, ModelNotFoundError, WeightsError
from tallow.tensor import Tensor
from tallow.weights.source import (
    MAX_AXES,
    Array,
    JoinedFiles,
    MappedFile,
    TensorInfo,
    byte_count,
    parse_json_object,
    read_json,
    short,
)

_MAX_HEADER = 100_000_000  # the library's own limit

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(storage)
    for name, storage in {
        "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16,
        "U32": np.uint32, "I32": np.int32, "U64": np.uint64, "I64": np.int64,
        "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64, "C64": np.complex64,
        "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    }.items()
}  # fmt: skip
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
"""Bits of an element of the format's other types (safetensors 0.8). A file may have such tensors beside those that are
asked for; to ask for one of them is an error."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class SafetensorsFile:
    """One mapped file. A source of weights (see ``weights/source.py``).

    Args:
        path: the file.

    Attributes:
        metadata: the header's ``__metadata__``; empty if it is null or not there.

    Raises:
        ModelNotFoundError: if there is no such file.
        WeightsError: if it is damaged; the message names the file and, where there is one, the tensor.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = MappedFile(path)
        self.where = self.file.path
        header, self._start = _read_header(self.file)
        self.metadata = _check_metadata(header.pop("__metadata__", None), self.where)
        self._tensors, self._offsets, self._unread = _check_header(header, self.file.size - self._start, self.where)

    def names(self) -> Iterable[str]:
        """Every tensor's name."""
        return [*self._tensors, *self._unread]

    def info(self, name: str) -> TensorInfo | None:
        """Shape and dtype of a tensor, or None if there is none of that name.

        Raises:
            WeightsError: for a tensor of a type that Tallow has not.
        """
        if name in self._unread:
            raise WeightsError(
                f"{self.where}: tensor {name!r} is of type {self._unread[name]}, which Tallow does not read; it reads "
                f"{', '.join(DTYPES)}"
            )
        return self._tensors.get(name)

    def read(self, name: str) -> Array:
        """A tensor as a read-only view of the mapped file, possibly unaligned."""
        info = self.info(name)
        if info is None:
            raise KeyError(name)
        offset = self._start + self._offsets[name]
        if info.dtype == np.bool_:  # a byte of 2 in a boolean array would be undefined, so these few are copied
            return self.file.view(offset, np.dtype(np.uint8), info.shape).astype(np.bool_)
        return self.file.view(offset, info.dtype, info.shape)

    def release(self, name: str) -> None:
        """Give a tensor's pages back to the system."""
        self.file.release(self._start + self._offsets[name], self._tensors[name].nbytes)


def open_safetensors(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> SafetensorsFile | JoinedFiles[SafetensorsFile]:
    """Open weights in safetensors form.

    Args:
        paths: a file; a list of files; an index (``model.safetensors.index.json``); or a folder that holds
            ``model.safetensors``, an index, or a single ``*.safetensors`` file.

    Raises:
        ModelNotFoundError: if a file is not there, or the folder holds none.
        WeightsError: if a file is damaged, or an index points out of its folder or at tensors that are not there.
    """
    if not isinstance(paths, (str, os.PathLike)):
        if not paths:
            raise ModelNotFoundError("an empty list of safetensors files")
        files = [SafetensorsFile(path) for path in paths]
        return files[0] if len(files) == 1 else JoinedFiles(files, files[0].where)
    path = os.fspath(paths)
    if os.path.isdir(path):
        path = _file_in_folder(path)
    return _open_index(path) if path.endswith(".json") else SafetensorsFile(path)


def _file_in_folder(folder: str) -> str:
    for name in ("model.safetensors", "model.safetensors.index.json"):
        if os.path.exists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    found = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    if len(found) == 1:
        return os.path.join(folder, found[0])
    has = f"it has {', '.join(found)}: pass the list" if found else "it has no *.safetensors file"
    raise ModelNotFoundError(f"{folder}: expected model.safetensors or model.safetensors.index.json; {has}")


def _open_index(path: str) -> JoinedFiles[SafetensorsFile]:
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path}: expected an object 'weight_map' of tensor names and file names")
    folder = os.path.dirname(path)
    for name, file in weight_map.items():
        # Only lexically: in the hub's cache the files themselves are links that lead out of the folder.
        if not isinstance(file, str) or not file.endswith(".safetensors") or set(file) & set("/\\:\0"):
            raise WeightsError(f"{path}: tensor {name!r} lies in {file!r}, which is not a file of this folder")
    files = sorted(set(weight_map.values()))
    source = JoinedFiles([SafetensorsFile(os.path.join(folder, file)) for file in files], path)
    for name, file in weight_map.items():
        home = source._home.get(name)
        if home is None or os.path.basename(home.where) != file:
            raise WeightsError(f"{path}: tensor {name!r} is not in {file}, where the index says it is")
    return source


def _read_header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The parsed header and the offset where the data starts."""
    if file.size < 8:
        raise WeightsError(f"{file.path}: {file.size} bytes are too few for a safetensors file")
    length = int.from_bytes(file.map[:8], "little")
    if length > _MAX_HEADER:
        raise WeightsError(f"{file.path}: the header says it is {length:,} bytes long; at most {_MAX_HEADER:,} may be")
    if length > file.size - 8:
        raise WeightsError(
            f"{file.path}: the header says it is {length:,} bytes long, but the file has {file.size:,} bytes in all; "
            "is it cut off, or no safetensors file?"
        )
    return parse_json_object(file.map[8 : 8 + length], f"{file.path}: header"), 8 + length


def _check_metadata(metadata: Any, where: str) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(f"{where}: header: __metadata__ must map names to strings")
    return metadata


def _check_header(
    header: dict[str, Any], size: int, where: str
) -> tuple[dict[str, TensorInfo], dict[str, int], dict[str, str]]:
    """Check every entry, and that the entries cover the data exactly.

    Returns:
        The tensors, their offsets in the data, and the types of those that are of none that Tallow has.
    """
    tensors: dict[str, TensorInfo] = {}
    unread: dict[str, str] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        info, begin, end = _check_entry(entry, f"{where}: tensor {name!r}")
        if info is None:
            unread[name] = entry["dtype"]
        else:
            tensors[name] = info
        if end > size:
            raise WeightsError(f"{where}: tensor {name!r} ends at byte {end:,} of {size:,}; the file is cut off")
        spans.append((begin, end, name))
    spans.sort()
    position = 0
    for begin, end, name in spans:
        if begin != position:
            problem = "overlaps the tensor before it" if begin < position else "leaves a gap before it"
            raise WeightsError(f"{where}: tensor {name!r} {problem}: it starts at {begin:,}, expected {position:,}")
        position = end
    if position != size:
        raise WeightsError(f"{where}: the header accounts for {position:,} bytes of data, the file has {size:,}")
    return tensors, {name: begin for begin, _, name in spans}, unread


def _check_entry(entry: Any, where: str) -> tuple[TensorInfo | None, int, int]:
    """One header entry as (info, begin, end); without info if it is of a type that Tallow has not."""
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"{where}: expected an object with dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = DTYPES.get(kind) if isinstance(kind, str) else None
    bits = _BITS.get(kind) if isinstance(kind, str) else None
    if dtype is None and bits is None:
        raise WeightsError(f"{where}: unknown dtype {short(kind)}; Tallow reads {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > MAX_AXES:
        raise WeightsError(f"{where}: the shape must be a list of at most {MAX_AXES} sizes, found {short(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise WeightsError(f"{where}: data_offsets must be [begin, end], found {short(offsets)}")
    if dtype is not None:
        nbytes = byte_count(shape, dtype, where)
    else:
        assert bits is not None
        nbytes, rest = divmod(byte_count(shape, np.dtype(np.uint8), where) * bits, 8)
        if rest:
            raise WeightsError(f"{where}: {kind} of shape {short(shape)} does not fill whole bytes")
    begin, end = offsets
    if end - begin != nbytes:
        raise WeightsError(
            f"{where}: {kind} of shape {short(shape)} takes {nbytes:,} bytes, the offsets hold {end - begin:,}"
        )
    return None if dtype is None else TensorInfo(tuple(shape), dtype, nbytes), begin, end


def _are_sizes(value: Any) -> bool:
    """Whether a value is a list of integers of at least 0 (and not booleans, which are integers to Python)."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def save_safetensors(
    tensors: Mapping[str, Tensor | Array],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors to a safetensors file. The file appears whole or not at all.

    Args:
        tensors: names and values; any shape, strides and device.
        path: the file to write or replace.
        metadata: strings to put into the header.

    Raises:
        DTypeError: for a dtype that the format has no name for.
        WeightsError: if the file cannot be written.

    Examples:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "model.safetensors")
        ...     tl.save_safetensors({"norm.weight": tl.ones(3)}, path)
        ...     tl.VarBuilder.from_safetensors(path).get((3,), "norm.weight").tolist()
        [1.0, 1.0, 1.0]
    """
    arrays = {
        name: value.numpy() if isinstance(value, Tensor) else np.asarray(value) for name, value in tensors.items()
    }
    infos = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    write_safetensors(path, infos, arrays.__getitem__, metadata)


def write_safetensors(
    path: str | os.PathLike[str],
    infos: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]],
    make: Callable[[str], Array],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors that are made one after the other, so that they need not be there at once.

    Args:
        path: the file to write or replace.
        infos: dtype and shape by name.
        make: gives the tensor of a name, when its turn comes.
        metadata: strings to put into the header.

    Raises:
        DTypeError: for a dtype that the format has no name for.
        WeightsError: if the file cannot be written.
    """
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(metadata)
    position = 0
    # Widest elements first, so that every tensor lies aligned.
    order = sorted(infos, key=lambda name: (-infos[name][0].itemsize, name))
    for name in order:
        dtype, shape = infos[name]
        if dtype not in _NAMES:
            raise DTypeError(f"save_safetensors: {name!r} is {dtype}; the format has {', '.join(DTYPES)}")
        end = position + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    write_atomically(os.fspath(path), [len(text).to_bytes(8, "little"), text], map(make, order))


def write_atomically(path: str, head: Iterable[bytes], arrays: Iterable[Array]) -> None:
    """Write bytes and then arrays to a file that appears whole or not at all. WeightsError if that fails."""
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            for part in head:
                file.write(part)
            for array in arrays:
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise WeightsError(f"{path}: cannot be written: {error.strerror}") from error
        raise
