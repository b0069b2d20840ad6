"""Activations, SwiGLU, rows of tables."""

from __future__ import annotations

from typing import Any

import cupy

from tallow.backends.cuda.arrays import matrix_of, vector
from tallow.backends.cuda.blocks import CudaBlocks
from tallow.backends.cuda.fp8 import CudaFp8
from tallow.backends.cuda.kernels import NAMES, function
from tallow.backends.cuda.matrix import CudaMatrix
from tallow.errors import ArgumentError
from tallow.matrix.weight import Weight
from tallow.ops.activation import check_activation
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor

ACTIVATIONS = {None: 0, "gelu": 1, "gelu_tanh": 2, "silu": 3, "relu": 4}
THREADS = 256


def finish(out: Any, bias: Any, activation: str | None, scale: Any, residual: Any) -> None:
    """What follows a product, in place: ``activation(out + bias) · scale + residual``.

    Args:
        out: (…, width), without gaps.
        bias: (width,) or None.
        activation: one of ``ACTIVATIONS``.
        scale: (width,), of bias' type, or None.
        residual: (rows, width), of out's type, or None.
    """
    given = bias if bias is not None else scale
    distance, width = 0, out.shape[-1]
    if residual is not None:
        residual, _, distance = matrix_of(residual)
    beside = [part for part in (bias, scale, residual) if part is not None]
    size = _vector(out, *beside, width=width) if distance * out.itemsize % 16 == 0 else 1
    run = function("elementwise", "finish", T=NAMES[out.dtype], W="f32" if given is None else NAMES[given.dtype],
                   VECTOR=size)  # fmt: skip
    parts = [0 if part is None else part for part in (bias, scale, residual)]
    vectors = out.size // size
    arguments = (out, out, *parts, vectors, width, distance, ACTIVATIONS[activation])
    run((-(-vectors // THREADS),), (THREADS,), arguments)


def _vector(*arrays: Any, width: int) -> int:
    """As ``vector``; 1 where there are too many to be counted in 32 bits."""
    size = vector(*arrays, width=width)
    return size if arrays[0].size // size < 1 << 32 else 1


def _activated(x: Tensor, name: str) -> Any:
    if x.storage.dtype not in NAMES:
        return NotImplemented
    out = x.storage.copy(order="C")
    if out.size:
        finish(out.reshape(1, -1), None, name, None, None)
    return Tensor(out, x.device)


@kernel("gelu", "cuda")
def gelu(x: Tensor, approximate: str = "none") -> Any:
    """See ``ops.gelu``."""
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    return _activated(x, "gelu_tanh" if approximate == "tanh" else "gelu")


@kernel("silu", "cuda")
def silu(x: Tensor) -> Any:
    """See ``ops.silu``."""
    return _activated(x, "silu")


@kernel("glu", "cuda")
def glu(gate: Tensor, up: Tensor, activation: str = "silu") -> Any:
    """See ``ops.glu``."""
    check_activation(activation)
    dtype = gate.storage.dtype
    if dtype not in NAMES or up.storage.dtype != dtype or gate.shape != up.shape or not gate.ndim:
        return NotImplemented
    out = cupy.empty(gate.shape, dtype)
    if out.size:
        (first, _, first_distance), (second, _, second_distance) = matrix_of(gate.storage), matrix_of(up.storage)
        gated(out, first, second, first_distance, second_distance, activation)
    return Tensor(out, gate.device)


def gated(out: Any, gate: Any, up: Any, gate_distance: int, up_distance: int, activation: str) -> None:
    """``out = activation(gate) · up``.

    Args:
        out: (…, width), without gaps.
        gate: as many rows of width, of out's type.
        up: likewise.
        gate_distance: elements from one row of gate to the next.
        up_distance: likewise of up.
        activation: of the gates.
    """
    width = out.shape[-1]
    even = (gate_distance | up_distance) * out.itemsize % 16 == 0 and not (gate.data.ptr | up.data.ptr) % 16
    size = _vector(out, width=width) if even else 1
    run = function("elementwise", "glu", T=NAMES[out.dtype], W="f32", VECTOR=size)
    vectors = out.size // size
    arguments = (out, gate, up, vectors, width, gate_distance, up_distance, ACTIVATIONS[activation])
    run((-(-vectors // THREADS),), (THREADS,), arguments)


@kernel("embedding", "cuda")
def embedding(ids: Tensor, weight: Weight | Tensor) -> Any:
    """See ``ops.embedding``, but for numbers outside the table, which give rows of NaN: they are not waited for.

    The result has the type that the table is stored in.
    """
    if type(weight) is Weight and isinstance(weight.packed, (CudaBlocks, CudaFp8)) and ids.storage.dtype.kind in "iu":
        return Tensor(weight.packed.widened(weight.packed.dtype, ids.storage), ids.device)
    if type(weight) is Weight:
        table = weight.packed.array if isinstance(weight.packed, CudaMatrix) else None
    else:
        table = weight.storage
    if table is None or table.ndim != 2 or table.dtype not in NAMES or ids.storage.dtype.kind not in "iu":
        return NotImplemented
    table = cupy.ascontiguousarray(table)
    vocab, width = table.shape
    numbers = cupy.ascontiguousarray(ids.storage, cupy.int64)
    out = cupy.empty((*ids.shape, width), table.dtype)
    if out.size:
        run = function("elementwise", "gather_rows", T=NAMES[table.dtype], W=NAMES[table.dtype], VECTOR=1)
        run((numbers.size,), (min(THREADS, -(-width // 32) * 32),), (out, table, numbers, vocab, width))
    return Tensor(out, ids.device)


@kernel("take", "cuda")
def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Any:
    """See ``ops.take``, but for numbers outside the axis, as in ``embedding``; rows of (b, m, width) alone."""
    array, numbers = x.storage, indices.storage
    if array.dtype not in NAMES or array.ndim != 3 or axis not in (1, -2) or numbers.dtype.kind not in "iu":
        return NotImplemented
    array, numbers = cupy.ascontiguousarray(array), cupy.ascontiguousarray(numbers, cupy.int64)
    (b, m, width), count = array.shape, numbers.size
    if not array.size or not count or b * count >= 1 << 32:
        return NotImplemented
    out = cupy.empty((b, *numbers.shape, width), array.dtype)
    size = _vector(out, array, width=width)
    run = function("elementwise", "take_rows", T=NAMES[array.dtype], W="f32", VECTOR=size)
    vectors = out.size // size
    run((-(-vectors // THREADS),), (THREADS,), (out, array, numbers, vectors, width, count, m))
    return Tensor(out, x.device)
