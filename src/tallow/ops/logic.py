"""Comparisons, predicates, logical and bitwise operations, element by element.

Comparisons and predicates give bools; operands are promoted to their common type and broadcast first.
"""

from __future__ import annotations

import numpy as np

from tallow.ops.dispatch import operation
from tallow.ops.operands import Operand, binary, unary
from tallow.tensor import Tensor


@operation
def equal(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 == x2``."""
    return binary("equal", np.equal, x1, x2)


@operation
def not_equal(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 != x2``."""
    return binary("not_equal", np.not_equal, x1, x2)


@operation
def less(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 < x2``, for real numbers."""
    return binary("less", np.less, x1, x2)


@operation
def less_equal(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 <= x2``, for real numbers."""
    return binary("less_equal", np.less_equal, x1, x2)


@operation
def greater(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 > x2``, for real numbers."""
    return binary("greater", np.greater, x1, x2)


@operation
def greater_equal(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 >= x2``, for real numbers."""
    return binary("greater_equal", np.greater_equal, x1, x2)


@operation
def isfinite(x: Tensor, /) -> Tensor:
    """Whether x is neither infinite nor NaN."""
    return unary("isfinite", np.isfinite, x)


@operation
def isinf(x: Tensor, /) -> Tensor:
    """Whether x is infinite; of a complex number, either part."""
    return unary("isinf", np.isinf, x)


@operation
def isnan(x: Tensor, /) -> Tensor:
    """Whether x is NaN; of a complex number, either part."""
    return unary("isnan", np.isnan, x)


@operation
def logical_and(x1: Operand, x2: Operand, /) -> Tensor:
    """Whether both are true (numbers: not zero)."""
    return binary("logical_and", np.logical_and, x1, x2)


@operation
def logical_or(x1: Operand, x2: Operand, /) -> Tensor:
    """Whether either is true (numbers: not zero)."""
    return binary("logical_or", np.logical_or, x1, x2)


@operation
def logical_xor(x1: Operand, x2: Operand, /) -> Tensor:
    """Whether exactly one is true (numbers: not zero)."""
    return binary("logical_xor", np.logical_xor, x1, x2)


@operation
def logical_not(x: Tensor, /) -> Tensor:
    """Whether x is false (numbers: zero)."""
    return unary("logical_not", np.logical_not, x)


@operation
def bitwise_and(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 & x2``, for integers and bools."""
    return binary("bitwise_and", np.bitwise_and, x1, x2)


@operation
def bitwise_or(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 | x2``, for integers and bools."""
    return binary("bitwise_or", np.bitwise_or, x1, x2)


@operation
def bitwise_xor(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 ^ x2``, for integers and bools."""
    return binary("bitwise_xor", np.bitwise_xor, x1, x2)


@operation
def bitwise_invert(x: Tensor, /) -> Tensor:
    """``~x``, for integers and bools."""
    return unary("bitwise_invert", np.invert, x)


@operation
def bitwise_left_shift(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 << x2``, for integers."""
    return binary("bitwise_left_shift", np.left_shift, x1, x2)


@operation
def bitwise_right_shift(x1: Operand, x2: Operand, /) -> Tensor:
    """``x1 >> x2``, arithmetic, for integers."""
    return binary("bitwise_right_shift", np.right_shift, x1, x2)
