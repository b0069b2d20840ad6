"""Into tensors, out of other libraries' arrays, and from one data type, device or memory layout to another."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import dtypes
from tallow.device import CPU, Device, as_device
from tallow.dtypes import DType, DTypeLike, as_dtype
from tallow.errors import ArgumentError, DTypeError, ShapeError
from tallow.ops.dispatch import gives_value, operation
from tallow.ops.operands import make, quiet
from tallow.tensor import Tensor


@operation
def asarray(
    obj: Any, /, *, dtype: DTypeLike | None = None, device: Device | str | None = None, copy: bool | None = None
) -> Tensor:
    """A tensor of what ``obj`` holds.

    Args:
        obj: a Tensor, a NumPy or CuPy array, anything with ``__dlpack__``, ``__array__`` or the buffer protocol (its
            memory is shared where type and device allow), a Python scalar, or nested sequences of scalars or tensors
            (floats become float32, integers int64, complex numbers complex64).
        dtype: the result's type; by default what ``obj`` has.
        device: where the result lies; by default where ``obj`` lies, and the CPU for what lies nowhere.
        copy: True always copies, False never, None only where needed.

    Raises:
        DTypeError: for what holds no numbers.
        ShapeError: for nested sequences of unequal length.
        ArgumentError: for a copy that ``copy=False`` forbids, or an integer beyond the type's range.

    Examples:
        >>> tl.asarray([1, 2, 3])
        Tensor([1, 2, 3], shape=(3,), dtype=int64, device='cpu')
        >>> tl.asarray([0.5, 1.5], dtype=tl.bfloat16).dtype
        tallow.bfloat16
        >>> import numpy as np
        >>> array = np.zeros(3)
        >>> x = tl.asarray(array)
        >>> array[0] = 7.0
        >>> x.tolist()
        [7.0, 0.0, 0.0]
    """
    target = None if dtype is None else as_dtype(dtype)
    place = None if device is None else as_device(device)
    shared = _adopted(obj)
    x = _of_python(obj, target) if shared is None else shared
    if target is not None and x.dtype is not target:
        x = _cast("asarray", x, target)
    if place is not None and x.device is not place:
        x = _moved(x, place)
    if shared is not x and copy is False:
        raise ArgumentError(f"asarray: this {type(obj).__name__} needs a copy, and copy=False forbids it")
    return Tensor(x.storage.copy(), x.device) if shared is x and copy else x


def _adopted(obj: Any) -> Tensor | None:
    """A tensor around the memory of an array of any library; None for Python's own scalars and sequences."""
    if type(obj) is Tensor:
        return obj
    if isinstance(obj, (bool, int, float, complex, list, tuple, range)) and not isinstance(obj, np.generic):
        return None
    if isinstance(obj, (np.ndarray, np.generic)):
        return _of_numpy(obj)
    if hasattr(obj, "__dlpack__"):
        from tallow.dlpack import imported

        return imported(obj)
    return _of_numpy(np.asarray(memoryview(obj) if isinstance(obj, bytes) else obj))


def _of_numpy(array: Any) -> Tensor:
    """A tensor around a NumPy array's memory; a foreign byte order is turned into this machine's."""
    plain = np.asarray(array)
    if not plain.dtype.isnative:
        plain = plain.astype(plain.dtype.newbyteorder("="))
    if plain.dtype not in dtypes.NUMPY:
        raise DTypeError(f"asarray: no tensor holds NumPy's {plain.dtype}; {_AVAILABLE}")
    return Tensor(plain, CPU)


_AVAILABLE = "tensors hold " + ", ".join(dtype.name for dtype in dtypes.ALL)


def _of_python(obj: Any, target: DType | None) -> Tensor:
    """A tensor of a Python scalar, or of nested sequences of scalars, arrays or tensors."""
    leaf = obj
    while isinstance(leaf, (list, tuple)) and leaf:
        leaf = leaf[0]
    if type(leaf) is Tensor:
        from tallow.ops.manipulation import stack

        return stack([asarray(each, dtype=target) for each in obj])
    weak = not isinstance(leaf, (np.ndarray, np.generic))
    try:
        array = np.asarray(obj) if target is None or not weak else quiet.run(np.asarray, obj, target.numpy)
    except OverflowError:
        raise ArgumentError(f"asarray: an integer lies outside the range of {(target or dtypes.int64).name}") from None
    except ValueError as error:
        if "inhomogeneous" in str(error):
            raise ShapeError(f"asarray: nested sequences must have equal lengths: {error}") from None
        raise ArgumentError(f"asarray: {error}") from None
    except TypeError as error:
        raise DTypeError(f"asarray: {error}; {_AVAILABLE}") from None
    if weak and target is None:
        if array.dtype == np.object_:  # integers beyond 64 bits, or no numbers at all
            array = _of_objects(array)
        if array.dtype == np.uint64:
            raise ArgumentError(_TOO_LARGE)
        default = {"f": np.dtype(np.float32), "c": np.dtype(np.complex64)}.get(array.dtype.kind)
        array = array if default is None else quiet.run(array.astype, default)
    return _of_numpy(array)


_TOO_LARGE = "asarray: an integer lies outside the range of int64; give a dtype that holds it"


def _of_objects(array: Any) -> Any:
    """An array of Python numbers that NumPy could not unite because of the size of some integers."""
    elements = array.ravel().tolist()
    if not all(isinstance(element, (bool, int, float, complex)) for element in elements):
        raise DTypeError(f"asarray: an element is no number; {_AVAILABLE}")
    wide = {float: np.float64, complex: np.complex128}
    found = [wide[type(element)] for element in elements if type(element) in wide]
    if not found:
        raise ArgumentError(_TOO_LARGE)
    return array.astype(np.result_type(*found))


def from_dlpack(x: Any, /, *, device: Device | str | None = None, copy: bool | None = None) -> Tensor:
    """A tensor around the memory of another library's array (PyTorch, JAX, CuPy, NumPy, …), bfloat16 included.

    Args:
        x: an array with ``__dlpack__`` and ``__dlpack_device__``.
        device: where the result lies; by default where ``x`` lies.
        copy: as for ``asarray``.

    Raises:
        DTypeError: for an object without these methods, or of a type that no tensor holds.
        ArgumentError: for a copy that ``copy=False`` forbids.
    """
    if not hasattr(x, "__dlpack__"):
        raise DTypeError(f"from_dlpack: expected an array with __dlpack__, found {type(x).__name__}")
    return asarray(x, device=device, copy=copy)


@operation
def astype(x: Tensor, dtype: DTypeLike, /, *, copy: bool = True, device: Device | str | None = None) -> Tensor:
    """The same values in another type, rounded to nearest; complex numbers cannot become real (see ``real``).

    Args:
        x: the tensor.
        dtype: the type to give it.
        copy: False returns x itself where type and device are already right.
        device: where the result lies; by default where x lies.
    """
    target = as_dtype(dtype)
    place = x.device if device is None else as_device(device)
    if not copy and x.dtype is target and place is x.device:
        return x
    return _moved(_cast("astype", x, target), place)


def _cast(name: str, x: Tensor, dtype: DType) -> Tensor:
    if x.dtype.kind == "complex" and dtype.kind not in ("complex", "bool"):
        raise DTypeError(f"{name}: {x.dtype.name} cannot become {dtype.name}; take real(x), imag(x) or abs(x)")
    return Tensor(quiet.run(x.storage.astype, dtype.numpy), x.device)


@operation
def to_device(x: Tensor, device: Device | str, /, *, stream: Any = None) -> Tensor:
    """The same values on another device; x itself if it lies there.

    Args:
        x: the tensor.
        device: ``"cpu"``, ``"cuda:N"`` or a Device.
        stream: ignored on the CPU; a CuPy stream to copy on.
    """
    place = as_device(device)
    if place is x.device or stream is None:
        return _moved(x, place)
    with stream:
        return _moved(x, place)


def _moved(x: Tensor, device: Device) -> Tensor:
    if x.device is device:
        return x
    if device.kind == "cpu":
        return Tensor(x.storage.get(), device)
    return make(device, "asarray", x.storage)


@operation
def contiguous(x: Tensor, /) -> Tensor:
    """The same values laid out in row-major order; x itself if they are. No operation of Tallow needs it."""
    return x if x.storage.flags.c_contiguous else Tensor(x.storage.copy(order="C"), x.device)


@operation
def copy(x: Tensor, /) -> Tensor:
    """The same values in memory of their own."""
    return Tensor(x.storage.copy(), x.device)


@gives_value
@operation
def to_numpy(x: Tensor, /) -> np.ndarray[Any, Any]:
    """The values as a NumPy array: the tensor's own memory on the CPU, a copy from CUDA."""
    return x.storage if x.device is CPU else x.storage.get()  # type: ignore[no-any-return]


@gives_value
@operation
def tolist(x: Tensor, /) -> Any:
    """The elements as nested lists of Python scalars; a scalar for a tensor of no dimension."""
    return x.storage.tolist()
