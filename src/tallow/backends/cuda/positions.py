"""Where new tokens stand, which angles they have, and which is the likeliest."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tallow.backends.cuda.arrays import matrix_of
from tallow.backends.cuda.kernels import NAMES, TICKETS, function, tickets
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor

_THREADS = 256
_NUMBERS = 4096  # of a row that a block looks through
_MAX_ROWS = 1024


@kernel("next_positions", "cuda")
def next_positions(lengths: Tensor, n: int, counts: Tensor | None = None) -> Any:
    """See ``ops.next_positions``."""
    held = lengths.storage
    if held.ndim != 1 or held.dtype != np.int64 or not held.size or n < 1:
        return NotImplemented
    if counts is not None and (counts.shape != held.shape or counts.storage.dtype != np.int64):
        return NotImplemented
    out = cupy.empty((len(held), n), np.int64)
    added = 0 if counts is None else cupy.ascontiguousarray(counts.storage)
    run = function("positions", "next_positions")
    run((-(-out.size // _THREADS),), (_THREADS,), (out, cupy.ascontiguousarray(held), added, out.size, n))
    return Tensor(out, lengths.device)


@kernel("rotary_angles", "cuda")
def rotary_angles(positions: Tensor, frequencies: Tensor, factor: float = 1.0) -> Any:
    """See ``ops.rotary_angles``."""
    numbers, pairs = positions.storage, frequencies.storage
    if numbers.dtype != np.int64 or pairs.dtype != np.float32 or pairs.ndim != 1 or not numbers.size * pairs.size:
        return NotImplemented
    cosines, sines = (cupy.empty((*numbers.shape, pairs.size), np.float32) for _ in range(2))
    given = (cupy.ascontiguousarray(numbers), cupy.ascontiguousarray(pairs))
    run = function("positions", "rotary_angles")
    arguments = (cosines, sines, *given, cosines.size, pairs.size, float(factor))
    run((-(-cosines.size // _THREADS),), (_THREADS,), arguments)
    return Tensor(cosines, frequencies.device), Tensor(sines, frequencies.device)


@kernel("argmax", "cuda")
def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """See ``ops.argmax``; along the last axis of a few long rows."""
    array = x.storage
    if array.dtype not in NAMES or not array.ndim or axis not in (-1, array.ndim - 1) or not array.size:
        return NotImplemented
    array, rows, distance = matrix_of(array)
    if rows > min(_MAX_ROWS, TICKETS) or array.shape[-1] >= 1 << 32:
        return NotImplemented
    blocks = min(64, -(-array.shape[-1] // _NUMBERS))
    out, scratch = cupy.empty(rows, np.int64), cupy.empty(rows * blocks, np.uint64)
    run = function("argmax", "argmax", T=NAMES[array.dtype])
    run((blocks, rows), (_THREADS,), (out, array, scratch, tickets(), array.shape[-1], distance))
    shape = (*x.shape[:-1], 1) if keepdims else x.shape[:-1]
    return Tensor(out.reshape(shape), x.device)
