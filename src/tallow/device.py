"""Where tensors live: ``cpu`` or ``cuda:N``, and how ``auto`` chooses."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import os
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

    Examples:
        >>> tl.Device("cpu")
        Device('cpu')
        >>> tl.zeros(3).device is tl.Device("cpu")
        True
        >>> str(tl.Device("cuda", 1))
        'cuda:1'
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
    if _forked:
        return "CUDA was started before this process was forked; start such processes with multiprocessing's 'spawn'"
    count = cuda_device_count()
    if count == 0:
        hint = "the NVIDIA driver and a card are needed, and the extra: pip install 'tallow[cuda]'"
        return f"no CUDA device on this machine ({_started_driver()[1]}); {hint}"
    if index >= count:
        return f"this machine has {count} CUDA device(s), cuda:0 to cuda:{count - 1}"
    if importlib.util.find_spec("cupy") is None:
        return "the CUDA backend is not installed: pip install 'tallow[cuda]' (CUDA 13) or 'tallow[cuda12]'"
    return _too_old(index)


@functools.cache
def cuda_device_count() -> int:
    """How many CUDA devices the driver shows; 0 without a driver. Asks the driver itself, so CuPy stays unimported."""
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cuda_driver() -> Any:
    """The driver's library. There must be a card."""
    return _driver()


def _driver() -> Any:
    """The driver's library, started; None where there is none, or no card for it."""
    return _started_driver()[0]


_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


@functools.cache
def _started_driver() -> tuple[Any, str]:
    """The driver's library, or None; and what it finds."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        status = driver.cuInit(0)
        if status == 0:
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_note_fork)
            return driver, "the driver shows none"
        if status == _NO_DEVICE:
            return None, "the driver finds none"
        return None, f"the driver does not start: error {status}; restart the machine if it was just updated"
    return None, "no NVIDIA driver"


_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True
    default_device.cache_clear()


@functools.cache
def _too_old(index: int) -> str | None:
    """Why a card or its driver is too old, or None if they will do."""
    wanted = _toolkit_version()
    if (found := driver_version()) < wanted:
        return (
            f"the NVIDIA driver is for CUDA {found[0]}.{found[1]}, the installed backend needs "
            f"{wanted[0]}.{wanted[1]}; update the driver"
            + (", or pip install 'tallow[cuda12]'" if found[0] == 12 else "")
        )
    capability = compute_capability(index)
    if capability < OLDEST_CAPABILITY:
        return (
            f"the card has compute capability {capability[0]}.{capability[1]}; "
            f"{OLDEST_CAPABILITY[0]}.{OLDEST_CAPABILITY[1]} (Ampere, 2020) is the least that Tallow's kernels run on"
        )
    return None


OLDEST_CAPABILITY = (8, 0)


def driver_version() -> tuple[int, int]:
    """The newest CUDA that the driver can run, (13, 0) for example; (0, 0) without a driver."""
    driver, version = _driver(), ctypes.c_int(0)
    if driver is not None:
        driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def compute_capability(index: int) -> tuple[int, int]:
    """What a card can do, (9, 0) for example. It must be there."""
    driver = _driver()
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    for value, attribute in ((major, 75), (minor, 76)):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, …_MINOR
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
    return major.value, minor.value


def _toolkit_version() -> tuple[int, int]:
    """The CUDA that the installed CuPy was built for; 12.0 is taken for granted where its package doesn't say."""
    found = importlib.util.find_spec("cupy")
    home = os.path.dirname(os.path.dirname(found.origin)) if found is not None and found.origin else ""
    newer = bool(home) and any(name.startswith("cupy_cuda13x") for name in os.listdir(home))
    return (13, 0) if newer else (12, 0)
