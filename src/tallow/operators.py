"""What Python's operators and built-in functions mean on tensors: each calls one operation of ``tallow.ops``."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow import dtypes
from tallow.errors import DTypeError, ShapeError

if TYPE_CHECKING:
    from tallow.tensor import Tensor

Infix = Callable[[Any, Any], "Tensor"]

_SCALARS = frozenset({bool, int, float, complex})


@functools.cache
def _operation(name: str) -> Callable[..., Any]:
    """An operation by name; looked up late, since operations are made of tensors and tensors of these operators."""
    return getattr(importlib.import_module("tallow.ops"), name)  # type: ignore[no-any-return]


def _operand(x: Tensor, other: Any) -> Any:
    """The other side of an operator as an operation takes it, or NotImplemented. NumPy's arrays become tensors."""
    if type(other) is type(x) or isinstance(other, (bool, int, float, complex, np.generic)):
        return other
    return _operation("asarray")(other) if isinstance(other, np.ndarray) else NotImplemented


def _infix(name: str) -> Infix:
    """``tensor <operator> other``."""
    run: Any = None

    def method(self: Any, other: Any, /) -> Any:
        nonlocal run
        if type(other) is not type(self) and type(other) not in _SCALARS:
            other = _operand(self, other)
            if other is NotImplemented:
                return other
        if run is None:
            run = _operation(name)
        return run(self, other)

    return method


def _reflected(name: str) -> Infix:
    """``other <operator> tensor``, where ``other`` is a scalar or a NumPy array."""

    def method(self: Any, other: Any, /) -> Any:
        other = _operand(self, other)
        return other if other is NotImplemented else _operation(name)(other, self)

    return method


def _in_place(name: str) -> Infix:
    """``tensor <operator>= other``: writes into the tensor's own memory, which its views share."""

    def method(self: Any, other: Any, /) -> Any:
        other = _operand(self, other)
        if other is NotImplemented:
            return other
        result = _operation(name)(self, other)
        if result.shape != self.shape:
            raise ShapeError(f"{name} in place: the result's shape {result.shape} is not the tensor's, {self.shape}")
        if not dtypes.same_kind(result.dtype, self.dtype):
            raise DTypeError(f"{name} in place: a {result.dtype.name} result does not fit into {self.dtype.name}")
        _operation("setitem")(self, ..., result)
        return self

    return method


def _operators(name: str) -> tuple[Infix, Infix, Infix]:
    return _infix(name), _reflected(name), _in_place(name)


class Operators:
    """The operators of ``Tensor``, and what ``bool``, ``float``, ``len``, ``iter`` and their like make of one."""

    __slots__ = ()

    __add__, __radd__, __iadd__ = _operators("add")
    __sub__, __rsub__, __isub__ = _operators("subtract")
    __mul__, __rmul__, __imul__ = _operators("multiply")
    __truediv__, __rtruediv__, __itruediv__ = _operators("divide")
    __floordiv__, __rfloordiv__, __ifloordiv__ = _operators("floor_divide")
    __mod__, __rmod__, __imod__ = _operators("remainder")
    __pow__, __rpow__, __ipow__ = _operators("pow")
    __matmul__, __rmatmul__, __imatmul__ = _operators("matmul")
    __and__, __rand__, __iand__ = _operators("bitwise_and")
    __or__, __ror__, __ior__ = _operators("bitwise_or")
    __xor__, __rxor__, __ixor__ = _operators("bitwise_xor")
    __lshift__, __rlshift__, __ilshift__ = _operators("bitwise_left_shift")
    __rshift__, __rrshift__, __irshift__ = _operators("bitwise_right_shift")

    __lt__, __le__ = _infix("less"), _infix("less_equal")
    __gt__, __ge__ = _infix("greater"), _infix("greater_equal")
    __eq__, __ne__ = _infix("equal"), _infix("not_equal")  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]  # == compares element by element

    def __neg__(self) -> Tensor:
        return _operation("negative")(self)  # type: ignore[no-any-return]

    def __pos__(self) -> Tensor:
        return _operation("positive")(self)  # type: ignore[no-any-return]

    def __abs__(self) -> Tensor:
        return _operation("abs")(self)  # type: ignore[no-any-return]

    def __invert__(self) -> Tensor:
        return _operation("bitwise_invert")(self)  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        return bool(_scalar("bool", self))

    def __int__(self) -> int:
        return int(_scalar("int", self))

    def __float__(self) -> float:
        return float(_scalar("float", self))

    def __complex__(self) -> complex:
        return complex(_scalar("complex", self))

    def __index__(self: Any) -> int:
        if self.ndim or self.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"index: expected an integer of no dimension, found {self.dtype.name} {self.shape}")
        return int(self.item())

    def __len__(self: Any) -> int:
        if not self.ndim:
            raise DTypeError("len: a tensor of no dimension has no length")
        return self.shape[0]  # type: ignore[no-any-return]

    def __iter__(self: Any) -> Iterator[Tensor]:
        if not self.ndim:
            raise DTypeError("iter: a tensor of no dimension has no elements to go through")
        return iter(_operation("unstack")(self))

    def __contains__(self: Any, value: Any) -> bool:
        return bool(_operation("any")(_operation("equal")(self, value)))


def _scalar(name: str, x: Any) -> Any:
    """The only element of a tensor as a Python scalar."""
    if x.size != 1:
        raise DTypeError(f"{name}: expected one element, found shape {x.shape}; see all() and any()")
    return x.item()
