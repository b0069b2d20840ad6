"""Where the largest elements are, along the last axis, and how likely."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.linear import rows_of
from tallow.backends.cpu.memory import contiguous
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor

_FLOAT32 = np.dtype(np.float32)


@kernel("argmax", "cpu")
def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """See ``ops.argmax``."""
    storage = x.storage
    if storage.dtype != _FLOAT32 or not storage.size or axis is None or axis not in (-1, storage.ndim - 1):
        return NotImplemented
    shape = storage.shape[:-1]
    out = np.empty((*shape, 1) if keepdims else shape, np.int64)
    _cpu.argmax(out.reshape(-1), rows_of(storage))
    return Tensor(out)


@kernel("top_logprobs", "cpu")
def top_logprobs(logits: Tensor, chosen: Tensor, k: int) -> Any:
    """See ``ops.top_logprobs``."""
    x, given = logits.storage, chosen.storage
    if x.dtype != _FLOAT32 or x.ndim != 2 or not x.size or k < 0:
        return NotImplemented
    if given.dtype != np.int64 or given.shape != x.shape[:1]:
        return NotImplemented
    shape = len(x), 1 + min(k, x.shape[1])
    ids, values = np.empty(shape, np.int64), np.empty(shape, np.float32)
    _cpu.top_logprobs(ids, values, rows_of(x), contiguous(given, np.int64))
    return Tensor(ids), Tensor(values)
