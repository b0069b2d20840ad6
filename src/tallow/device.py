"""Where tensors live: ``cpu`` or ``cuda:N``, and how ``auto`` chooses."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
from typing import Any

from tallow.errors import DeviceError

logger = logging.getLogger("tallow")
_devices: dict[tuple[str, int], Device] = {}


class Device:
    """A place for tensors and computation: ``Device("cpu")``, ``Device("cuda", 1)``.

    There is one object for each, so ``is`` and ``==`` agree. Whether the place is there is asked by ``as_device``.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``.
        index: which card; 0 for the CPU.
    """

    __slots__ = ("index", "kind")
    kind: str
    index: int

    def __new__(cls, kind: str, index: int = 0) -> Device:
        """The device of that kind and index. Raises DeviceError for a kind that there is not."""
        found = _devices.get((kind, index))
        if found is None:
            if kind != "cuda" and (kind, index) != ("cpu", 0):
                raise DeviceError(f"no device of kind {kind!r} and index {index}; there are 'cpu' (index 0) and 'cuda'")
            found = object.__new__(cls)
            found.kind, found.index = kind, index
            found = _devices.setdefault((kind, index), found)
        return found

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"{self.kind}:{self.index}"

    def __repr__(self) -> str:
        return f"Device({str(self)!r})"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return as_device, (str(self),)


CPU = Device("cpu")


def as_device(value: str | Device | None) -> Device:
    """The device meant by a Device, ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"auto"`` or None (the CPU).

    Raises:
        DeviceError: for a name that is none of these, or a CUDA device that this machine or installation lacks.
    """
    if isinstance(value, Device):
        return value
    if value is None or value == "cpu":
        return CPU
    if value == "auto":
        return default_device()
    kind, _, index = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind != "cuda" or not (index == "" or index.isdecimal()):
        raise DeviceError(f"no device {value!r}; there are 'cpu', 'cuda', 'cuda:N' and 'auto'")
    number = int(index or 0)
    trouble = cuda_trouble(number)
    if trouble:
        raise DeviceError(f"device {value!r}: {trouble}")
    return Device("cuda", number)


@functools.cache
def default_device() -> Device:
    """The device that ``auto`` means: the first GPU that can be used, else the CPU. Chosen once, and logged."""
    trouble = cuda_trouble(0)
    if trouble is None:
        logger.info("device auto: cuda:0 (%d GPU(s) found)", cuda_device_count())
        return Device("cuda")
    logger.info("device auto: cpu (%s)", trouble)
    return CPU


def cuda_trouble(index: int) -> str | None:
    """Why ``cuda:index`` cannot be used, or None if it can."""
    count = cuda_device_count()
    if count == 0:
        hint = "the NVIDIA driver and a card are needed, and the extra: pip install 'tallow[cuda]'"
        return f"no CUDA device on this machine; {hint}"
    if index >= count:
        return f"this machine has {count} CUDA device(s), cuda:0 to cuda:{count - 1}"
    if importlib.util.find_spec("cupy") is None:
        return "the CUDA backend is not installed: pip install 'tallow[cuda]'"
    if importlib.util.find_spec("tallow.backends.cuda") is None:
        return "this version of Tallow runs on the CPU only"
    return None


@functools.cache
def cuda_device_count() -> int:
    """How many CUDA devices the driver shows; 0 without a driver. Asks the driver itself, so CuPy stays unimported."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0
