"""Writing GGUF files. See ``gguf.py`` for the format."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tallow.errors import DTypeError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.blocks import BY_NAME, BlockType
from tallow.weights.safetensors import write_atomically

Array = np.ndarray[Any, Any]
_ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


class NewTensor(NamedTuple):
    """A tensor to be written.

    Attributes:
        shape: sizes of its axes.
        kind: how it is stored.
        make: gives its contents, plain or in blocks of that kind; called when its turn comes.
    """

    shape: tuple[int, ...]
    kind: BlockType
    make: Callable[[], Array | BlockMatrix]


def save_gguf(path: str | os.PathLike[str], metadata: Mapping[str, Any], tensors: Mapping[str, NewTensor]) -> None:
    """Write a GGUF file. It appears whole or not at all.

    Args:
        path: the file to write or replace.
        metadata: strings, booleans, whole numbers (as u32), real numbers (as f32), and lists or arrays of one of them.
        tensors: by name, in the order in which they are to lie.

    Raises:
        DTypeError: for metadata of another type.
        WeightsError: if the file cannot be written.
    """
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    head += [_text(key) + _value(value, key) for key, value in metadata.items()]
    offset = 0
    for name, tensor in tensors.items():
        dims = tensor.shape[::-1]
        head.append(_text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.kind.id, offset))
        offset += _padded(_nbytes(tensor))
    size = sum(map(len, head))
    head.append(b"\0" * (_padded(size) - size))
    write_atomically(os.fspath(path), head, (_contents(tensor) for tensor in tensors.values()))


def _nbytes(tensor: NewTensor) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64)) // tensor.kind.elements * tensor.kind.nbytes


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _contents(tensor: NewTensor) -> Array:
    """A tensor's bytes, filled up to the alignment."""
    value = tensor.make()
    raw = value.raw if isinstance(value, BlockMatrix) else np.ascontiguousarray(value, tensor.kind.layout)
    out = np.zeros(_padded(_nbytes(tensor)), np.uint8)
    out[: _nbytes(tensor)] = raw.reshape(-1).view(np.uint8)
    return out


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any, key: str) -> bytes:
    """A value's type and bytes."""
    kind = _kind(value, key)
    if kind != _ARRAY:
        return struct.pack("<I", kind) + _items([value], kind)
    values: Sequence[Any] = value.tolist() if isinstance(value, np.ndarray) else value
    inner = _kind(values[0], key) if len(values) else _STRING
    inner = _INT32 if inner == _UINT32 else inner
    return struct.pack("<IIQ", _ARRAY, inner, len(values)) + _items(values, inner)


def _kind(value: Any, key: str) -> int:
    for types, kind in ((bool, _BOOL), (int, _UINT32), (float, _FLOAT32), (str, _STRING), ((list, np.ndarray), _ARRAY)):
        if isinstance(value, types):
            return kind
    raise DTypeError(f"save_gguf: metadata {key!r} is a {type(value).__name__}; GGUF has no such type")


def _items(values: Iterable[Any], kind: int) -> bytes:
    if kind == _STRING:
        return b"".join(map(_text, values))
    return b"".join(struct.pack("<" + {_UINT32: "I", _INT32: "i", _FLOAT32: "f", _BOOL: "?"}[kind], v) for v in values)


PLAIN = {"float32": BY_NAME["f32"], "float16": BY_NAME["f16"], "bfloat16": BY_NAME["bf16"]}
"""How numbers that are not quantised are stored."""
