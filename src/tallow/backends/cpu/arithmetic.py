"""Sums that are recorded, or large; NumPy adds small ones as quickly."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.memory import empty
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor

_FLOAT32 = np.dtype(np.float32)
_LARGE = 1 << 16  # numbers


@kernel("add", "cpu")
def add(x1: Any, x2: Any, /) -> Any:
    """Two float32 tensors of one shape in C order."""
    if type(x1) is not Tensor or type(x2) is not Tensor or (x1.storage.size < _LARGE and not _cpu.recording()):
        return NotImplemented
    x, y = x1.storage, x2.storage
    like = x.shape == y.shape and x.dtype == y.dtype == _FLOAT32 and x.flags.c_contiguous and y.flags.c_contiguous
    if not like:
        return NotImplemented
    out = empty(x.shape)
    _cpu.add(out, x, y)
    return Tensor(out)
