"""Layer norm and RMS norm."""

from __future__ import annotations

import functools
from typing import Any

import cupy

from tallow.backends.cuda import fusion, graph
from tallow.backends.cuda.arrays import rows_of, vector
from tallow.backends.cuda.kernels import NAMES, function
from tallow.ops.dispatch import kernel
from tallow.ops.norm import check_norm
from tallow.tensor import Tensor

_MAX_NUMBERS = 64  # that a thread keeps in registers
_MAX_OF_A_WARP = 40  # numbers of a thread up to which one warp does a row faster than several
_ENOUGH_WARPS = 2112  # to keep a card busy: 16 for each multiprocessor of a large one


@kernel("rms_norm", "cuda", defers=True)
def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Any:
    """See ``ops.rms_norm``."""
    check_norm("rms_norm", x, weight)
    return _normalised("rms_norm", x, (weight.storage,), eps)


@kernel("layer_norm", "cuda", defers=True)
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Any:
    """See ``ops.layer_norm``."""
    check_norm("layer_norm", x, weight, bias)
    if weight.storage.dtype != bias.storage.dtype:
        return NotImplemented
    return _normalised("layer_norm", x, (weight.storage, bias.storage), eps)


def _normalised(name: str, x: Tensor, parameters: tuple[Any, ...], eps: float) -> Any:
    array = x.storage
    if array.dtype not in NAMES or parameters[0].dtype not in NAMES:
        return NotImplemented
    width = array.shape[-1]
    out = cupy.empty(array.shape, array.dtype)
    if not out.size:
        return Tensor(out, x.device)
    given = [cupy.ascontiguousarray(parameter) for parameter in parameters]
    array, rows, inner, outer_stride, inner_stride = rows_of(array)
    size = vector(array, *given, width=width)
    vectors = width // size
    threads = 1 << (vectors - 1).bit_length() if vectors <= 32 else 128 if vectors <= 512 else 512
    if rows >= _ENOUGH_WARPS and vectors * size <= 32 * _MAX_OF_A_WARP:
        threads = min(threads, 32)  # a row is a warp's, which waits for no other
    count = -(-vectors // threads)
    if count * size > _MAX_NUMBERS or rows >= 1 << 32:
        return NotImplemented

    run = function("norm", name, T=NAMES[array.dtype], W=NAMES[given[0].dtype], ROW=threads, VECTOR=size, COUNT=count)
    block = threads if threads > 32 else 128
    arguments = (out, array, *given, rows, width, inner, outer_stride, inner_stride, float(eps))
    launch = functools.partial(run, (-(-rows * threads // block),), (block,), arguments)
    shift = given[1] if len(given) > 1 else None
    if not graph.recording() or not fusion.defer(fusion.Norm(out, array, given[0], shift, eps, launch)):
        launch()
    return Tensor(out, x.device)
