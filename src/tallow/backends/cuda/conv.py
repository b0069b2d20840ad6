"""Convolutions: patches laid out as rows, and one large product."""

from __future__ import annotations

from typing import Any

import cupy

from tallow.backends.cuda.copy import copy_into, gapless
from tallow.backends.cuda.kernels import NAMES
from tallow.backends.cuda.linear import linear
from tallow.backends.cuda.matrix import CudaMatrix
from tallow.matrix.weight import Weight
from tallow.ops.conv import Pair, check_conv, pair
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor


@kernel("conv1d", "cuda")
def conv1d(
    x: Tensor,
    weight: Tensor | Weight,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Any:
    """See ``ops.conv1d``. The result's memory has channels last."""
    check_conv("conv1d", x.shape, weight.shape, bias, (stride,), (padding,), (dilation,), groups, activation)
    y = _convolved(x.storage[:, :, None], weight, bias, x, (1, stride), (0, padding), (1, dilation), groups, activation)
    return y if y is NotImplemented else Tensor(y.storage[:, :, 0], x.device)


@kernel("conv2d", "cuda")
def conv2d(
    x: Tensor,
    weight: Tensor | Weight,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Any:
    """See ``ops.conv2d``. The result's memory has channels last."""
    steps, around, apart = pair(stride), pair(padding), pair(dilation)
    check_conv("conv2d", x.shape, weight.shape, bias, steps, around, apart, groups, activation)
    return _convolved(x.storage, weight, bias, x, steps, around, apart, groups, activation)


def _convolved(
    array: Any,
    weight: Tensor | Weight,
    bias: Tensor | None,
    x: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    activation: str | None,
) -> Any:
    """An array (b, in, h, w) convolved: (b, out, h', w'), a view of memory with channels last."""
    if type(weight) is Weight:
        matrix = weight.packed.array if isinstance(weight.packed, CudaMatrix) else None
    else:
        matrix = weight.storage
    if groups != 1 or matrix is None or matrix.dtype != array.dtype or array.dtype not in NAMES or not array.size:
        return NotImplemented
    b, inner, high, wide = array.shape
    kh, kw = (1, *weight.shape[2:])[-2:]
    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // step + 1
        for size, p, d, k, step in zip((high, wide), padding, dilation, (kh, kw), stride, strict=True)
    ]
    if any(padding):
        (up, side), inside = padding, array
        array = cupy.zeros((b, inner, high + 2 * up, wide + 2 * side), array.dtype)
        copy_into(array[:, :, up : up + high, side : side + wide], inside)
    sb, sc, sh, sw = array.strides
    patches = cupy.lib.stride_tricks.as_strided(
        array, (b, *sizes, inner, kh, kw),
        (sb, sh * stride[0], sw * stride[1], sc, sh * dilation[0], sw * dilation[1]),
    )  # fmt: skip
    rows = gapless(patches).reshape(-1, inner * kh * kw)
    flat = Tensor(cupy.ascontiguousarray(matrix).reshape(weight.shape[0], -1), x.device)
    y = linear(Tensor(rows, x.device), flat, bias, activation=activation)
    return y if y is NotImplemented else Tensor(y.storage.reshape(b, *sizes, -1).transpose(0, 3, 1, 2), x.device)
