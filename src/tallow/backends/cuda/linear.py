"""The affine map: a kernel of our own for a few rows, cuBLASLt for more."""

from __future__ import annotations

from typing import Any

import cupy

from tallow import dtypes
from tallow.backends.cuda import cublaslt, fp8, fusion
from tallow.backends.cuda.arrays import matrix_of
from tallow.backends.cuda.blocks import FEW as FEW_OF_BLOCKS
from tallow.backends.cuda.blocks import CudaBlocks, multiply
from tallow.backends.cuda.elementwise import ACTIVATIONS, finish, gated
from tallow.backends.cuda.fp8 import CudaFp8
from tallow.backends.cuda.kernels import NAMES, blocks_at_once, function, multiprocessors
from tallow.backends.cuda.matrix import CudaMatrix
from tallow.backends.cuda.tiles import HEIGHT
from tallow.matrix.weight import Weight
from tallow.ops.activation import check_activation
from tallow.ops.dispatch import kernel
from tallow.ops.linear import check_linear
from tallow.tensor import Tensor

FEW = 8
"""Rows up to which a product is bound by reading the weight."""

_CHUNK = 16 << 10  # bytes of a weight that a block asks for at a time; factors may add a quarter: see matvec.cu
_MANY_CHUNKS = 6
_LARGE = 32 << 20  # bytes of a weight
_OTHERS = 512  # bytes of shared memory that a block has besides, with few rows
_BFLOAT16 = dtypes.bfloat16.numpy


@kernel("linear", "cuda", defers=True)
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
    if matrix is None or not matrix.shape[1] or dtype not in NAMES:
        return NotImplemented
    if residual is not None and residual.storage.dtype != dtype:
        return NotImplemented
    check_linear(x.shape, matrix.shape, bias, scale, residual, activation)
    rows, count, distance = matrix_of(x.storage)
    out = cupy.empty((*x.shape[:-1], matrix.shape[0]), dtype)
    if not out.size:
        return Tensor(out, x.device)
    offset, factor = _vectors(bias, scale)
    added = None if residual is None else residual.storage
    if _matvec_fits(rows, count, distance, matrix):
        _matvec(out, rows, distance, matrix, offset, activation, factor, added)
    elif matrix.dtype == dtype:
        _gemm(out, rows, distance, matrix, offset, activation, factor, added)
    else:
        return NotImplemented
    return Tensor(out, x.device)


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
    check_linear(x.shape, blocks.shape, bias, scale, residual, activation)
    out = cupy.empty((*x.shape[:-1], blocks.shape[0]), dtype)
    added = None if residual is None else residual.storage
    multiply(out, rows, distance, blocks, *_vectors(bias, scale), ACTIVATIONS[activation], added)
    return Tensor(out, x.device)


def _eight_bits(
    x: Tensor, matrix: CudaFp8, bias: Tensor | None, activation: str | None, scale: Tensor | None, residual: Any
) -> Any:
    """As ``linear``: a few rows by a kernel that widens in registers, more by a product with x in E4M3 as well."""
    dtype = x.storage.dtype
    empty = not x.size or not matrix.shape[0]
    if dtype not in NAMES or empty or (residual is not None and residual.storage.dtype != dtype):
        return NotImplemented
    check_linear(x.shape, matrix.shape, bias, scale, residual, activation)
    rows, count, distance = matrix_of(x.storage)
    few = _matvec_fits(rows, count, distance, matrix)
    scaling = fp8.scaling(matrix, dtype) if _even(rows, distance) else None
    if not few and scaling is None:
        wide = Tensor(matrix.widened(dtype), x.device)
        return linear(x, wide, bias, activation=activation, scale=scale, residual=residual)
    offset, factor = _vectors(bias, scale)
    added = None if residual is None else residual.storage
    if few:
        out = cupy.empty((count, matrix.shape[0]), dtype)
        _matvec(out, rows, distance, matrix, offset, activation, factor, added)
    else:
        codes, scales = fp8.quantise(rows, count, matrix.shape[1], distance, grouped=scaling is cublaslt.BLOCKS)
        padded = cupy.empty((len(codes), matrix.shape[0]), dtype)
        out, scaled = padded[:count], (scaling, matrix.scales, scales)
        _gemm(out, codes, matrix.shape[1], matrix.codes, offset, activation, factor, added, padded, scaled)
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
    if bias is None and scale is None:
        return None, None
    given = [each.storage for each in (bias, scale) if each is not None]
    shared = given[0].dtype if given[0].dtype in NAMES and given[-1].dtype == given[0].dtype else cupy.float32
    offset, factor = (None if each is None else cupy.ascontiguousarray(each.storage, shared) for each in (bias, scale))
    return offset, factor


def _even(array: Any, distance: int) -> bool:
    """Whether all rows begin at multiples of 16 bytes."""
    return not (array.data.ptr % 16 or distance * array.itemsize % 16)


def _matvec_fits(x: Any, count: int, distance: int, matrix: Any) -> bool:
    """Whether ``_matvec`` takes so many rows of x, and a weight as it lies."""
    numbers = matrix.codes if isinstance(matrix, CudaFp8) else matrix
    return count <= FEW and _even(numbers, matrix.shape[1]) and _even(x, distance)


def _matvec(
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
    outputs, inputs = out.shape[-1], matrix.shape[1]
    rows = out.size // outputs
    if isinstance(matrix, CudaFp8):
        numbers, kind, factors, places = matrix.codes, "e4m3", matrix.scales, matrix.places
        scaled = 1 if places == (0, 1) else 2
    else:
        numbers, kind, factors, places, scaled = matrix, NAMES[matrix.dtype], 0, (0, 0), 0
    at_once = 1 << (rows - 1).bit_length()
    vector = bias if bias is not None else scale
    first = fusion.norm_before(x, residual) if distance == inputs else None
    norm, how, room = fusion.norm_arguments(first)
    added, _, added_distance = (0, 0, 0) if residual is None else matrix_of(residual)
    parts = [0 if each is None else each for each in (bias, scale)]
    sizes = (rows, outputs, inputs, distance, added_distance, ACTIVATIONS[activation])
    given = (out, x if first is None else first.x, numbers, *parts, added, *sizes)
    chunk = _CHUNK if scaled < 2 else _CHUNK + _CHUNK // 4
    warps, blocks, depth = _cut(rows, outputs, inputs * numbers.itemsize, chunk, room)
    third = "f32" if vector is None else NAMES[vector.dtype]
    run = function(
        "matvec", "matvec", X=NAMES[x.dtype], Y=kind, W=third, ROWS=at_once, WARPS=warps, GATED=int(gated),
        SCALED=scaled, NORM=norm, DEPTH=depth,
    )  # fmt: skip
    run((blocks,), (256,), (*given, factors, places[1], places[0], *how), depth * chunk + room)


def _cut(rows: int, outputs: int, nbytes: int, chunk: int, room: int) -> tuple[int, int, int]:
    """Warps that share a row of the weight, blocks of 8 warps, which take row after row, and chunks under way in each.

    Args:
        rows: of x.
        outputs: rows of the weight.
        nbytes: of one of them.
        chunk: bytes of a chunk.
        room: bytes for the norm that every block makes first; 0 for none.
    """
    warps = 1
    while warps < 8 and (nbytes > 4096 * warps or (outputs * warps < 4096 and nbytes >= 1024 * warps)):
        warps *= 2
    # Small weights are all on their way at once. Of large ones as much is, in fewer blocks if each makes a norm.
    each, depth = 4 if rows <= 2 else 2, 2
    if room and outputs * nbytes > _LARGE and blocks_at_once(_MANY_CHUNKS * chunk + room + _OTHERS) >= 2:
        each, depth = 2, _MANY_CHUNKS
    each = min(each, max(1, blocks_at_once(depth * chunk + room + _OTHERS)))
    return warps, min(-(-outputs * warps // 8), multiprocessors() * each), depth


@kernel("linear_glu", "cuda", defers=True)
def linear_glu(x: Tensor, weight: Weight | Tensor, activation: str = "silu") -> Any:
    """See ``ops.linear_glu``: of a few rows by one kernel, of more by a product and what follows it."""
    check_activation(activation)
    packed = weight.packed if type(weight) is Weight else None
    matrix: Any = packed if isinstance(packed, CudaBlocks | CudaFp8) else _matrix(weight)
    if matrix is None or x.storage.dtype not in NAMES or not x.size or not matrix.shape[0] or matrix.shape[0] % 2:
        return NotImplemented
    check_linear(x.shape, matrix.shape, None, None, None)
    rows, count, distance = matrix_of(x.storage)
    width = matrix.shape[0] // 2
    out = cupy.empty((*x.shape[:-1], width), x.storage.dtype)
    if isinstance(matrix, CudaBlocks) and count <= FEW_OF_BLOCKS and width % HEIGHT == 0:
        multiply(out, rows, distance, matrix, activation=ACTIVATIONS[activation], gated=True)
    elif not isinstance(matrix, CudaBlocks) and _matvec_fits(rows, count, distance, matrix):
        _matvec(out, rows, distance, matrix, activation=activation, gated=True)
    else:
        both = linear(x, weight)
        if both is NotImplemented:
            return NotImplemented
        gated(out, both.storage, both.storage[..., width:], 2 * width, 2 * width, activation)
    return Tensor(out, x.device)


def _gemm(
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
        if product.size != out.size or (scaled is not None and not _even(added, added_distance)):
            added, added_distance = None, 0
    name = "gelu_tanh" if activation == "gelu" and out.dtype == _BFLOAT16 else activation  # within its rounding
    fused = name if name in cublaslt.ACTIVATIONS and (bias is None or fused_bias) else None
    cublaslt.multiply(product, x, distance, matrix, bias if fused_bias else None, fused, added, added_distance, scaled)
    left_bias = None if fused_bias else bias
    left = None if fused is not None else activation
    left_residual = None if added is not None else residual
    if left_bias is not None or left is not None or scale is not None or left_residual is not None:
        finish(out, left_bias, left, scale, left_residual)
