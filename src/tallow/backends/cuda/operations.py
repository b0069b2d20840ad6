"""Registers the kernels of cards, and says on which card an operation computes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cupy

from tallow.backends.cuda import (
    attention,
    audio,
    conv,
    copy,
    elementwise,
    host,
    image,
    linear,
    norm,
    positions,
    rotary,
    sample,
)  # fmt: skip
from tallow.tensor import Tensor

__all__ = [
    "attention", "audio", "conv", "copy", "elementwise", "host", "image", "linear", "norm", "on_card", "positions",
    "rotary", "sample",
]  # fmt: skip


def on_card(operands: Iterable[Any]) -> Any:
    """A context in which CuPy computes on the card that the operands lie on."""
    for operand in operands:
        if type(operand) is Tensor:
            return cupy.cuda.Device(operand.device.index)
        if type(operand) in (list, tuple) and operand and type(operand[0]) is Tensor:
            return cupy.cuda.Device(operand[0].device.index)
    return cupy.cuda.Device()
