"""Layer norm and RMS norm."""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy

from tallow.backends.cuda import graph
from tallow.backends.cuda.kernels import NAMES, function, rows_of, vector
from tallow.ops.dispatch import kernel
from tallow.ops.norm import check_norm
from tallow.tensor import Tensor

_MOST_NUMBERS = 64  # that a thread keeps in registers


class Normalised(NamedTuple):
    """An RMS norm in a recording that has not been launched: the product that reads it may do its work.

    Attributes:
        out: the result, without gaps.
        x: rows of numbers.
        rows: how many.
        distance: elements from one to the next.
        gain: the norm's weight.
        eps: its eps.
    """

    out: Any
    x: Any
    rows: int
    distance: int
    gain: Any
    eps: float


@kernel("rms_norm", "cuda")
def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Any:
    """See ``ops.rms_norm``."""
    check_norm("rms_norm", x, weight)
    return _normalised("rms_norm", x, (weight.storage,), eps)


@kernel("layer_norm", "cuda")
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
    size = vector(array, out, *given, width=width)
    vectors = width // size
    threads = next((n for n in (1, 2, 4, 8, 16, 32) if n >= vectors), 128 if vectors <= 512 else 512)
    count = -(-vectors // threads)
    if count * size > _MOST_NUMBERS or rows >= 1 << 32:
        return NotImplemented

    def launch() -> None:
        run = function(
            "norm", name, T=NAMES[array.dtype], W=NAMES[given[0].dtype], ROW=threads, VECTOR=size, COUNT=count
        )
        block = max(threads, 128)
        arguments = (out, array, *given, rows, width, inner, outer_stride, inner_stride, eps)
        run((-(-rows * threads // block),), (block if threads <= 32 else threads,), arguments)

    if name == "rms_norm" and size > 1 and outer_stride == inner_stride * inner and graph.recording():
        graph.put_off(launch, Normalised(out, array, rows, inner_stride if rows > 1 else width, given[0], eps))
    else:
        launch()
    return Tensor(out, x.device)
