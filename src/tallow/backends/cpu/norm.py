"""Layer norm and RMS norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.memory import contiguous, empty, matrix
from tallow.ops.dispatch import kernel
from tallow.ops.norm import check_norm
from tallow.tensor import Tensor

_FLOAT32 = np.dtype(np.float32)


def _rows(x: Tensor, *scales: Tensor) -> np.ndarray[Any, Any] | None:
    """The rows of x as a matrix with adjacent columns, or as a stack of matrices; copied if its strides ask for it.

    None for what the kernel leaves to the reference: anything that is not float32, and nothing at all.
    """
    storage: np.ndarray[Any, Any] = x.storage
    if storage.dtype is not _FLOAT32 or not storage.size:
        return None
    for scale in scales:
        if scale.storage.dtype is not _FLOAT32 or not scale.storage.flags.c_contiguous:
            return None
    if storage.ndim > 3 and not storage.flags.c_contiguous and storage.strides[-1] == 4:
        groups: np.ndarray[Any, Any] = storage.reshape(
            -1, *storage.shape[-2:]
        )  # heads of tokens, cut out of wider rows
        if np.may_share_memory(groups, storage):
            return groups
    rows = matrix(storage)
    return rows if rows.strides[-1] == 4 else contiguous(rows)


@kernel("layer_norm", "cpu")
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Any:
    """See ``ops.layer_norm``."""
    check_norm("layer_norm", x, weight, bias)
    rows = _rows(x, weight, bias)
    if rows is None:
        return NotImplemented
    out = empty((rows.size // rows.shape[-1], rows.shape[-1]))
    _cpu.layer_norm(out, rows, weight.storage, bias.storage, eps)
    return Tensor(out.reshape(x.shape))


@kernel("rms_norm", "cpu")
def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Any:
    """See ``ops.rms_norm``."""
    check_norm("rms_norm", x, weight)
    rows = _rows(x, weight)
    if rows is None:
        return NotImplemented
    out = empty((rows.size // rows.shape[-1], rows.shape[-1]))
    _cpu.rms_norm(out, rows, weight.storage, eps)
    return Tensor(out.reshape(x.shape))
