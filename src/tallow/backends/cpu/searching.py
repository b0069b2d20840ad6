"""Where the largest elements are, along the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.linear import rows_of
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
