"""Softmax and its logarithm, along the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.linear import rows_of
from tallow.backends.cpu.memory import empty
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor

_FLOAT32 = np.dtype(np.float32)


def _softmax(x: Tensor, axis: int, log: bool) -> Any:
    storage = x.storage
    if storage.dtype != _FLOAT32 or not storage.size or axis not in (-1, storage.ndim - 1):
        return NotImplemented
    rows = rows_of(storage)
    out = empty(rows.shape)
    _cpu.softmax(out, rows, log)
    return Tensor(out.reshape(storage.shape))


@kernel("softmax", "cpu")
def softmax(x: Tensor, axis: int = -1) -> Any:
    """See ``ops.softmax``."""
    return _softmax(x, axis, False)


@kernel("log_softmax", "cpu")
def log_softmax(x: Tensor, axis: int = -1) -> Any:
    """See ``ops.log_softmax``."""
    return _softmax(x, axis, True)
