"""Elementwise arithmetic: sums, products, powers, rounding, signs and the parts of complex numbers.

Operands are tensors or Python scalars, broadcast against each other; the result has their common type (see
``tallow.dtypes``). float16 and bfloat16 are computed in float32 and rounded once. Division by zero and overflow give
inf or NaN without a warning. Shapes that do not broadcast raise ShapeError, types that an operation does not take
DTypeError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tallow import dtypes
from tallow.errors import DTypeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import (
    Operand,
    as_array,
    as_float,
    binary,
    binary_float,
    common_dtype,
    quiet,
    unary,
    unary_float,
    wrap,
    wrap_as,
)
from tallow.tensor import Tensor


@operation
def add(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 + x2``."""
    return binary("add", np.add, x1, x2)


@operation
def subtract(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 - x2``."""
    return binary("subtract", np.subtract, x1, x2)


@operation
def multiply(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 * x2``."""
    return binary("multiply", np.multiply, x1, x2)


@operation
def divide(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 / x2``; two integers give float32."""
    return binary_float("divide", np.divide, x1, x2)


@operation
def floor_divide(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 / x2`` rounded towards minus infinity, infinite quotients included; an integer divided by zero is 0."""
    return binary("floor_divide", _floor_divide, x1, x2)


def _floor_divide(a: Any, b: Any) -> Any:
    quotient = np.floor_divide(a, b)
    if quotient.dtype.kind != "f":
        return quotient
    # NumPy follows Python's relation of // and %, by which inf // 2 is NaN and -1 // inf is -1; the array API floors.
    return np.where(np.isinf(a) != np.isinf(b), np.floor(np.divide(a, b)), quotient)


@operation
def remainder(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 % x2``, with the sign of the divisor; an integer's remainder by zero is 0."""
    return binary("remainder", np.remainder, x1, x2)


@operation
def pow(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 ** x2``. Raises DTypeError for integers to a negative integer power."""
    return binary("pow", _power, x1, x2)


def _power(a: Any, b: Any) -> Any:
    result = np.power(a, b)
    half = b == 0.5
    if half is False or result.dtype.kind != "f" or not np.any(half):
        return result
    # NumPy takes the square root here, which is NaN for -inf and -0 for -0.
    return np.where(half, np.sqrt(np.where(a == -np.inf, np.inf, a)) + result.dtype.type(0), result)


@operation
def maximum(x1: Operand, x2: Operand, /) -> Tensor:
    """The larger of each pair of real numbers; NaN if either is."""
    return binary("maximum", np.maximum, x1, x2)


@operation
def minimum(x1: Operand, x2: Operand, /) -> Tensor:
    """The smaller of each pair of real numbers; NaN if either is."""
    return binary("minimum", np.minimum, x1, x2)


@operation
def clip(x: Tensor, /, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Each element moved into ``[min, max]``; the result has x's type.

    Args:
        x: real numbers. NaN stays NaN.
        min: lower bound, broadcast with x; None for no bound.
        max: upper bound likewise. Where it is below ``min``, the result is ``max``.
    """
    result = x
    if min is not None:
        result = binary("clip", np.maximum, result, _bound(x, min, math.ceil))
    if max is not None:
        result = binary("clip", np.minimum, result, _bound(x, max, math.floor))
    if result is x:
        return Tensor(x.storage.copy(), x.device)
    return wrap_as(result.storage, x.storage.dtype, x.device)


def _bound(x: Tensor, bound: Operand, rounding: Callable[[float], int]) -> Operand:
    """A scalar bound for integers as the nearest integer inside the interval that their type has."""
    if type(bound) is Tensor or x.storage.dtype.kind not in "iu":
        return bound
    limits = np.iinfo(x.storage.dtype)
    if bound != bound:
        raise DTypeError("clip: a bound is NaN, and the tensor holds integers")
    if not limits.min <= bound <= limits.max:  # type: ignore[operator]
        return int(limits.min if bound < 0 else limits.max)  # type: ignore[operator]
    return rounding(bound)  # type: ignore[arg-type]


@operation
def abs(x: Tensor, /) -> Tensor:
    """The absolute value; of a complex number, a real one."""
    return unary("abs", np.abs, x)


@operation
def negative(x: Tensor, /) -> Tensor:
    """``-x``."""
    return unary("negative", np.negative, x)


@operation
def positive(x: Tensor, /) -> Tensor:
    """``+x``, a copy."""
    return unary("positive", np.positive, x)


@operation
def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1 (NaN for NaN); for a complex number, ``x / abs(x)``, and 0 for 0."""
    return unary("sign", _sign, x)


def _sign(array: Any) -> Any:
    return np.sign(array) + array.dtype.type(0)  # NumPy keeps the sign of -0


@operation
def square(x: Tensor, /) -> Tensor:
    """``x * x``."""
    return unary("square", np.square, x)


@operation
def sqrt(x: Tensor, /) -> Tensor:
    """The square root; NaN for negative real numbers."""
    return unary_float("sqrt", np.sqrt, x)


@operation
def reciprocal(x: Tensor, /) -> Tensor:
    """``1 / x``."""
    return unary_float("reciprocal", np.reciprocal, x)


@operation
def copysign(x1: Operand, x2: Operand, /) -> Tensor:
    """The size of x1 with the sign of x2, real numbers both."""
    return binary_float("copysign", np.copysign, x1, x2)


@operation
def hypot(x1: Operand, x2: Operand, /) -> Tensor:
    """``sqrt(x1² + x2²)`` without overflow on the way, for real numbers."""
    return binary_float("hypot", np.hypot, x1, x2)


@operation
def nextafter(x1: Operand, x2: Operand, /) -> Tensor:
    """The next number after x1, in the operands' common type, towards x2; real numbers both."""
    dtype = common_dtype("nextafter", as_float(x1), as_float(x2))
    if dtype not in (dtypes.float16, dtypes.bfloat16):
        return binary_float("nextafter", np.nextafter, x1, x2)
    a, b = (as_array("nextafter", x, dtype.numpy) for x in (x1, x2))  # a step of the narrow type, not of float32
    return wrap(quiet.run(np.nextafter, a, b), x1.device if type(x1) is Tensor else x2.device)  # type: ignore[union-attr]


@operation
def signbit(x: Tensor, /) -> Tensor:
    """Whether the sign bit of a real floating-point number is set, also for -0 and NaN."""
    return unary("signbit", np.signbit, x)


@operation
def ceil(x: Tensor, /) -> Tensor:
    """Rounded up to an integer, in x's type."""
    return _rounded("ceil", np.ceil, x)


@operation
def floor(x: Tensor, /) -> Tensor:
    """Rounded down to an integer, in x's type."""
    return _rounded("floor", np.floor, x)


@operation
def trunc(x: Tensor, /) -> Tensor:
    """Rounded towards zero to an integer, in x's type."""
    return _rounded("trunc", np.trunc, x)


@operation
def round(x: Tensor, /) -> Tensor:
    """Rounded to the nearest integer, halves to the even one, in x's type; both parts of a complex number."""
    return _rounded("round", np.rint, x)


def _rounded(name: str, function: Callable[[Any], Any], x: Tensor) -> Tensor:
    if x.storage.dtype.kind in "iu":
        return Tensor(x.storage.copy(), x.device)
    return unary(name, function, x)


@operation
def conj(x: Tensor, /) -> Tensor:
    """The complex conjugate; real numbers are their own."""
    return unary("conj", np.conjugate, x)


@operation
def real(x: Tensor, /) -> Tensor:
    """The real part, a view."""
    return Tensor(x.storage.real, x.device)


@operation
def imag(x: Tensor, /) -> Tensor:
    """The imaginary part, a view of a complex tensor; zeros for a real one."""
    return Tensor(x.storage.imag, x.device)
