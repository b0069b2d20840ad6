"""The affine map: a kernel of our own for a few rows, cuBLASLt for more."""

from __future__ import annotations

from typing import Any

import cupy

from tallow import dtypes
from tallow.backends.cuda import cublaslt, program
from tallow.backends.cuda.blocks import FEW as FEW_OF_BLOCKS
from tallow.backends.cuda.blocks import CudaBlocks, multiply
from tallow.backends.cuda.elementwise import ACTIVATIONS, finish
from tallow.backends.cuda.kernels import NAMES, function, matrix_of
from tallow.backends.cuda.matrix import CudaMatrix
from tallow.errors import ArgumentError
from tallow.ops.dispatch import kernel
from tallow.ops.linear import check_linear
from tallow.tensor import Tensor
from tallow.weights.weight import Weight

FEW = 8
"""Rows up to which a product is bound by reading the weight."""

_WARPS = 2112  # that keep a card busy: 16 for each multiprocessor of a large one
_BFLOAT16 = dtypes.bfloat16.numpy


@kernel("linear", "cuda")
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
    if type(weight) is Weight and isinstance(weight.packed, CudaBlocks):
        return _quantised(x, weight.packed, bias, activation, scale, residual)
    matrix = _matrix(weight)
    dtype = x.storage.dtype
    if matrix is None or dtype not in NAMES or (residual is not None and residual.storage.dtype != dtype):
        return NotImplemented
    check_linear(x.shape, matrix.shape, bias, scale, residual)
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"no activation {activation!r}; there are 'gelu', 'gelu_tanh', 'silu' and 'relu'")
    rows, count, distance = matrix_of(x.storage)
    out = cupy.empty((count, matrix.shape[0]), dtype)
    if out.size and not matrix.shape[1]:
        return NotImplemented
    offset, factor = _vectors(bias, scale)
    added = None if residual is None else residual.storage
    if out.size:
        if distance == x.shape[-1] and program.linear(
            out, rows, matrix, offset, ACTIVATIONS[activation], factor, _as_rows(added, out)
        ):
            return Tensor(out.reshape((*x.shape[:-1], matrix.shape[0])), x.device)
        if count <= FEW and _even(matrix, matrix.shape[1]) and _even(rows, distance):
            _few(out, rows, distance, matrix, offset, activation, factor, added)
            return Tensor(out.reshape((*x.shape[:-1], matrix.shape[0])), x.device)
        if matrix.dtype == dtype:
            _many(out, rows, distance, matrix, offset, activation, factor, added)
        else:
            return NotImplemented
    return Tensor(out.reshape((*x.shape[:-1], matrix.shape[0])), x.device)


def _quantised(
    x: Tensor, blocks: CudaBlocks, bias: Tensor | None, activation: str | None, scale: Tensor | None, residual: Any
) -> Any:
    """As ``linear``: a few rows by a kernel that widens in registers, more by a product of the widened matrix."""
    dtype = x.storage.dtype
    if dtype not in NAMES or not x.size or (residual is not None and residual.storage.dtype != dtype):
        return NotImplemented
    rows, count, distance = matrix_of(x.storage)
    if count > FEW_OF_BLOCKS:
        wide = Tensor(blocks.widened(dtype), x.device)
        return linear(x, wide, bias, activation=activation, scale=scale, residual=residual)
    check_linear(x.shape, blocks.shape, bias, scale, residual)
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"no activation {activation!r}; there are 'gelu', 'gelu_tanh', 'silu' and 'relu'")
    out = cupy.empty((count, blocks.shape[0]), dtype)
    added = None if residual is None else residual.storage
    vectors = _vectors(bias, scale)
    if distance == x.shape[-1] and program.linear(
        out, rows, blocks, vectors[0], ACTIVATIONS[activation], vectors[1], _as_rows(added, out)
    ):
        return Tensor(out.reshape((*x.shape[:-1], blocks.shape[0])), x.device)
    multiply(out, rows, distance, blocks, *vectors, ACTIVATIONS[activation], added)
    return Tensor(out.reshape((*x.shape[:-1], blocks.shape[0])), x.device)


def _matrix(weight: Weight | Tensor) -> Any:
    """The array (out, in) without gaps; None for what no kernel here takes."""
    if type(weight) is Weight:
        array = weight.packed.array if isinstance(weight.packed, CudaMatrix) else None
    else:
        array = weight.storage
    if array is None or array.dtype not in NAMES or array.ndim != 2:
        return None
    return cupy.ascontiguousarray(array)


def _vectors(bias: Tensor | None, scale: Tensor | None) -> tuple[Any, Any]:
    """Bias and scale as arrays of one type that kernels take."""
    given = [each.storage for each in (bias, scale) if each is not None]
    if not given:
        return None, None
    shared = given[0].dtype if given[0].dtype in NAMES and given[-1].dtype == given[0].dtype else cupy.float32
    offset, factor = (None if each is None else cupy.ascontiguousarray(each.storage, shared) for each in (bias, scale))
    return offset, factor


def _as_rows(residual: Any, out: Any) -> Any:
    """A residual of out's size in out's shape, or None."""
    return None if residual is None else residual.reshape(out.shape) if residual.flags.c_contiguous else residual


def _even(array: Any, distance: int) -> bool:
    """Whether all rows begin at multiples of 16 bytes."""
    return not (array.data.ptr % 16 or distance * array.itemsize % 16)


def _few(
    out: Any,
    x: Any,
    distance: int,
    matrix: Any,
    bias: Any = None,
    activation: str | None = None,
    scale: Any = None,
    residual: Any = None,
    gated: bool = False,
) -> None:
    (rows, outputs), inputs = out.shape, matrix.shape[1]
    at_once = 1 << (rows - 1).bit_length()
    warps = 1
    while warps < 8 and outputs * warps < _WARPS and inputs * matrix.itemsize >= 1024 * warps:
        warps *= 2
    turns = -(-outputs * warps // _WARPS)  # rows of each warp
    vector = bias if bias is not None else scale
    run = function(
        "matvec", "matvec", X=NAMES[x.dtype], Y=NAMES[matrix.dtype],
        W="f32" if vector is None else NAMES[vector.dtype], ROWS=at_once, WARPS=warps, GATED=int(gated),
    )  # fmt: skip
    added, _, added_distance = (0, 0, 0) if residual is None else matrix_of(residual)
    parts = [0 if each is None else each for each in (bias, scale)]
    sizes = (rows, outputs, inputs, distance, added_distance, ACTIVATIONS[activation])
    run((-(-outputs * warps // (8 * turns)),), (256,), (out, x, matrix, *parts, added, *sizes))


@kernel("linear_swiglu", "cuda")
def linear_swiglu(x: Tensor, weight: Weight | Tensor) -> Any:
    """See ``ops.linear_swiglu``."""
    if x.storage.dtype not in NAMES or not x.size:
        return NotImplemented
    if type(weight) is Weight and isinstance(weight.packed, CudaBlocks):
        matrix: Any = weight.packed
    else:
        matrix = _matrix(weight)
    if matrix is None or matrix.shape[0] % 2:
        return NotImplemented
    check_linear(x.shape, matrix.shape, None, None, None)
    rows, count, distance = matrix_of(x.storage)
    out = cupy.empty((count, matrix.shape[0] // 2), x.storage.dtype)
    if distance != x.shape[-1] or not program.linear(out, rows, matrix, None, 0, None, None, gated=True):
        if isinstance(matrix, CudaBlocks) or count > FEW:
            return NotImplemented
        if not (_even(matrix, matrix.shape[1]) and _even(rows, distance)):
            return NotImplemented
        _few(out, rows, distance, matrix, gated=True)
    return Tensor(out.reshape((*x.shape[:-1], out.shape[1])), x.device)


def _many(
    out: Any, x: Any, distance: int, matrix: Any, bias: Any, activation: str | None, scale: Any, residual: Any
) -> None:
    plain = activation is None and scale is None
    fused_bias = bias is not None and bias.dtype == out.dtype
    added, added_distance = None, 0
    if plain and residual is not None and (bias is None or fused_bias):
        added, _, added_distance = matrix_of(residual)
    name = "gelu_tanh" if activation == "gelu" and out.dtype == _BFLOAT16 else activation  # within its rounding
    fused = name if name in cublaslt.ACTIVATIONS and (bias is None or fused_bias) else None
    cublaslt.multiply(out, x, distance, matrix, bias if fused_bias else None, fused, added, added_distance)
    left_bias = None if fused_bias else bias
    left = None if fused is not None else activation
    left_residual = None if added is not None else residual
    if left_bias is not None or left is not None or scale is not None or left_residual is not None:
        finish(out, left_bias, left, scale, left_residual)
