"""The affine map: a kernel of our own for a few rows, cuBLASLt for more."""

from __future__ import annotations

from typing import Any

import cupy

from tallow import dtypes
from tallow.backends.cuda import cublaslt, fp8, fusion, program
from tallow.backends.cuda.arrays import matrix_of
from tallow.backends.cuda.blocks import FEW as FEW_OF_BLOCKS
from tallow.backends.cuda.blocks import CudaBlocks, multiply
from tallow.backends.cuda.elementwise import ACTIVATIONS, finish
from tallow.backends.cuda.fp8 import CudaFp8
from tallow.backends.cuda.kernels import NAMES, function
from tallow.backends.cuda.matrix import CudaMatrix
from tallow.backends.cuda.tiles import HEIGHT
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
    if type(weight) is Weight and isinstance(weight.packed, CudaFp8):
        return _eight_bits(x, weight.packed, bias, activation, scale, residual)
    matrix = _matrix(weight)
    dtype = x.storage.dtype
    if matrix is None or dtype not in NAMES or (residual is not None and residual.storage.dtype != dtype):
        return NotImplemented
    check_linear(x.shape, matrix.shape, bias, scale, residual)
    _check_activation(activation)
    rows, count, distance = matrix_of(x.storage)
    out = cupy.empty((count, matrix.shape[0]), dtype)
    if out.size and not matrix.shape[1]:
        return NotImplemented
    offset, factor = _vectors(bias, scale)
    added = None if residual is None else residual.storage
    if out.size:
        if distance == x.shape[-1] and program.linear(
            out, rows, matrix, offset, ACTIVATIONS[activation], factor, added
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


def _check_activation(activation: str | None) -> None:
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"no activation {activation!r}; there are 'gelu', 'gelu_tanh', 'silu' and 'relu'")


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
    _check_activation(activation)
    out = cupy.empty((count, blocks.shape[0]), dtype)
    added = None if residual is None else residual.storage
    vectors = _vectors(bias, scale)
    if distance == x.shape[-1] and program.linear(
        out, rows, blocks, vectors[0], ACTIVATIONS[activation], vectors[1], added
    ):
        return Tensor(out.reshape((*x.shape[:-1], blocks.shape[0])), x.device)
    multiply(out, rows, distance, blocks, *vectors, ACTIVATIONS[activation], added)
    return Tensor(out.reshape((*x.shape[:-1], blocks.shape[0])), x.device)


def _eight_bits(
    x: Tensor, matrix: CudaFp8, bias: Tensor | None, activation: str | None, scale: Tensor | None, residual: Any
) -> Any:
    """As ``linear``: a few rows by a kernel that widens in registers, more by a product with x in E4M3 as well."""
    dtype = x.storage.dtype
    empty = not x.size or not matrix.shape[0]
    if dtype not in NAMES or empty or (residual is not None and residual.storage.dtype != dtype):
        return NotImplemented
    check_linear(x.shape, matrix.shape, bias, scale, residual)
    _check_activation(activation)
    rows, count, distance = matrix_of(x.storage)
    few = count <= FEW and _even(matrix.codes, matrix.shape[1]) and _even(rows, distance)
    scaling = fp8.scaling(matrix, dtype) if _even(rows, distance) else None
    if not few and scaling is None:
        wide = Tensor(matrix.widened(dtype), x.device)
        return linear(x, wide, bias, activation=activation, scale=scale, residual=residual)
    offset, factor = _vectors(bias, scale)
    added = None if residual is None else residual.storage
    if few:
        out = cupy.empty((count, matrix.shape[0]), dtype)
        _few(out, rows, distance, matrix, offset, activation, factor, added)
    else:
        codes, scales = fp8.quantise(rows, count, matrix.shape[1], distance, grouped=scaling is cublaslt.BLOCKS)
        padded = cupy.empty((len(codes), matrix.shape[0]), dtype)
        out, scaled = padded[:count], (scaling, matrix.scales, scales)
        _many(out, codes, matrix.shape[1], matrix.codes, offset, activation, factor, added, padded, scaled)
    return Tensor(out.reshape((*x.shape[:-1], matrix.shape[0])), x.device)


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
    if isinstance(matrix, CudaFp8):
        numbers, kind, factors, places = matrix.codes, "e4m3", matrix.scales, matrix.places
        scaled = 1 if places == (0, 1) else 2
    else:
        numbers, kind, factors, places, scaled = matrix, NAMES[matrix.dtype], 0, (0, 0), 0
    at_once = 1 << (rows - 1).bit_length()
    warps = 1
    while warps < 8 and outputs * warps < _WARPS and inputs * numbers.itemsize >= 1024 * warps:
        warps *= 2
    # Of numbers that take longer to widen, chunks are half as long, and twice as many warps ask for them.
    turns = -(-outputs * warps // (2 * _WARPS if scaled else _WARPS))  # rows of each warp
    vector = bias if bias is not None else scale
    first = fusion.norm_before(x, residual) if distance == inputs else None
    norm, how, shared = fusion.norm_arguments(first)
    run = function(
        "matvec", "matvec", X=NAMES[x.dtype], Y=kind, W="f32" if vector is None else NAMES[vector.dtype],
        ROWS=at_once, WARPS=warps, GATED=int(gated), SCALED=scaled, NORM=norm,
    )  # fmt: skip
    added, _, added_distance = (0, 0, 0) if residual is None else matrix_of(residual)
    parts = [0 if each is None else each for each in (bias, scale)]
    sizes = (rows, outputs, inputs, distance, added_distance, ACTIVATIONS[activation])
    source = x if first is None else first.x
    given = (out, source, numbers, *parts, added, *sizes, factors, places[1], places[0], *how)
    run((-(-outputs * warps // (8 * turns)),), (256,), given, shared)


@kernel("linear_swiglu", "cuda")
def linear_swiglu(x: Tensor, weight: Weight | Tensor) -> Any:
    """See ``ops.linear_swiglu``."""
    packed = weight.packed if type(weight) is Weight else None
    matrix: Any = packed if isinstance(packed, CudaBlocks | CudaFp8) else _matrix(weight)
    if matrix is None or x.storage.dtype not in NAMES or not x.size or matrix.shape[0] % 2:
        return NotImplemented
    check_linear(x.shape, matrix.shape, None, None, None)
    rows, count, distance = matrix_of(x.storage)
    out = cupy.empty((count, matrix.shape[0] // 2), x.storage.dtype)
    if distance != x.shape[-1] or not program.linear(out, rows, matrix, None, 0, None, None, gated=True):
        if isinstance(matrix, CudaBlocks):
            if count > FEW_OF_BLOCKS or out.shape[1] % HEIGHT:
                return NotImplemented
            multiply(out, rows, distance, matrix, gated=True)
            return Tensor(out.reshape((*x.shape[:-1], out.shape[1])), x.device)
        if count > FEW:
            return NotImplemented
        numbers = matrix.codes if isinstance(matrix, CudaFp8) else matrix
        if not (_even(numbers, matrix.shape[1]) and _even(rows, distance)):
            return NotImplemented
        _few(out, rows, distance, matrix, gated=True)
    return Tensor(out.reshape((*x.shape[:-1], out.shape[1])), x.device)


def _many(
    out: Any,
    x: Any,
    distance: int,
    matrix: Any,
    bias: Any,
    activation: str | None,
    scale: Any,
    residual: Any,
    padded: Any = None,
    scaled: Any = None,
) -> None:
    """``padded``: what out is the beginning of, if the product has more rows; ``scaled``: see ``cublaslt.multiply``."""
    product = out if padded is None else padded
    plain = activation is None and scale is None
    fused_bias = bias is not None and bias.dtype == out.dtype
    added, added_distance = None, 0
    if plain and residual is not None and (bias is None or fused_bias):
        added, _, added_distance = matrix_of(residual)
        if len(product) != len(out) or (scaled is not None and not _even(added, added_distance)):
            added, added_distance = None, 0
    name = "gelu_tanh" if activation == "gelu" and out.dtype == _BFLOAT16 else activation  # within its rounding
    fused = name if name in cublaslt.ACTIVATIONS and (bias is None or fused_bias) else None
    cublaslt.multiply(product, x, distance, matrix, bias if fused_bias else None, fused, added, added_distance, scaled)
    left_bias = None if fused_bias else bias
    left = None if fused is not None else activation
    left_residual = None if added is not None else residual
    if left_bias is not None or left is not None or scale is not None or left_residual is not None:
        finish(out, left_bias, left, scale, left_residual)
