"""CUDA C++ into machine code: NVRTC through ctypes, and the results kept on disk.

Neither CuPy nor a card is needed here, so every kernel is compiled for every architecture where there is no GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import tempfile
from collections.abc import Mapping
from importlib import resources
from typing import Any

from tallow.device import driver_version
from tallow.errors import DeviceError

ARCHITECTURES = ("80", "86", "89", "90a", "100a", "120")
"""Those that kernels are written for. One with an ``a`` has instructions that no other has."""


def architecture(capability: tuple[int, int]) -> str:
    """The architecture to compile for on a card of this compute capability."""
    name = f"{capability[0]}{capability[1]}"
    return name + "a" if name + "a" in ARCHITECTURES else name


def machine_code(file: str, macros: Mapping[str, Any], arch: str) -> bytes:
    """The compiled form of a source beside this module, from the disk if it has been compiled before.

    Args:
        file: its name, such as ``"norm.cu"``.
        macros: what the preprocessor is to know.
        arch: one of ``ARCHITECTURES``, or another ``sm_`` number.

    Raises:
        DeviceError: if NVRTC is not installed, or refuses the source; the message holds what it says.
    """
    options = [f"--gpu-architecture=sm_{arch}", "-std=c++17", *(f"-D{name}={value}" for name, value in macros.items())]
    parts = [_source(file), *_headers().values(), *options, f"NVRTC {version()}", f"driver {driver_version()}"]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    path = os.path.join(cache_folder(), f"{file.removesuffix('.cu')}-sm_{arch}-{key[:32]}.cubin")
    try:
        with open(path, "rb") as kept:
            return kept.read()
    except OSError:
        code = compiled(file, options)
    _keep(path, code)
    return code


def cache_folder() -> str:
    """Where compiled kernels are kept: ``tallow/kernels`` in ``XDG_CACHE_HOME``, which is ``~/.cache`` by default."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tallow", "kernels")


def _keep(path: str, code: bytes) -> None:
    """Write a file that other processes may be reading or writing too: it is there whole, or not at all.

    A disk that is full or may not be written to only costs the next process its time.
    """
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=os.path.dirname(path))
        try:
            with open(handle, "wb") as file:
                file.write(code)
            os.replace(draft, path)
        except OSError:
            os.unlink(draft)


@functools.cache
def _source(file: str) -> str:
    return resources.files(__package__).joinpath(file).read_text()


@functools.cache
def _headers() -> dict[str, str]:
    """What sources may include, by name."""
    entries = sorted(resources.files(__package__).iterdir(), key=lambda entry: entry.name)
    return {entry.name: entry.read_text() for entry in entries if entry.name.endswith(".cuh")}


def compiled(file: str, options: list[str]) -> bytes:
    """What NVRTC makes of a source beside this module. Raises DeviceError with what it says if it refuses."""
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    found = _headers()
    headers = (ctypes.c_char_p * len(found))(*(text.encode() for text in found.values()))
    names = (ctypes.c_char_p * len(found))(*(name.encode() for name in found))
    source = _source(file).encode()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, file.encode(), len(found), headers, names)
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), given) != 0:
            log = _output(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            said = log.rstrip(b"\0").decode(errors="replace")
            raise DeviceError(f"NVRTC {version()} does not compile {file} with {' '.join(options)}:\n{said}")
        return _output(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _output(get_size: Any, get: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    get_size(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    get(program, buffer)
    return buffer.raw


@functools.cache
def version() -> str:
    """NVRTC's, such as ``"13.1"``."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    return load_library("nvrtc")


def load_library(name: str) -> ctypes.CDLL:
    """A library of the toolkit, ``"nvrtc"`` or ``"cublasLt"``, from NVIDIA's packages or where the system has it.

    Raises:
        DeviceError: if it is not there.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib(name).abs_path)
    except (ImportError, OSError, RuntimeError) as error:
        raise DeviceError(f"the CUDA library {name} is not installed: pip install 'tallow[cuda]' ({error})") from None
