"""From tensors and scalars to arrays of one type that NumPy or CuPy computes with, and back to a tensor.

Every elementwise operation goes through ``unary`` or ``binary``, thousands of times a second while a model decodes, so
the common case (types that NumPy computes in, equal on both sides) takes the short way.
"""

from __future__ import annotations

import contextvars
import operator
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from tallow import dtypes
from tallow.device import Device
from tallow.dtypes import DType
from tallow.errors import BoundsError, DeviceError, DTypeError, ShapeError
from tallow.tensor import Tensor

Operand = Tensor | complex
"""What elementwise operations take: a tensor or a Python scalar (float and int are subtypes of complex here)."""

# float16 and bfloat16 are stored, not computed in: arithmetic widens them to float32 and rounds the result once.
_WIDE = {dtypes.float16.numpy: np.dtype(np.float32), dtypes.bfloat16.numpy: np.dtype(np.float32)}
_COMPUTED = frozenset(dtype.numpy for dtype in dtypes.ALL if dtype.numpy not in _WIDE)
_FLOATS = frozenset(np.dtype(t) for t in ("float32", "float64", "complex64", "complex128"))
_SCALARS: dict[type, frozenset[np.dtype[Any]]] = {
    float: _FLOATS,
    int: frozenset(dtype for dtype in _COMPUTED if dtype.kind in "fciu"),
}
_ndarray = np.ndarray
_NONE: frozenset[np.dtype[Any]] = frozenset()


class _Quiet(threading.local):
    """``quiet.run(f, …)`` calls f with NumPy's floating-point warnings off: a division by zero is inf, and no news.

    NumPy keeps that setting in a context variable; entering a ready-made context costs a tenth of ``np.errstate``.
    """

    def __init__(self) -> None:
        context = contextvars.Context()
        context.run(np.seterr, all="ignore")
        self.run: Callable[..., Any] = context.run


quiet = _Quiet()


def module_of(storage: Any) -> Any:
    """The module, ``numpy`` or ``cupy``, that an array belongs to."""
    return np if isinstance(storage, (np.ndarray, np.generic)) else sys.modules["cupy"]


def placed(array: Any, device: Device) -> Any:
    """An array of NumPy's as one of the library that computes on a device; itself if it is."""
    if device.kind == "cpu" or not isinstance(array, np.ndarray):
        return array
    return make(device, "asarray", array).storage


def make(device: Device, function: str, *args: Any, **kwargs: Any) -> Tensor:
    """A new tensor on a device, by one of the creation functions that NumPy and CuPy share."""
    if device.kind == "cpu":
        return Tensor(getattr(np, function)(*args, **kwargs), device)
    import cupy

    with cupy.cuda.Device(device.index):
        return Tensor(getattr(cupy, function)(*args, **kwargs), device)


def wrap(array: Any, device: Device) -> Tensor:
    """A tensor around a result; NumPy's scalars become arrays of no dimension again."""
    return Tensor(np.asarray(array) if isinstance(array, np.generic) else array, device)


def widened(array: Any) -> Any:
    """The array in the type that arithmetic on it is done in: float32 for float16 and bfloat16, else its own."""
    wide = _WIDE.get(array.dtype)
    return array if wide is None else array.astype(wide)


def wrap_as(array: Any, dtype: np.dtype[Any], device: Device) -> Tensor:
    """A tensor around a result that was computed wide, rounded to ``dtype``."""
    return wrap(array if array.dtype == dtype else quiet.run(array.astype, dtype), device)


def unary(name: str, function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """Apply a function element by element; the result has x's type, or bool, or a complex x's real type."""
    array = x.storage
    wide = _WIDE.get(array.dtype)
    try:
        result = quiet.run(function, array if wide is None else array.astype(wide))
    except TypeError:
        raise DTypeError(f"{name}: does not take {x.dtype.name}") from None
    if wide is not None and result.dtype == wide:
        result = quiet.run(result.astype, array.dtype)
    return Tensor(result, x.device) if type(result) is _ndarray else wrap(result, x.device)


def unary_float(name: str, function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """As ``unary``, for functions whose values are real or complex: integers and bools become float32 first."""
    if x.storage.dtype not in _FLOATS and x.storage.dtype not in _WIDE:
        return wrap(quiet.run(function, x.storage.astype(np.float32)), x.device)
    return unary(name, function, x)


def binary(name: str, function: Callable[[Any, Any], Any], x1: Operand, x2: Operand) -> Tensor:
    """Apply a function to two operands, promoted and broadcast; the result has the common type, or bool."""
    if type(x1) is Tensor:
        a = x1.storage
        if type(x2) is Tensor:
            b = x2.storage
            direct = a.dtype is b.dtype and a.dtype in _COMPUTED
        else:
            b = x2
            direct = a.dtype in _SCALARS.get(type(b), _NONE)
        device = x1.device
    elif type(x2) is Tensor:
        a, b, device = x1, x2.storage, x2.device
        direct = b.dtype in _SCALARS.get(type(a), _NONE)
    else:
        wrong_operand(name, x1)
    narrow = None
    if not direct:
        a, b, narrow = _promoted(name, x1, x2)
    try:
        result = quiet.run(function, a, b)
    except (ValueError, TypeError, OverflowError) as error:
        explain(name, x1, x2, error)
    if narrow is not None and result.dtype == np.float32:
        result = quiet.run(result.astype, narrow)
    return Tensor(result, device) if type(result) is _ndarray else wrap(result, device)


def binary_float(name: str, function: Callable[[Any, Any], Any], x1: Operand, x2: Operand) -> Tensor:
    """As ``binary``, for functions whose values are real or complex: integers and bools become float32 first."""
    return binary(name, function, as_float(x1), as_float(x2))


def as_float(x: Operand) -> Operand:
    """An operand with integers and bools turned into float32."""
    if type(x) is Tensor:
        if x.storage.dtype.kind in "iub":
            return Tensor(x.storage.astype(np.float32), x.device)
        return x
    return float(x) if isinstance(x, (int, np.integer, np.bool_)) else x


def _promoted(name: str, x1: Operand, x2: Operand) -> tuple[Any, Any, np.dtype[Any] | None]:
    """Both operands as arrays (or a scalar of NumPy's) of the type to compute in; and what to round to."""
    dtype = common_dtype(name, x1, x2)
    narrow = dtype.numpy if dtype.numpy in _WIDE else None
    target = _WIDE.get(dtype.numpy, dtype.numpy)
    return as_array(name, x1, target), as_array(name, x2, target), narrow


def common_dtype(name: str, x1: Operand, x2: Operand) -> DType:
    """The type of an operation's result on two operands, at least one of them a tensor."""
    if type(x1) is Tensor and type(x2) is Tensor:
        try:
            return dtypes.promote(x1.dtype, x2.dtype)
        except DTypeError as error:
            raise DTypeError(f"{name}: {error}") from None
    if type(x1) is Tensor:
        return dtypes.promote_scalar(x1.dtype, python_scalar(name, x2))
    if type(x2) is Tensor:
        return dtypes.promote_scalar(x2.dtype, python_scalar(name, x1))
    wrong_operand(name, x1)


def python_scalar(name: str, value: Any) -> complex:
    """A scalar as Python's; NumPy's are weak here too, so that ``x * np.sqrt(2)`` stays float32."""
    if isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic):
        return value
    if isinstance(value, np.generic) and value.dtype in dtypes.NUMPY:
        return value.item() if value.dtype.kind in "biufc" else float(value)
    wrong_operand(name, value)


def as_array(name: str, x: Operand, dtype: np.dtype[Any]) -> Any:
    """A tensor's array in ``dtype``, or a scalar as one of NumPy's, which CuPy takes too."""
    if type(x) is Tensor:
        return x.storage if x.storage.dtype == dtype else quiet.run(x.storage.astype, dtype)
    scalar = python_scalar(name, x)
    if dtype.kind in "iu" and not dtypes.fits(scalar, dtype):
        raise DTypeError(f"{name}: {scalar} does not fit in {dtype.name}; convert the tensor with .astype() first")
    return quiet.run(np.asarray, scalar, dtype)[()]


def explain(name: str, x1: Any, x2: Any, error: Exception) -> NoReturn:
    """Raise the error that a failed operation on two operands deserves, with what both are."""
    if type(x1) is Tensor and type(x2) is Tensor:
        try:
            np.broadcast_shapes(x1.shape, x2.shape)
        except ValueError:
            raise ShapeError(
                f"{name}: shapes {x1.shape} and {x2.shape} do not fit: axes must be equal or 1, from the last one on"
            ) from None
    raise DTypeError(f"{name}: does not take {described(x1)} with {described(x2)}: {error}") from None


def described(x: Any) -> str:
    """An operand for an error message: a tensor's type and shape, or a scalar's value and type."""
    if type(x) is Tensor:
        return f"{x.dtype.name} {x.shape}"
    text = repr(x)
    return f"{text if len(text) < 40 else text[:36] + '…'} ({type(x).__name__})"


def wrong_operand(name: str, value: Any) -> NoReturn:
    """Raise for an argument that is no tensor."""
    raise DTypeError(f"{name}: expected a Tensor, found {type(value).__name__}; make one with tallow.asarray")


def axis_of(name: str, axis: int, ndim: int) -> int:
    """An axis counted from the first, out of ``ndim``. Raises BoundsError, and DTypeError for what is no integer."""
    if type(axis) is not int:
        try:
            axis = operator.index(axis)
        except TypeError:
            raise DTypeError(f"{name}: expected an integer as axis, found {axis!r}") from None
    if not -ndim <= axis < ndim:
        raise BoundsError(f"{name}: axis {axis} lies outside a tensor of {ndim} dimension(s)")
    return axis + ndim if axis < 0 else axis


def axes_of(name: str, axes: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """One or several axes counted from the first, each named once. Raises BoundsError and ShapeError."""
    if not isinstance(axes, (tuple, list)):
        return (axis_of(name, axes, ndim),)
    found = tuple([axis_of(name, axis, ndim) for axis in axes])
    if len(set(found)) != len(found):
        raise ShapeError(f"{name}: axes {axes} name one axis twice")
    return found


def same_device(name: str, tensors: Any) -> Device:
    """The device that all tensors of a list lie on. Raises DTypeError and DeviceError."""
    device: Device | None = None
    for x in tensors:
        if type(x) is not Tensor:
            wrong_operand(name, x)
        if device is None:
            device = x.device
        elif x.device is not device:
            raise DeviceError(
                f"{name}: tensors lie on different devices, {device} and {x.device}; move one with .to(device)"
            )
    if device is None:
        raise ShapeError(f"{name}: needs at least one tensor")
    return device
