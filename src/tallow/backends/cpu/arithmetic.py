"""Elementwise functions of float32 that are recorded, and large sums; NumPy computes the rest as quickly."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.memory import empty
from tallow.ops.dispatch import kernel
from tallow.ops.operands import quiet
from tallow.tensor import Tensor

_FLOAT32 = np.dtype(np.float32)
_LARGE = 1 << 16  # numbers
_MOST_AXES = 8  # see csrc/ops/arithmetic.h
_HUGE = 1 << 100  # integers below it are numbers of float32
_BINARY = ("subtract", "multiply", "divide", "maximum", "minimum")
_UNARY = ("negative", "abs", "square", "sqrt", "reciprocal", "exp", "log", "tanh", "sin", "cos")


def _float32(x: Any) -> bool:
    return type(x) is Tensor and x.storage.dtype == _FLOAT32 and all(s % 4 == 0 for s in x.storage.strides)


def _computed(name: str, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any] | None, scalar: float) -> Any:
    try:
        shape = x.shape if y is None else np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return NotImplemented  # the reference says what does not fit
    if len(shape) > _MOST_AXES:
        return NotImplemented
    whole = shape or (1,)
    out = empty(whole)
    operands = [None if each is None else np.broadcast_to(each, whole) for each in (x, y)]
    _cpu.elementwise(name, out, *operands, scalar)
    return Tensor(out.reshape(shape))


def _binary(name: str, x1: Any, x2: Any) -> Any:
    if _float32(x1) and _float32(x2):
        return _computed(name, x1.storage, x2.storage, 0.0)
    tensor, scalar = (x1, x2) if type(x1) is Tensor else (x2, x1)
    if not _float32(tensor) or not (type(scalar) is float or (type(scalar) is int and -_HUGE < scalar < _HUGE)):
        return NotImplemented
    number = quiet.run(np.full(1, scalar, np.float64).astype, np.float32)
    if tensor is x1:
        return _computed(name, tensor.storage, None, number.item())
    return _computed(name, number, tensor.storage, 0.0)


def _register_binary(name: str) -> None:
    @kernel(name, "cpu")
    def run(x1: Any, x2: Any, /) -> Any:
        """Two float32 tensors, or one and a Python scalar, while a tape is recorded."""
        return _binary(name, x1, x2) if _cpu.recording() else NotImplemented


def _register_unary(name: str) -> None:
    @kernel(name, "cpu")
    def run(x: Any, /) -> Any:
        """A float32 tensor, while a tape is recorded."""
        return _computed(name, x.storage, None, 0.0) if _cpu.recording() and _float32(x) else NotImplemented


for _name in _BINARY:
    _register_binary(_name)
for _name in _UNARY:
    _register_unary(_name)


@kernel("add", "cpu")
def add(x1: Any, x2: Any, /) -> Any:
    """As the others; and two large tensors of one shape in C order, which threads add together."""
    if _cpu.recording():
        return _binary("add", x1, x2)
    if type(x1) is not Tensor or type(x2) is not Tensor or x1.storage.size < _LARGE:
        return NotImplemented
    x, y = x1.storage, x2.storage
    like = x.shape == y.shape and x.dtype == y.dtype == _FLOAT32 and x.flags.c_contiguous and y.flags.c_contiguous
    return _computed("add", x, y, 0.0) if like else NotImplemented
