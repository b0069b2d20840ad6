"""Activation functions on their own, and gated linear units."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.linear import ACTIVATIONS, rows_of
from tallow.backends.cpu.memory import empty
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor

_FLOAT32 = np.dtype(np.float32)


def _activated(x: Tensor, activation: str, up: Tensor | None = None) -> Any:
    storage = x.storage
    if storage.dtype != _FLOAT32 or not storage.ndim or not storage.size:
        return NotImplemented
    rows = rows_of(storage)
    out = empty(rows.shape)
    _cpu.activate(out, rows, None if up is None else rows_of(up.storage), ACTIVATIONS[activation])
    return Tensor(out.reshape(storage.shape))


@kernel("gelu", "cpu")
def gelu(x: Tensor, approximate: str = "none") -> Any:
    """See ``ops.gelu``."""
    if approximate not in ("none", "tanh"):
        return NotImplemented
    return _activated(x, "gelu_tanh" if approximate == "tanh" else "gelu")


@kernel("silu", "cpu")
def silu(x: Tensor) -> Any:
    """See ``ops.silu``."""
    return _activated(x, "silu")


@kernel("relu", "cpu")
def relu(x: Tensor) -> Any:
    """See ``ops.relu``."""
    return _activated(x, "relu")


@kernel("glu", "cpu")
def glu(gate: Tensor, up: Tensor, activation: str = "silu") -> Any:
    """See ``ops.glu``."""
    if gate.storage.shape != up.storage.shape or up.storage.dtype != _FLOAT32 or activation not in ACTIVATIONS:
        return NotImplemented
    return _activated(gate, activation, up)
