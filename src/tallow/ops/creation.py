"""New tensors: filled, counted, spaced, triangular. The default types are float32, int64 and complex64."""

from __future__ import annotations

import cmath
import math
import operator
from typing import Any

import numpy as np

from tallow import dtypes
from tallow.device import Device, as_device
from tallow.dtypes import DType, DTypeLike, as_dtype
from tallow.errors import ArgumentError, DTypeError, ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import make, module_of, quiet, wrap
from tallow.tensor import Tensor

Shape = int | tuple[int, ...]
Place = Device | str | None


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    """A shape given as an integer or a sequence of them. Raises ShapeError."""
    try:
        sizes = tuple(map(operator.index, shape)) if isinstance(shape, (tuple, list)) else (operator.index(shape),)
    except TypeError:
        raise ShapeError(f"{name}: expected a shape, an integer or a tuple of them, found {shape!r}") from None
    if any(size < 0 for size in sizes):
        raise ShapeError(f"{name}: a shape has no negative sizes, found {sizes}")
    return sizes


def _float(dtype: DTypeLike | None) -> np.dtype[Any]:
    return (dtypes.float32 if dtype is None else as_dtype(dtype)).numpy


@operation
def empty(shape: Shape, *, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """A tensor whose elements are whatever lay in memory."""
    return make(as_device(device), "empty", _shape("empty", shape), _float(dtype))


@operation
def zeros(shape: Shape, *, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """A tensor of zeros.

    Examples:
        >>> tl.zeros((2, 3), dtype="int32").tolist()
        [[0, 0, 0], [0, 0, 0]]
    """
    return make(as_device(device), "zeros", _shape("zeros", shape), _float(dtype))


@operation
def ones(shape: Shape, *, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """A tensor of ones."""
    return make(as_device(device), "ones", _shape("ones", shape), _float(dtype))


@operation
def full(shape: Shape, fill_value: complex, *, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """A tensor of one value; its type follows from the value's where ``dtype`` is not given."""
    target = _dtype_of_scalar("full", fill_value) if dtype is None else as_dtype(dtype)
    return _filled("full", _shape("full", shape), fill_value, target, as_device(device))


def _dtype_of_scalar(name: str, value: Any) -> DType:
    if isinstance(value, np.generic):
        return dtypes.of_numpy(value.dtype)
    if type(value) is Tensor and value.ndim == 0:
        return value.dtype
    found = {bool: dtypes.bool_, int: dtypes.int64, float: dtypes.float32, complex: dtypes.complex64}.get(type(value))
    if found is None:
        raise DTypeError(f"{name}: expected a scalar to fill with, found {type(value).__name__}")
    return found


def _filled(name: str, shape: tuple[int, ...], value: Any, dtype: DType, device: Device) -> Tensor:
    scalar = value.item() if type(value) is Tensor else value
    if dtype.kind in ("int", "uint") and not dtypes.fits(scalar, dtype.numpy):
        raise ArgumentError(f"{name}: {scalar} lies outside the range of {dtype.name}")
    if isinstance(scalar, complex) and dtype.kind != "complex" and not isinstance(scalar, float):
        raise DTypeError(f"{name}: {scalar} does not fit in {dtype.name}")
    return quiet.run(make, device, "full", shape, scalar, dtype.numpy)  # type: ignore[no-any-return]


@operation
def empty_like(x: Tensor, /, *, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """As ``empty``, with x's shape, and x's type and device unless given."""
    return make(_place(x, device), "empty", x.shape, _type(x, dtype))


@operation
def zeros_like(x: Tensor, /, *, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """As ``zeros``, with x's shape, and x's type and device unless given."""
    return make(_place(x, device), "zeros", x.shape, _type(x, dtype))


@operation
def ones_like(x: Tensor, /, *, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """As ``ones``, with x's shape, and x's type and device unless given."""
    return make(_place(x, device), "ones", x.shape, _type(x, dtype))


@operation
def full_like(x: Tensor, /, fill_value: complex, *, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """As ``full``, with x's shape, and x's type and device unless given."""
    target = x.dtype if dtype is None else as_dtype(dtype)
    return _filled("full_like", x.shape, fill_value, target, _place(x, device))


def _place(x: Tensor, device: Place) -> Device:
    return x.device if device is None else as_device(device)


def _type(x: Tensor, dtype: DTypeLike | None) -> np.dtype[Any]:
    return x.storage.dtype if dtype is None else as_dtype(dtype).numpy


@operation
def arange(
    start: float, /, stop: float | None = None, step: float = 1, *, dtype: DTypeLike | None = None, device: Place = None
) -> Tensor:
    """Numbers from ``start`` to ``stop``, which is left out, ``step`` apart; with one argument, from 0 to it.

    The type is int64 for integers and float32 otherwise, unless given. Element i is ``start + i * step`` in exact or
    float64 arithmetic, rounded once.

    Examples:
        >>> tl.arange(4).tolist()
        [0, 1, 2, 3]
        >>> tl.arange(1, 2, 0.25).tolist()
        [1.0, 1.25, 1.5, 1.75]
    """
    first, last = (0, _real(start)) if stop is None else (_real(start), _real(stop))
    step = _real(step)
    if step == 0 or not all(map(math.isfinite, (first, last, step))):
        raise ArgumentError(f"arange: expected finite numbers and a step other than 0, found {first}, {last}, {step}")
    place = as_device(device)
    whole = all(isinstance(value, int) for value in (first, last, step))
    target = (dtypes.int64 if whole else dtypes.float32) if dtype is None else as_dtype(dtype)
    if whole:
        values = range(int(first), int(last), int(step))
        counted = target.numpy if target.kind in ("int", "uint") else np.dtype(np.int64)
        if not values or (dtypes.fits(values[0], counted) and dtypes.fits(values[-1], counted)):
            return wrap(_counted(values, counted.kind == "u", place).astype(target.numpy, copy=False), place)
        if counted is target.numpy:
            raise ArgumentError(f"arange: {values[0]} to {values[-1]} lies outside the range of {target.name}")
    steps = make(place, "arange", max(math.ceil((last - first) / step), 0), dtype=np.float64).storage
    return wrap(quiet.run((first + steps * step).astype, target.numpy), place)


def _real(value: Any) -> float:
    """A real scalar of Python's; those of NumPy and tensors of one element count."""
    scalar = value.item() if isinstance(value, (np.generic, Tensor)) else value
    if not isinstance(scalar, (int, float)):
        raise DTypeError(f"arange: expected real numbers, found {value!r}")
    return scalar


def _counted(values: range, unsigned: bool, device: Device) -> Any:
    """The numbers of a range in 64 bits: computed modulo 2⁶⁴, so that nothing between them and the result overflows."""
    numbers = make(device, "arange", len(values), dtype=np.uint64).storage
    numbers = numbers * np.uint64(values.step % 2**64) + np.uint64(values.start % 2**64)
    return numbers if unsigned else numbers.view(np.int64)


@operation
def linspace(
    start: complex,
    stop: complex,
    /,
    num: int,
    *,
    dtype: DTypeLike | None = None,
    device: Place = None,
    endpoint: bool = True,
) -> Tensor:
    """``num`` numbers evenly spaced from ``start`` to ``stop``, which is left out with ``endpoint=False``.

    The type is float32 (complex64 for complex ends) unless given. Computed in float64 and rounded once.
    """
    (count,) = _shape("linspace", num)
    is_complex = isinstance(start, complex) or isinstance(stop, complex)
    target = as_dtype(dtype or (dtypes.complex64 if is_complex else dtypes.float32))
    if is_complex and target.kind != "complex":
        raise DTypeError(f"linspace: complex numbers do not fit in {target.name}")
    scale = 1 if cmath.isfinite(stop - start) else 2  # the distance itself may overflow
    ends = (start / scale, stop / scale) if scale > 1 else (start, stop)
    wide = np.complex128 if is_complex else np.float64
    steps = quiet.run(make, as_device(device), "linspace", *ends, count, dtype=wide, endpoint=endpoint)
    values = steps.storage * scale
    if target.kind in ("int", "uint"):
        values = np.floor(values)
    return wrap(quiet.run(values.astype, target.numpy), steps.device)


@operation
def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: DTypeLike | None = None, device: Place = None
) -> Tensor:
    """A matrix of zeros with ones on the k-th diagonal (above the main one for k > 0)."""
    rows, columns = _shape("eye", (n_rows, n_rows if n_cols is None else n_cols))
    return make(as_device(device), "eye", rows, columns, k, _float(dtype))


@operation
def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """x (…, m, n) with zeros above the k-th diagonal of each matrix."""
    return _triangle("tril", x, k)


@operation
def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """x (…, m, n) with zeros below the k-th diagonal of each matrix."""
    return _triangle("triu", x, k)


def _triangle(name: str, x: Tensor, k: int) -> Tensor:
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected at least 2 dimensions, found shape {x.shape}")
    return Tensor(getattr(module_of(x.storage), name)(x.storage, k), x.device)


@operation
def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """Coordinate tensors of a grid, one for each vector of coordinates.

    Args:
        arrays: vectors (n0,), (n1,), …
        indexing: ``"xy"`` gives tensors (n1, n0, n2, …), ``"ij"`` (n0, n1, n2, …).
    """
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"meshgrid: indexing is {indexing!r}; expected 'xy' or 'ij'")
    for x in arrays:
        if x.ndim > 1:
            raise ShapeError(f"meshgrid: expected vectors, found shape {x.shape}")
    if not arrays:
        return []
    grids = module_of(arrays[0].storage).meshgrid(*(x.storage for x in arrays), indexing=indexing)
    return [Tensor(grid, arrays[0].device) for grid in grids]
