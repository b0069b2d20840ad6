"""Convolutions (cross-correlations, as everywhere in the field)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallow.errors import ShapeError
from tallow.ops.activation import activate, check_activation
from tallow.ops.dispatch import operation
from tallow.ops.precision import rounded, widened
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from tallow.matrix.weight import Weight

Pair = int | tuple[int, int]


@operation
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
) -> Tensor:
    """Convolve sequences.

    Args:
        x: (b, in, n), floating point.
        weight: (out, in / groups, k).
        bias: (out,), or None.
        stride: steps between outputs.
        padding: zeros on each side.
        dilation: steps between taps.
        groups: blocks of channels that don't mix.
        activation: as in ``linear``.

    Returns:
        (b, out, n'), n' = (n + 2·padding − dilation·(k − 1) − 1) // stride + 1, the dtype of x.

    Raises:
        ShapeError: if the shapes do not fit, or the kernel is longer than the padded sequence.
        ArgumentError: for an activation that there is not.

    Examples:
        >>> x = tl.asarray([[[1.0, 2.0, 3.0, 4.0]]])  # one sequence, one channel
        >>> difference = tl.asarray([[[-1.0, 1.0]]])
        >>> tl.ops.conv1d(x, difference).tolist()
        [[[1.0, 1.0, 1.0]]]
        >>> tl.ops.conv1d(x, difference, stride=2, padding=1).tolist()
        [[[1.0, 1.0, -4.0]]]
    """
    check_conv("conv1d", x.shape, weight.shape, bias, (stride,), (padding,), (dilation,), groups, activation)
    out, inner, k = weight.shape
    matrix = (weight if isinstance(weight, Tensor) else weight.dequantize()).reshape((out, inner, 1, k))
    y = conv2d(
        x.unsqueeze(2), matrix, bias, stride=(1, stride), padding=(0, padding), dilation=(1, dilation), groups=groups,
        activation=activation,
    )  # fmt: skip
    return y.squeeze(2)


@operation
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
) -> Tensor:
    """Convolve images.

    Args:
        x: (b, in, h, w), floating point.
        weight: (out, in / groups, kh, kw).
        bias: (out,), or None.
        stride: steps between outputs, one number or (vertical, horizontal); so for padding and dilation.
        padding: zeros on each side.
        dilation: steps between taps.
        groups: blocks of channels that don't mix.
        activation: as in ``linear``.

    Returns:
        (b, out, h', w'), the dtype of x; sizes as in ``conv1d`` for each axis.

    Raises:
        ShapeError: if the shapes do not fit, or the kernel is larger than the padded image.
        ArgumentError: for an activation that there is not.
    """
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    high, wide = check_conv("conv2d", x.shape, weight.shape, bias, (sh, sw), (ph, pw), (dh, dw), groups, activation)
    out, inner, kh, kw = weight.shape
    b = x.shape[0]
    y = pad2d(widened(x), ph, pw).reshape((b, groups, inner, x.shape[2] + 2 * ph, x.shape[3] + 2 * pw))
    matrix = widened(weight if isinstance(weight, Tensor) else weight.dequantize())
    matrix = matrix.reshape((groups, out // groups, inner, kh, kw))
    total: Tensor | None = None
    for i in range(kh):
        for j in range(kw):
            rows, columns = i * dh, j * dw
            tap = y[..., rows : rows + (high - 1) * sh + 1 : sh, columns : columns + (wide - 1) * sw + 1 : sw]
            product = matrix[..., i, j] @ tap.reshape((b, groups, inner, high * wide))
            total = product if total is None else total + product
    assert total is not None
    result = total.reshape((b, out, high, wide))
    if bias is not None:
        result = result + widened(bias).reshape((1, out, 1, 1))
    return rounded(activate(result, activation), x)


def pair(value: Pair) -> tuple[int, int]:
    """One number for both axes, or one each."""
    return (value, value) if isinstance(value, int) else value


def pad2d(x: Tensor, vertical: int, horizontal: int) -> Tensor:
    """x (b, c, h, w) with zeros around each image."""
    from tallow.ops.creation import zeros

    if not vertical and not horizontal:
        return x
    b, c, h, w = x.shape
    padded = zeros((b, c, h + 2 * vertical, w + 2 * horizontal), dtype=x.dtype, device=x.device)
    padded[:, :, vertical : vertical + h, horizontal : horizontal + w] = x
    return padded


def check_conv(
    name: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    activation: str | None = None,
) -> tuple[int, ...]:
    """The sizes of a convolution's result along its one or two last axes.

    Raises:
        ShapeError: if its operands do not fit.
        ArgumentError: for an activation that there is not.
    """
    check_activation(activation)
    rank = 2 + len(stride)
    if min(*stride, *dilation, groups) < 1 or min(padding) < 0:
        raise ShapeError(
            f"{name}: stride {stride}, dilation {dilation}, groups {groups}: at least 1; padding {padding}: 0"
        )
    if len(x) != rank or len(weight) != rank or x[1] != weight[1] * groups or weight[0] % groups:
        raise ShapeError(
            f"{name}: x of shape {x} does not fit a weight of shape {weight} with {groups} group(s); "
            "expected (batch, in, …) and (out, in / groups, …)"
        )
    if bias is not None and bias.shape != weight[:1]:
        raise ShapeError(f"{name}: bias of shape {bias.shape} does not fit a weight of shape {weight}")
    rooms = [n + 2 * p - d * (k - 1) - 1 for n, k, p, d in zip(x[2:], weight[2:], padding, dilation, strict=True)]
    if min(rooms) < 0 or 0 in weight[2:]:
        raise ShapeError(f"{name}: a kernel of shape {weight[2:]} does not fit x of shape {x}, padding {padding}")
    return tuple(room // step + 1 for room, step in zip(rooms, stride, strict=True))
