"""Handing arrays to other libraries and taking theirs, without a copy (DLPack).

NumPy makes and reads the capsules. It refuses two things that tensors have, bfloat16 and read-only memory, so it is
shown unsigned 16-bit integers and writable memory instead, and the capsule is corrected afterwards.

Source: https://dmlc.github.io/dlpack/latest/c_api.html, the structs DLManagedTensor and DLManagedTensorVersioned.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tallow import dtypes
from tallow.device import CPU, as_device
from tallow.errors import DeviceError, DTypeError, ExchangeError
from tallow.tensor import Tensor

_CPU_KINDS = (1, 3)  # kDLCPU, and kDLCUDAHost: memory that the CPU reaches
_CUDA_KINDS = (2, 13)  # kDLCUDA, kDLCUDAManaged
_UINT, _BFLOAT = 1, 4  # DLDataTypeCode
_READ_ONLY, _COPIED = 1, 2  # bits of DLManagedTensorVersioned.flags

_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.restype, _capsule_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class _Fields:
    """The two fields of a capsule's struct that are read and changed here: the element type and the flags."""

    def __init__(self, capsule: Any) -> None:
        name = _capsule_name(capsule)
        address = _capsule_pointer(capsule, name)
        versioned = name == b"dltensor_versioned"
        self.flags = ctypes.c_uint64.from_address(address + 24) if versioned else None
        self.type_code = ctypes.c_uint8.from_address(address + (32 if versioned else 0) + 20)


class _Writable:
    """Shows read-only memory to NumPy as if it were writable. Holds on to its owner."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.owner = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def exported(x: Tensor, stream: Any, max_version: Any, dl_device: Any, copy: bool | None) -> Any:
    """A capsule around a tensor's memory; the arguments are those of ``__dlpack__``.

    Raises:
        ExchangeError: (a BufferError) for a device or stream that the memory does not lie on.
    """
    if x.device is not CPU:
        return x.storage.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)
    if stream is not None:
        raise ExchangeError(f"__dlpack__: a tensor on the CPU has no streams, found stream={stream!r}")
    if dl_device is not None and tuple(map(int, dl_device)) != (1, 0):
        raise ExchangeError(f"__dlpack__: the tensor lies on the CPU, (1, 0), not on {tuple(dl_device)}; see to_device")
    array = x.storage.copy() if copy else x.storage
    narrow = array.dtype == dtypes.bfloat16.numpy
    shown = array.view(np.uint16) if narrow else array
    if not shown.flags.writeable:
        shown = np.asarray(_Writable(shown))
    capsule = shown.__dlpack__(max_version=None if max_version is None else tuple(max_version))
    fields = _Fields(capsule)
    if narrow:
        fields.type_code.value = _BFLOAT
    if fields.flags is not None:
        fields.flags.value |= (0 if array.flags.writeable else _READ_ONLY) | (_COPIED if copy else 0)
    return capsule


class _Shown:
    """Another library's array as NumPy takes it: bfloat16 passes for unsigned integers, which is noted."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.narrow = self.read_only = False

    def __dlpack_device__(self) -> Any:
        return (1, 0)

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.source.__dlpack__(**options)
        fields = _Fields(capsule)
        self.read_only = fields.flags is not None and bool(fields.flags.value & _READ_ONLY)
        self.narrow = fields.type_code.value == _BFLOAT
        if self.narrow:
            fields.type_code.value = _UINT
        return capsule


def imported(source: Any) -> Tensor:
    """A tensor around the memory of another library's array.

    Raises:
        DeviceError: for memory on a device that tensors cannot lie on.
        DTypeError: for a type that tensors do not have.
        ExchangeError: (a BufferError) where the other library refuses.
    """
    kind, index = source.__dlpack_device__()
    if int(kind) in _CUDA_KINDS:
        device = as_device(f"cuda:{index}")
        import cupy

        return Tensor(cupy.from_dlpack(source), device)
    if int(kind) not in _CPU_KINDS:
        raise DeviceError(
            f"from_dlpack: {type(source).__name__} lies on DLPack device kind {int(kind)}, not CPU or CUDA"
        )
    shown = _Shown(source)
    try:
        array = np.from_dlpack(shown)
    except (BufferError, RuntimeError) as error:
        raise ExchangeError(f"from_dlpack: {type(source).__name__}: {error}") from None
    if not (shown.read_only or array.flags.writeable):  # NumPy before 2.2 takes everything as read-only
        array = np.asarray(_Writable(array))
    if shown.narrow:
        array = array.view(dtypes.bfloat16.numpy)
    if array.dtype not in dtypes.NUMPY:
        raise DTypeError(f"from_dlpack: no tensor holds {array.dtype}")
    return Tensor(array)
