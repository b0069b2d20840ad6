"""Kernels compiled for the CPU, and launched as a driver would launch them."""

import ctypes
import functools
import hashlib
import math
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.backends.cuda.emulator.translate import translated

HERE = Path(__file__).parent
FLAGS = ["-std=c++20", "-O1", "-g1", "-w", "-fPIC", "-pthread", "-march=native", "-ffp-contract=off",
         "-U_FORTIFY_SOURCE", "-fsanitize=undefined", "-fno-sanitize-recover=all"]  # fmt: skip
BLOCKS_MEET = ("sample",)
"""Sources of which all blocks wait for each other: there are few enough to run at once."""


class Function:
    """A kernel for some macros.

    Args:
        file: its source, with ``.cu``.
        name: its name there.
        macros: what the source leaves open.
        arch: the architecture to pretend to be, such as ``"90a"``.
    """

    def __init__(self, file: str, name: str, macros: Mapping[str, object], arch: str) -> None:
        capability = 10 * int(re.sub(r"\D", "", arch))
        library = _library(file, tuple(macros.items()), capability)
        self._launch, self.size = library[f"launch_{name}"], library[f"size_{name}"]
        self._at_once = None if file.removesuffix(".cu") in BLOCKS_MEET else int(macros.get("CLUSTER", 1))  # blocks

    def __call__(self, grid, block, values, shared=0) -> None:
        """Launch it. ``values``: integers (addresses too) and floats, or the bytes of any, unchecked."""
        given = [value if isinstance(value, ctypes.Array) else _as_c(value) for value in values]
        kinds = "".join(_KINDS.get(type(value), "?") for value in given)
        pointers = (ctypes.c_void_p * len(given))(*map(ctypes.addressof, given))
        sizes = [(ctypes.c_uint * 3)(*size, *[1] * (3 - len(size))) for size in (grid, block)]
        at_once = self._at_once or math.prod(sizes[0])
        self._launch(*sizes, ctypes.c_size_t(shared), at_once, kinds.encode(), pointers)


_KINDS = {ctypes.c_int64: "i", ctypes.c_double: "f"}


def _as_c(value):
    return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(int(value))


@functools.cache
def _library(file: str, macros: tuple[tuple[str, object], ...], capability: int) -> ctypes.PyDLL:
    """A source's kernels. The interpreter waits for them, so that no two threads launch at once."""
    given = (*macros, ("__CUDA_ARCH__", capability), (f"__CUDA_ARCH_FEAT_SM{capability // 10}_ALL", 1))
    defined = "".join(f"#define {name} {value}\n" for name, value in given)
    text = f'#include "instructions.h"\n{defined}{translated(file)}'
    folder = _folder()
    stem = folder / f"{file.removesuffix('.cu')}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    source, library = stem.with_suffix(".cpp"), stem.with_suffix(".so")
    if not library.exists():
        source.write_text(text)
        _compile(library, "-shared", source, folder / "device.so", f"-Wl,-rpath,{folder}")
    return ctypes.PyDLL(str(library))


@functools.cache
def _folder() -> Path:
    """Where all that is compiled lies: at first what every kernel needs, headers so that they are read only once."""
    folder = Path(os.environ["EMULATOR_FOLDER"])
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "device.so").exists():
        for name in ("device.h", "numbers.h", "products.h", "instructions.h", "device.cpp"):
            shutil.copy(HERE / name, folder)
        _compile(folder / "instructions.h.gch", "-x", "c++-header", folder / "instructions.h")
        _compile(folder / "device.so", "-shared", folder / "device.cpp")
    return folder


def _compile(to: Path, *arguments: object) -> None:
    """Make a file, whole from the moment it is there: other processes may look for it."""
    part = to.with_suffix(f".{os.getpid()}")
    subprocess.run(["c++", *FLAGS, *map(str, arguments), "-o", part], check=True)
    os.replace(part, to)
