"""Registers the kernels of cards, and says on which card an operation computes."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
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
    top_logprobs,
)  # fmt: skip
from tallow.device import Device

__all__ = [
    "attention", "audio", "conv", "copy", "elementwise", "host", "image", "linear", "norm", "on_card", "positions",
    "rotary", "sample", "top_logprobs",
]  # fmt: skip


def on_card(device: Device) -> AbstractContextManager[Any]:
    """A context in which CuPy computes on a card."""
    if cupy.cuda.runtime.getDevice() == device.index:
        return _HERE
    return cupy.cuda.Device(device.index)  # type: ignore[no-any-return]


_HERE = contextlib.nullcontext()
