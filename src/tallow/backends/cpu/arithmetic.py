"""Elementwise functions of float32 that are recorded, and large sums; NumPy computes the rest as quickly."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.memory import empty
from tallow.ops.dispatch import kernel
from tallow.ops.operands import quiet
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]

_FLOAT32 = np.dtype(np.float32)
_LARGE = 1 << 16  # numbers
_MAX_AXES = 8  # see csrc/ops/arithmetic.h
_HUGE = 1 << 100  # integers below it are numbers of float32
_BINARY = ("subtract", "multiply", "divide", "maximum", "minimum")
_COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
_UNARY = ("negative", "abs", "square", "sqrt", "reciprocal", "exp", "log", "tanh", "sin", "cos")


def _numbers(x: Any) -> Array | None:
    """The array of a float32 tensor, or one made of a scalar; None for what these functions do not take."""
    if type(x) is Tensor:
        whole = all(stride % 4 == 0 for stride in x.storage.strides)
        return x.storage if x.storage.dtype == _FLOAT32 and whole else None
    if isinstance(x, np.generic):
        x = x.item()
    if type(x) is float or (type(x) is int and -_HUGE < x < _HUGE):
        return quiet.run(np.full((), x, np.float64).astype, np.float32)  # type: ignore[no-any-return]
    return None


def _computed(name: str, x: Array | None, y: Array | None, condition: Array | None = None) -> Any:
    if x is None or y is None:
        return NotImplemented
    operands = [x, y] if condition is None else [x, y, condition]
    try:
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
    except ValueError:
        return NotImplemented  # the reference says what does not fit
    if len(shape) > _MAX_AXES:
        return NotImplemented
    whole = shape or (1,)
    out = empty(whole, np.bool_ if name in _COMPARISONS else np.float32)
    x, y, *rest = (np.broadcast_to(operand, whole) for operand in operands)
    _cpu.elementwise(name, out, x, y, rest[0] if rest else None)
    return Tensor(out.reshape(shape))


def _binary(name: str, x1: Any, x2: Any) -> Any:
    if type(x1) is not Tensor and type(x2) is not Tensor:
        return NotImplemented
    return _computed(name, _numbers(x1), _numbers(x2))


def _register_binary(name: str) -> None:
    @kernel(name, "cpu")
    def run(x1: Any, x2: Any, /) -> Any:
        """Two float32 tensors, or one and a scalar, while a tape is recorded."""
        return _binary(name, x1, x2) if _cpu.recording() else NotImplemented


def _register_unary(name: str) -> None:
    @kernel(name, "cpu")
    def run(x: Any, /) -> Any:
        """A float32 tensor, while a tape is recorded."""
        if not _cpu.recording() or type(x) is not Tensor:
            return NotImplemented
        numbers = _numbers(x)
        return _computed(name, numbers, numbers)


for _name in (*_BINARY, *_COMPARISONS):
    _register_binary(_name)
for _name in _UNARY:
    _register_unary(_name)


@kernel("clip", "cpu")
def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
    """A float32 tensor and one or two bounds, tensors of float32 or scalars, while a tape is recorded."""
    if not _cpu.recording() or (min is None and max is None):
        return NotImplemented
    result = x if min is None else _binary("maximum", x, min)
    return result if max is None or result is NotImplemented else _binary("minimum", result, max)


@kernel("where", "cpu")
def where(condition: Any, x1: Any, x2: Any, /) -> Any:
    """Bools, and float32 tensors or scalars (one of them a tensor, or the first a float), while a tape is recorded."""
    if not _cpu.recording() or type(condition) is not Tensor or condition.storage.dtype != np.bool_:
        return NotImplemented
    if type(x1) is not Tensor and type(x2) is not Tensor and not isinstance(x1, float):
        return NotImplemented
    return _computed("where", _numbers(x1), _numbers(x2), condition.storage)


@kernel("add", "cpu")
def add(x1: Any, x2: Any, /) -> Any:
    """As the others; and two large tensors of one shape in C order, which threads add together."""
    if _cpu.recording():
        return _binary("add", x1, x2)
    if type(x1) is not Tensor or type(x2) is not Tensor or x1.storage.size < _LARGE:
        return NotImplemented
    x, y = x1.storage, x2.storage
    like = x.shape == y.shape and x.dtype == y.dtype == _FLOAT32 and x.flags.c_contiguous and y.flags.c_contiguous
    return _computed("add", x, y) if like else NotImplemented
