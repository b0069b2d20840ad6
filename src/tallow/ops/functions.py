"""Exponentials, logarithms, trigonometric and hyperbolic functions, element by element.

Real or complex; integers and bools become float32 first; float16 and bfloat16 are computed in float32 and rounded once.
Outside its domain a function is NaN, without a warning. Angles are in radians.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow.ops.dispatch import operation
from tallow.ops.operands import Operand, binary_float, module_of, unary_float
from tallow.tensor import Tensor


@operation
def exp(x: Tensor, /) -> Tensor:
    """``e ** x``."""
    return unary_float("exp", np.exp, x)


@operation
def expm1(x: Tensor, /) -> Tensor:
    """``exp(x) - 1``, exact for small x."""
    return unary_float("expm1", _complex_expm1 if x.storage.dtype.kind == "c" else np.expm1, x)


def _complex_expm1(z: Any) -> Any:
    """``exp(z) - 1`` by real functions, so that nothing cancels; at infinities and NaN what C99 says of ``exp``."""
    a, b = z.real, z.imag
    half = np.sin(b / 2)
    real = np.expm1(a) * np.cos(b) - 2 * half * half + 0
    imag = np.where(b == 0, b, np.exp(a) * np.sin(b))
    finite = np.isfinite(a) & np.isfinite(b)
    special = np.exp(z) - z.dtype.type(1)
    result = np.empty_like(z)
    result.real = np.where(finite, real, special.real)
    result.imag = np.where(finite, imag, special.imag)
    return result


@operation
def log(x: Tensor, /) -> Tensor:
    """The natural logarithm."""
    return unary_float("log", np.log, x)


@operation
def log1p(x: Tensor, /) -> Tensor:
    """``log(1 + x)``, exact for small x."""
    return unary_float("log1p", np.log1p, x)


@operation
def log2(x: Tensor, /) -> Tensor:
    """The logarithm to base 2."""
    return unary_float("log2", np.log2, x)


@operation
def log10(x: Tensor, /) -> Tensor:
    """The logarithm to base 10."""
    return unary_float("log10", np.log10, x)


@operation
def logaddexp(x1: Operand, x2: Operand, /) -> Tensor:
    """``log(exp(x1) + exp(x2))`` without overflow on the way, for real numbers."""
    return binary_float("logaddexp", np.logaddexp, x1, x2)


@operation
def sin(x: Tensor, /) -> Tensor:
    """The sine."""
    return unary_float("sin", np.sin, x)


@operation
def cos(x: Tensor, /) -> Tensor:
    """The cosine."""
    return unary_float("cos", np.cos, x)


@operation
def tan(x: Tensor, /) -> Tensor:
    """The tangent."""
    return unary_float("tan", np.tan, x)


@operation
def asin(x: Tensor, /) -> Tensor:
    """The inverse sine, in [-π/2, π/2]."""
    return unary_float("asin", np.arcsin, x)


@operation
def acos(x: Tensor, /) -> Tensor:
    """The inverse cosine, in [0, π]."""
    return unary_float("acos", np.arccos, x)


@operation
def atan(x: Tensor, /) -> Tensor:
    """The inverse tangent, in [-π/2, π/2]."""
    return unary_float("atan", np.arctan, x)


@operation
def atan2(x1: Operand, x2: Operand, /) -> Tensor:
    """The angle of the point (x2, x1), in [-π, π], for real numbers."""
    return binary_float("atan2", np.arctan2, x1, x2)


@operation
def sinh(x: Tensor, /) -> Tensor:
    """The hyperbolic sine."""
    return unary_float("sinh", np.sinh, x)


@operation
def cosh(x: Tensor, /) -> Tensor:
    """The hyperbolic cosine."""
    return unary_float("cosh", np.cosh, x)


@operation
def tanh(x: Tensor, /) -> Tensor:
    """The hyperbolic tangent."""
    return unary_float("tanh", _complex_tanh if x.storage.dtype.kind == "c" else np.tanh, x)


def _complex_tanh(z: Any) -> Any:
    """NumPy's, but ±1 ± 0j at an infinite real part, with the sign of the imaginary part (C99: that of its sine)."""
    result = module_of(z).asarray(np.tanh(z))
    infinite = np.isinf(z.real) & np.isfinite(z.imag)
    result.imag = np.where(infinite, np.copysign(0, z.imag), result.imag)
    return result


@operation
def asinh(x: Tensor, /) -> Tensor:
    """The inverse hyperbolic sine."""
    return unary_float("asinh", np.arcsinh, x)


@operation
def acosh(x: Tensor, /) -> Tensor:
    """The inverse hyperbolic cosine."""
    return unary_float("acosh", np.arccosh, x)


@operation
def atanh(x: Tensor, /) -> Tensor:
    """The inverse hyperbolic tangent."""
    return unary_float("atanh", np.arctanh, x)
