"""Activations, SwiGLU, rows of tables, rotary embeddings."""

from __future__ import annotations

from typing import Any

import cupy

from tallow.backends.cuda.kernels import NAMES, adjacent, function, matrix_of, strides
from tallow.backends.cuda.matrix import CudaMatrix
from tallow.errors import ArgumentError
from tallow.ops.dispatch import kernel
from tallow.ops.rope import check_rope
from tallow.tensor import Tensor
from tallow.weights.weight import Weight

ACTIVATIONS = {None: 0, "gelu": 1, "gelu_tanh": 2, "silu": 3, "relu": 4}
THREADS = 256


def finish(out: Any, bias: Any, activation: str | None, scale: Any, residual: Any) -> None:
    """What follows a product, in place: ``activation(out + bias) · scale + residual``.

    Args:
        out: (rows, width), without gaps.
        bias: (width,) or None.
        activation: one of ``ACTIVATIONS``.
        scale: (width,), of bias' type, or None.
        residual: (rows, width), of out's type, or None.
    """
    vector = bias if bias is not None else scale
    run = function("elementwise", "finish", T=NAMES[out.dtype], W="f32" if vector is None else NAMES[vector.dtype])
    given = [0 if part is None else part for part in (bias, scale)]
    residual, _, distance = (0, 0, 0) if residual is None else matrix_of(residual)
    width = out.shape[-1]
    arguments = (out, out, *given, residual, out.size, width, distance, ACTIVATIONS[activation])
    run((-(-out.size // THREADS),), (THREADS,), arguments)


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


@kernel("swiglu", "cuda")
def swiglu(gate: Tensor, up: Tensor) -> Any:
    """See ``ops.swiglu``."""
    dtype = gate.storage.dtype
    if dtype not in NAMES or up.storage.dtype != dtype or gate.shape != up.shape or not gate.ndim:
        return NotImplemented
    out = cupy.empty(gate.shape, dtype)
    if out.size:
        first, _, first_distance = matrix_of(gate.storage)
        second, _, second_distance = matrix_of(up.storage)
        run = function("elementwise", "swiglu", T=NAMES[dtype], W="f32")
        arguments = (out, first, second, out.size, out.shape[-1], first_distance, second_distance)
        run((-(-out.size // THREADS),), (THREADS,), arguments)
    return Tensor(out, gate.device)


@kernel("embedding", "cuda")
def embedding(ids: Tensor, weight: Weight | Tensor) -> Any:
    """See ``ops.embedding``, but for numbers outside the table, which give rows of NaN: they are not waited for.

    The result has the type that the table is stored in.
    """
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
        run = function("elementwise", "gather_rows", T=NAMES[table.dtype], W=NAMES[table.dtype])
        run((numbers.size,), (min(THREADS, -(-width // 32) * 32),), (out, table, numbers, vocab, width))
    return Tensor(out, ids.device)


@kernel("rope", "cuda")
def rope(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Any:
    """See ``ops.rope``."""
    check_rope(x, cos, sin)
    if x.storage.dtype not in NAMES or not x.size:
        return NotImplemented
    array = adjacent(x.storage)
    cosines, sines = (cupy.ascontiguousarray(angle.storage, cupy.float32) for angle in (cos, sin))
    b, n, heads, d = array.shape
    out = cupy.empty(array.shape, array.dtype)
    shared = 0 if cosines.shape[0] == 1 else n * d // 2
    arguments = (out, array, cosines, sines, n, heads, d, *strides(array)[:3], shared, int(interleaved))
    run = function("elementwise", "rope", T=NAMES[array.dtype], W="f32")
    run((b * n,), (min(THREADS, -(-heads * d // 64) * 32),), arguments)
    return Tensor(out, x.device)
