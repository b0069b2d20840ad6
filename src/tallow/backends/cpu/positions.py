"""Positions, rotary angles, and what they turn."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.memory import contiguous, empty
from tallow.ops.dispatch import kernel
from tallow.ops.rope import check_rope
from tallow.tensor import Tensor

_INT64 = np.dtype(np.int64)
_FLOAT32 = np.dtype(np.float32)


@kernel("next_positions", "cpu")
def next_positions(lengths: Tensor, n: int, counts: Tensor | None = None) -> Any:
    """See ``ops.next_positions``."""
    held = lengths.storage
    if held.ndim != 1 or held.dtype != _INT64 or (counts is not None and counts.storage.shape != held.shape):
        return NotImplemented
    out = empty((len(held), n), np.int64)
    _cpu.next_positions(out, contiguous(held, _INT64), None if counts is None else contiguous(counts.storage, _INT64))
    return Tensor(out)


@kernel("rotary_angles", "cpu")
def rotary_angles(positions: Tensor, frequencies: Tensor, factor: float = 1.0) -> Any:
    """See ``ops.rotary_angles``."""
    if positions.storage.dtype != _INT64 or frequencies.storage.ndim != 1:
        return NotImplemented
    shape = (*positions.storage.shape, len(frequencies.storage))
    cos, sin = empty(shape), empty(shape)
    _cpu.rotary_angles(cos, sin, contiguous(positions.storage, _INT64), contiguous(frequencies.storage), factor)
    return Tensor(cos), Tensor(sin)


@kernel("rope", "cpu")
def rope(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Any:
    """See ``ops.rope``: float32, and pairs half a head apart."""
    check_rope(x, cos, sin)
    storage = x.storage
    if interleaved or not storage.dtype == cos.storage.dtype == sin.storage.dtype == _FLOAT32:
        return NotImplemented
    if storage.strides[3] != 4 or not storage.flags.aligned:
        storage = contiguous(storage)
    out = empty(storage.shape)
    _cpu.rope(out, storage, contiguous(cos.storage), contiguous(sin.storage))
    return Tensor(out)
