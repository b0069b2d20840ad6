"""Convolutions as products: with channels last, a window of the input is a row, and windows overlap in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.linear import ACTIVATIONS, vector_of
from tallow.backends.cpu.memory import contiguous, empty
from tallow.backends.cpu.packing import PackedMatrix, pack
from tallow.matrix.weight import Weight
from tallow.ops.conv import Pair, check_conv, pair
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]


@kernel("conv1d", "cpu")
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
    """See ``ops.conv1d``. The result's memory has channels last, as the next convolution or a Transformer wants it."""
    check_conv("conv1d", x.shape, weight.shape, bias, (stride,), (padding,), (dilation,), groups, activation)
    packed = _packed(x, weight, groups)
    if packed is None:
        return NotImplemented
    image = x.storage[:, :, None]
    return Tensor(_product(image, packed, bias, (1, stride), (0, padding), (1, dilation), activation)[:, :, 0])


@kernel("conv2d", "cpu")
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
    geometry = pair(stride), pair(padding), pair(dilation)
    check_conv("conv2d", x.shape, weight.shape, bias, *geometry, groups, activation)
    if groups > 1 and groups == x.shape[1] == weight.shape[0] and isinstance(weight, Tensor) and activation is None:
        return _depthwise(x, weight, bias, *geometry)
    packed = _packed(x, weight, groups)
    if packed is None:
        return NotImplemented
    return Tensor(_product(x.storage, packed, bias, *geometry, activation))


def _depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Any:
    """Each channel convolved with a kernel of its own."""
    if x.storage.dtype != np.float32 or weight.storage.dtype != np.float32:
        return NotImplemented
    channels, _, *kernel_size = weight.shape
    sizes = check_conv("conv2d", x.shape, weight.shape, None, stride, padding, dilation, channels)
    y = empty((x.shape[0], *sizes, channels))
    taps = contiguous(weight.storage.reshape(channels, -1).T)
    shift = None if bias is None else vector_of(bias)
    _cpu.depthwise(y, _channels_last(x.storage), taps, shift, tuple(kernel_size), stride, padding, dilation)
    return Tensor(y.transpose(0, 3, 1, 2))


def _packed(x: Tensor, weight: Tensor | Weight, groups: int) -> PackedMatrix | None:
    """The kernel as a packed matrix, packed for this one call if it is a Tensor; None where the reference is to run."""
    if x.storage.dtype != np.float32 or groups != 1:
        return None
    if isinstance(weight, Weight):
        return weight.packed if isinstance(weight.packed, PackedMatrix) else None
    if weight.storage.dtype != np.float32:
        return None
    packed = pack(weight.storage, "float32")
    return packed if isinstance(packed, PackedMatrix) else None


def _product(
    x: Array,
    packed: PackedMatrix,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    activation: str | None,
) -> Array:
    """x (b, c, h, w) convolved: (b, out, h', w'), a view of memory with channels last."""
    shape = packed.shape if len(packed.shape) == 4 else (*packed.shape[:2], 1, packed.shape[2])
    out, kernel_size = shape[0], (shape[2], shape[3])
    sizes = check_conv("conv", x.shape, shape, None, stride, padding, dilation, 1)
    y = empty((x.shape[0], *sizes, out))
    shift = None if bias is None else vector_of(bias)
    _cpu.conv(
        y, _channels_last(x), packed.native, shift, ACTIVATIONS[activation], kernel_size, stride, padding, dilation
    )
    return y.transpose(0, 3, 1, 2)


def _channels_last(x: Array) -> Array:
    """x (b, c, h, w) as (b, h, w, c) with channels side by side: a view where they are so, else a copy."""
    if (x.strides[1] == 4 or x.shape[1] == 1) and x.flags.aligned:
        return x.transpose(0, 2, 3, 1)
    if not x.flags.aligned:
        x = x.copy()
    b, c, h, w = x.shape
    turned = empty((b, h, w, c))
    _cpu.channels_last(turned, x)
    return turned
