"""Numbers laid out in another way: joined, without gaps, or as a convolution wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy

from tallow.backends.cuda import graph
from tallow.backends.cuda.kernels import function
from tallow.ops.dispatch import kernel
from tallow.ops.operands import same_device
from tallow.tensor import Tensor

_VECTORS = {16: "uint4", 8: "uint2", 4: "u32", 2: "u16", 1: "u8"}
_MAX_AXES = 6
_THREADS = 256
_MAX_BLOCKS = 2112  # 16 for each multiprocessor of a large card


def copy_into(to: Any, source: Any) -> None:
    """``to[...] = source`` for arrays of one shape and type that share no memory."""
    graph.flush()
    if not to.size:
        return
    axes = _axes(to, source)
    addresses = [to.data.ptr, source.data.ptr]
    size = next(v for v in _VECTORS if not any(number % v for number in (*addresses, *_lengths(axes))))
    vectors = to.nbytes // size
    if len(axes) > _MAX_AXES or vectors >= 1 << 31:
        to[...] = source
        return
    axes = [(count, a // size, b // size) for count, a, b in axes[:-1]] + [(axes[-1][0] // size, 1, 1)]
    run = function("copy", "copy", V=_VECTORS[size], AXES=len(axes))
    columns = [value for column in zip(*axes, strict=True) for value in column]
    run((min(-(-vectors // _THREADS), _MAX_BLOCKS),), (_THREADS,), (to, source, vectors, *columns))


@kernel("concat", "cuda")
def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Any:
    """See ``ops.concat``. Of several types, or flattened, it is the reference's."""
    device = same_device("concat", arrays)
    parts = [x.storage for x in arrays]
    first = parts[0].shape if parts else ()
    if axis is None or not -len(first) <= axis < len(first) or len({(part.dtype, part.ndim) for part in parts}) > 1:
        return NotImplemented
    axis %= len(first)
    if any(part.shape[:axis] + part.shape[axis + 1 :] != first[:axis] + first[axis + 1 :] for part in parts):
        return NotImplemented
    out = cupy.empty((*first[:axis], sum(part.shape[axis] for part in parts), *first[axis + 1 :]), parts[0].dtype)
    begin = 0
    for part in parts:
        copy_into(out[(slice(None),) * axis + (slice(begin, begin + part.shape[axis]),)], part)
        begin += part.shape[axis]
    return Tensor(out, device)


@kernel("copy", "cuda")
def copy(x: Tensor, /) -> Tensor:
    """See ``ops.copy``."""
    return Tensor(copied(x.storage), x.device)


@kernel("contiguous", "cuda")
def contiguous(x: Tensor, /) -> Tensor:
    """See ``ops.contiguous``."""
    return x if x.storage.flags.c_contiguous else Tensor(gapless(x.storage), x.device)


def gapless(array: Any) -> Any:
    """The array, or a copy of it, without gaps."""
    return array if array.flags.c_contiguous else copied(array)


def copied(array: Any) -> Any:
    """A copy without gaps, whose memory begins at a multiple of 256 bytes."""
    out = cupy.empty(array.shape, array.dtype)
    copy_into(out, array)
    return out


def _axes(to: Any, source: Any) -> list[tuple[int, int, int]]:
    """Sizes and strides (of the source, of the target) in bytes, the last axis being bytes; neighbours united."""
    all_axes = zip(to.shape, source.strides, to.strides, strict=True)
    axes: list[tuple[int, int, int]] = []
    for count, a, b in [*(axis for axis in all_axes if axis[0] > 1), (to.itemsize, 1, 1)]:
        if axes and axes[-1][1:] == (count * a, count * b):
            axes[-1] = (axes[-1][0] * count, a, b)
        else:
            axes.append((count, a, b))
    return axes


def _lengths(axes: list[tuple[int, int, int]]) -> list[int]:
    """Of what can be copied at a time only as a whole: the run of bytes, and the distances between such."""
    return [axes[-1][0], *(stride for _, a, b in axes[:-1] for stride in (a, b))]
