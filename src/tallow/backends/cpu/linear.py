"""The affine map and embedding tables, on packed weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.memory import contiguous, empty, matrix
from tallow.backends.cpu.packing import PackedMatrix
from tallow.errors import BoundsError
from tallow.matrix.weight import Weight
from tallow.ops.dispatch import kernel
from tallow.ops.linear import check_linear
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]

ACTIVATIONS = {None: 0, "gelu": 1, "gelu_tanh": 2, "silu": 3, "relu": 4}
_FLOAT32 = np.dtype(np.float32)


def rows_of(storage: Array) -> Array:
    """An array as a float32 matrix of its last axis with adjacent columns, copied only where that isn't so."""
    storage = matrix(storage)
    if storage.dtype is not _FLOAT32 or storage.strides[1] != 4 or not storage.flags.aligned:
        return contiguous(storage)
    return storage


def vector_of(tensor: Tensor) -> Array:
    """A one-dimensional float32 array with adjacent elements."""
    return contiguous(tensor.storage)


@kernel("linear", "cpu")
def linear(
    x: Tensor,
    weight: Weight | Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
) -> Any:
    """See ``ops.linear``."""
    if type(weight) is not Weight or type(weight.packed) is not PackedMatrix or x.storage.dtype != _FLOAT32:
        return NotImplemented
    packed = weight.packed
    shape = x.storage.shape
    check_linear(shape, packed.shape, bias, scale, residual, activation)
    rows = rows_of(x.storage)
    out = empty((rows.shape[0], packed.shape[0]))
    _cpu.linear(
        out,
        rows,
        packed.native,
        None if bias is None else vector_of(bias),
        ACTIVATIONS[activation],
        None if residual is None else rows_of(residual.storage),
        None if scale is None else vector_of(scale),
    )
    return Tensor(out if len(shape) == 2 else out.reshape((*shape[:-1], packed.shape[0])))


@kernel("embedding", "cpu")
def embedding(ids: Tensor, weight: Weight | Tensor) -> Any:
    """See ``ops.embedding``."""
    if ids.storage.dtype.kind not in "iu":
        return NotImplemented
    if isinstance(weight, Weight):
        return weight.rows(ids)
    table = weight.storage
    if table.ndim != 2 or table.dtype != _FLOAT32 or table.strides[1] != 4 or not table.flags.aligned:
        return NotImplemented
    out = empty((*ids.shape, table.shape[1]))
    try:
        _cpu.gather_rows(out, table, contiguous(ids.storage, np.int64))
    except IndexError as error:
        raise BoundsError(f"embedding: {error} in a table of {table.shape[0]} rows") from None
    return Tensor(out)
