"""Log-probabilities of chosen and of the likeliest tokens on the GPU."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tallow.backends.cuda.arrays import matrix_of
from tallow.backends.cuda.kernels import NAMES, function, multiprocessors, tickets
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor

_THREADS = 256
_MAX_BLOCKS = 128  # of a row; no more than threads
_MIN_NUMBERS = 1024  # of a row that are worth a block
_MAX_ROWS = 1 << 15


@kernel("top_logprobs", "cuda")
def top_logprobs(logits: Tensor, chosen: Tensor, k: int) -> Any:
    """See ``ops.top_logprobs``."""
    x, given = logits.storage, chosen.storage
    if x.dtype not in NAMES or x.ndim != 2 or not x.size or len(x) > _MAX_ROWS or x.shape[1] >= 1 << 32 or k < 0:
        return NotImplemented
    if given.dtype != np.int64 or given.shape != x.shape[:1]:
        return NotImplemented
    x, rows, distance = matrix_of(x)
    width = x.shape[1]
    top = min(k, width)
    blocks = max(1, min(_MAX_BLOCKS, width // _MIN_NUMBERS, 4 * multiprocessors() // rows))
    most = min(top, -(-width // blocks))  # that a block can find
    ids, values = cupy.empty((rows, 1 + top), np.int64), cupy.empty((rows, 1 + top), np.float32)
    found, sums = cupy.empty(max(rows * blocks * most, 1), np.uint64), cupy.empty((rows, blocks, 2), np.float32)
    run = function("top_logprobs", "top_logprobs", T=NAMES[x.dtype])
    arrays = (ids, values, x, cupy.ascontiguousarray(given), found, sums, tickets())
    run((blocks, rows), (_THREADS,), (*arrays, width, distance, top, most))
    return Tensor(ids, logits.device), Tensor(values, logits.device)
