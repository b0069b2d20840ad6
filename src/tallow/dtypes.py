"""Data types: the objects, their promotion, and what the array API asks about them.

NumPy with ``ml_dtypes`` stores bfloat16 but does not know its arithmetic, so promotion, ``isdtype`` and ``finfo`` are
defined here and not asked of NumPy. The rules, beyond the array API's own:

- a float wins over an integer or a bool, whatever their widths: int64 with float32 is float32;
- bfloat16 with float16 is float32, the smallest type that holds both;
- Python (and NumPy) scalars are weak: they take the tensor's type, or the default type of their kind (float32,
  complex64, int64) where the tensor's kind is lower;
- uint64 with a signed integer has no common type and is an error.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tallow.errors import DTypeError


class DType:
    """One data type. There is exactly one object for each, so ``is`` and ``==`` agree.

    Attributes:
        name: the array API's name, such as ``"float32"``.
        kind: ``"bool"``, ``"int"``, ``"uint"``, ``"float"`` or ``"complex"``.
        itemsize: bytes in one element.
        numpy: the ``numpy.dtype`` that stores it.
    """

    __slots__ = ("itemsize", "kind", "name", "numpy")

    def __init__(self, name: str, kind: str, storage: Any) -> None:
        self.name = name
        self.kind = kind
        self.numpy: np.dtype[Any] = np.dtype(storage)
        self.itemsize = self.numpy.itemsize

    def __repr__(self) -> str:
        return f"tallow.{self.name}"

    def __reduce__(self) -> str:
        return {"bool": "bool_"}.get(self.name, self.name)

    @property
    def is_floating(self) -> bool:
        """Whether it holds real floating-point numbers."""
        return self.kind == "float"


DTypeLike = DType | str | type | np.dtype[Any]
"""What stands for a data type wherever one is asked for: itself, its name, or Python's or NumPy's counterpart."""

bool_ = DType("bool", "bool", np.bool_)
int8 = DType("int8", "int", np.int8)
int16 = DType("int16", "int", np.int16)
int32 = DType("int32", "int", np.int32)
int64 = DType("int64", "int", np.int64)
uint8 = DType("uint8", "uint", np.uint8)
uint16 = DType("uint16", "uint", np.uint16)
uint32 = DType("uint32", "uint", np.uint32)
uint64 = DType("uint64", "uint", np.uint64)
float16 = DType("float16", "float", np.float16)
bfloat16 = DType("bfloat16", "float", ml_dtypes.bfloat16)
float32 = DType("float32", "float", np.float32)
float64 = DType("float64", "float", np.float64)
complex64 = DType("complex64", "complex", np.complex64)
complex128 = DType("complex128", "complex", np.complex128)

ALL: tuple[DType, ...] = (
    bool_,
    int8, int16, int32, int64,
    uint8, uint16, uint32, uint64,
    float16, bfloat16, float32, float64,
    complex64, complex128,
)  # fmt: skip

_BY_NUMPY: dict[Any, DType] = {dtype.numpy: dtype for dtype in ALL}
_BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in ALL} | {
    "f16": float16, "half": float16, "bf16": bfloat16, "f32": float32, "float": float32, "f64": float64,
}  # fmt: skip
NUMPY = frozenset(_BY_NUMPY)
"""The NumPy dtypes that tensors may be stored in."""
_BY_PYTHON: dict[type, DType] = {bool: bool_, int: int64, float: float32, complex: complex64}


def of_numpy(storage: np.dtype[Any]) -> DType:
    """The data type that a NumPy dtype stores. Raises DTypeError for strings, objects, dates and the like."""
    found = _BY_NUMPY.get(storage)
    if found is None:
        raise DTypeError(f"no Tallow dtype for NumPy's {storage}; Tallow has {', '.join(d.name for d in ALL)}")
    return found


def is_name(value: str) -> bool:
    """Whether a string names a data type."""
    return value in _BY_NAME


def as_dtype(value: DTypeLike) -> DType:
    """The data type meant by a DType, a name (``"bfloat16"``, ``"f32"``), a Python type or a NumPy dtype."""
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in _BY_NAME:
        return _BY_NAME[value]
    if isinstance(value, type) and value in _BY_PYTHON:
        return _BY_PYTHON[value]
    try:
        if value is not None:  # which NumPy takes for float64
            return of_numpy(np.dtype(value))
    except TypeError:
        pass
    raise DTypeError(f"not a dtype: {value!r}; Tallow has {', '.join(d.name for d in ALL)}")


# --- promotion -------------------------------------------------------------------------------------------------------

_KIND_ORDER = ("bool", "uint", "int", "float", "complex")


def _common(a: DType, b: DType) -> DType | None:
    """The smallest type that both promote to by the rules at the top of this file; None if there is none."""
    if a is b:
        return a
    if _KIND_ORDER.index(a.kind) > _KIND_ORDER.index(b.kind):
        a, b = b, a
    if a.kind == b.kind:
        if a.itemsize == b.itemsize:
            return float32  # float16 with bfloat16: the only two of one kind and size
        return a if a.itemsize > b.itemsize else b
    if a.kind == "bool":
        return b
    if b.kind == "int":  # with an unsigned one
        if a.itemsize < b.itemsize:
            return b
        return {1: int16, 2: int32, 4: int64}.get(a.itemsize)
    if b.kind == "complex" and a is float64:
        return complex128
    return b


_PROMOTION: dict[tuple[DType, DType], DType | None] = {(a, b): _common(a, b) for a in ALL for b in ALL}


def promote(a: DType, b: DType) -> DType:
    """The type of the result of an operation on two types. Raises DTypeError where there is none."""
    found = _PROMOTION[a, b]
    if found is None:
        raise DTypeError(f"{a.name} and {b.name} have no common type; convert one with .astype()")
    return found


def promote_scalar(dtype: DType, scalar: complex) -> DType:
    """The type of the result of an operation on a tensor and a Python scalar, which is weak."""
    kind = type(scalar)
    if kind is bool or dtype.kind == "complex":
        return dtype
    if kind is int:
        return int64 if dtype.kind == "bool" else dtype
    if kind is float:
        return dtype if dtype.kind == "float" else float32
    return complex128 if dtype is float64 else complex64


def fits(scalar: complex, storage: np.dtype[Any]) -> bool:
    """Whether an integer (or bool) lies in the range of an integer dtype; True for other scalars."""
    if not isinstance(scalar, int):
        return True
    limits = iinfo(of_numpy(storage))
    return limits.min <= scalar <= limits.max


_LEVEL = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3}


def same_kind(source: DType, target: DType) -> bool:
    """Whether values of one type may be written into memory of another: only to the same kind of number or above."""
    return _LEVEL[source.kind] <= _LEVEL[target.kind]


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The type that tensors, dtypes and Python scalars promote to together.

    Raises:
        DTypeError: for no argument at all, only scalars, or types without a common one.
    """
    scalars = [value for value in arrays_and_dtypes if isinstance(value, (bool, int, float, complex))]
    others = [value for value in arrays_and_dtypes if not isinstance(value, (bool, int, float, complex))]
    if not others:
        raise DTypeError("result_type: at least one tensor or dtype is needed beside the scalars")
    dtypes = [value.dtype if isinstance(getattr(value, "dtype", None), DType) else as_dtype(value) for value in others]
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = promote(result, dtype)
    for scalar in scalars:
        result = promote_scalar(result, scalar)
    return result


def can_cast(from_: Any, to: DTypeLike, /) -> bool:
    """Whether promotion leads from one type (or a tensor's) to the other."""
    source = from_.dtype if isinstance(getattr(from_, "dtype", None), DType) else as_dtype(from_)
    target = as_dtype(to)
    return _PROMOTION[source, target] is target


# --- questions about types -------------------------------------------------------------------------------------------

_KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",),
    "signed integer": ("int",),
    "unsigned integer": ("uint",),
    "integral": ("int", "uint"),
    "real floating": ("float",),
    "complex floating": ("complex",),
    "numeric": ("int", "uint", "float", "complex"),
}


def isdtype(dtype: DTypeLike, kind: Any) -> bool:
    """Whether a type is of a kind: a DType, one of the array API's names of kinds, or a tuple of these (any of them).

    Raises:
        DTypeError: for a kind that is neither.
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, each) for each in kind)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise DTypeError(f"isdtype: no kind {kind!r}; there are {', '.join(map(repr, _KINDS))}")
        return as_dtype(dtype).kind in _KINDS[kind]
    return as_dtype(dtype) is as_dtype(kind)


class FloatInfo(NamedTuple):
    """The limits of a floating-point type; for a complex one, of its components."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


class IntInfo(NamedTuple):
    """The limits of an integer type."""

    bits: int
    max: int
    min: int
    dtype: DType


# Digits of the significand after the point, and the largest exponent (IEEE 754; bfloat16 is the upper half of float32).
_FLOAT_FORMATS = {float16: (10, 15), bfloat16: (7, 127), float32: (23, 127), float64: (52, 1023)}


def finfo(type: Any, /) -> FloatInfo:
    """The limits of a floating-point or complex type, or of a tensor's. Raises DTypeError for other types."""
    given = type.dtype if isinstance(getattr(type, "dtype", None), DType) else as_dtype(type)
    real = {complex64: float32, complex128: float64}.get(given, given)
    if real not in _FLOAT_FORMATS:
        raise DTypeError(f"finfo: expected a floating-point type, found {given.name}; see iinfo")
    digits, exponent = _FLOAT_FORMATS[real]
    largest = math.ldexp(2.0 - math.ldexp(1.0, -digits), exponent)
    return FloatInfo(
        bits=8 * real.itemsize,
        eps=math.ldexp(1.0, -digits),
        max=largest,
        min=-largest,
        smallest_normal=math.ldexp(1.0, 1 - exponent),
        dtype=real,
    )


def iinfo(type: Any, /) -> IntInfo:
    """The limits of an integer type, or of a tensor's. Raises DTypeError for other types."""
    given = type.dtype if isinstance(getattr(type, "dtype", None), DType) else as_dtype(type)
    if given.kind not in ("int", "uint"):
        raise DTypeError(f"iinfo: expected an integer type, found {given.name}; see finfo")
    bits = 8 * given.itemsize
    if given.kind == "uint":
        return IntInfo(bits, 2**bits - 1, 0, given)
    return IntInfo(bits, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), given)


def wide(dtype: DType) -> DType:
    """The type that arithmetic on a type is done in: float32 for float16 and bfloat16, else the type itself."""
    return float32 if dtype is float16 or dtype is bfloat16 else dtype
