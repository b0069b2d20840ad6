"""Convolution layers."""

from __future__ import annotations

from tallow import ops
from tallow.nn.module import Module
from tallow.ops.conv import Pair, pair
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder


class Conv1d(Module):
    """A one-dimensional convolution.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: taps.
        vb: weights ``weight`` (out, in / groups, k) and, if ``bias``, ``bias`` (out,).
        stride: steps between outputs.
        padding: zeros on each side.
        groups: blocks of channels that don't mix.
        bias: whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        vb: VarBuilder,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self.weight = vb.kernel((out_channels, in_channels // groups, kernel_size), groups=groups)
        self.bias = vb.get((out_channels,), "bias") if bias else None
        self.stride, self.padding, self.groups = stride, padding, groups

    def __call__(self, x: Tensor, *, activation: str | None = None) -> Tensor:
        """(b, in, n) -> (b, out, n'); see ``ops.conv1d``."""
        return ops.conv1d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            activation=activation,
        )

    def extra_repr(self) -> str:
        """Its sizes."""
        return f"{self.weight.shape}, stride={self.stride}, padding={self.padding}"


class Conv2d(Module):
    """A two-dimensional convolution.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: one number or (height, width).
        vb: weights ``weight`` (out, in / groups, kh, kw) and, if ``bias``, ``bias`` (out,).
        stride: steps between outputs.
        padding: zeros on each side.
        groups: blocks of channels that don't mix.
        bias: whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        vb: VarBuilder,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self.weight = vb.kernel((out_channels, in_channels // groups, *pair(kernel_size)), groups=groups)
        self.bias = vb.get((out_channels,), "bias") if bias else None
        self.stride, self.padding, self.groups = stride, padding, groups

    def __call__(self, x: Tensor, *, activation: str | None = None) -> Tensor:
        """(b, in, h, w) -> (b, out, h', w'); see ``ops.conv2d``."""
        return ops.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            activation=activation,
        )

    def extra_repr(self) -> str:
        """Its sizes."""
        return f"{self.weight.shape}, stride={self.stride}, padding={self.padding}"
