"""Stands in for CuPy and for a card. To be imported before anything of the CUDA backend, in a process of its own."""

import ctypes
import hashlib
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import ml_dtypes
import numpy as np

from tests.backends.cuda.emulator.translate import translated

BF16 = np.dtype(ml_dtypes.bfloat16)
BLOCKS = 3  # of the grid, so that shares are uneven
HERE = Path(__file__).parent
_kept = []  # memory is never given to others


class Array(np.ndarray):
    """An array that says where it lies as CuPy's do."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


def array(values, dtype=None):
    """Values at an address as aligned as CuPy's."""
    values = np.asarray(values)
    to = empty(values.shape, dtype or values.dtype)
    to[...] = values.astype(to.dtype)
    return to


def empty(shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 256, 0xFF, np.uint8)
    _kept.append(memory)
    begin = -memory.ctypes.data % 256
    return memory[begin : begin + size].view(dtype).reshape(shape).view(Array)


cupy = MagicMock(ndarray=Array, empty=empty, __spec__=ModuleSpec("cupy", None))
sys.modules["cupy"] = cupy
for name in ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.api", "cupy_backends.cuda.api.driver",
             "cupy_backends.cuda.api.runtime", "cupy.cuda", "cupy.cuda.memory"):  # fmt: skip
    sys.modules[name] = MagicMock()

from tallow.backends.cuda import graph, phases, program  # noqa: E402


class Emulated:
    """What ``kernels.function`` gives: the kernel for some macros, compiled for the CPU."""

    def __init__(self, macros):
        text = "".join(f"#define {name} {value}\n" for name, value in macros.items()) + translated()
        stem = Path(os.environ["EMULATOR_FOLDER"]) / hashlib.sha256(text.encode()).hexdigest()[:16]
        source, library = stem.with_suffix(".cpp"), stem.with_suffix(".so")
        if not library.exists():
            source.write_text(text)
            command = ["c++", "-std=c++20", "-O1", "-g", "-w", "-shared", "-fPIC", "-pthread", "-fsanitize=undefined",
                       "-fno-sanitize-recover=all", f"-I{HERE}", source, "-o", library]  # fmt: skip
            subprocess.run(command, check=True)
        self._launch = ctypes.CDLL(str(library)).launch

    def together(self, grid, block, arguments, shared):
        instructions, count, counters, *sizes = arguments
        self._arguments = (
            grid[0], ctypes.c_size_t(shared), ctypes.c_void_p(instructions.data.ptr), ctypes.c_int64(count),
            ctypes.c_void_p(counters.data.ptr), *(ctypes.c_int64(int(size)) for size in sizes),
        )  # fmt: skip
        launched.append(self)
        self.again()

    def again(self):
        if self._launch(*self._arguments):
            raise SystemExit("the grid is stuck")


launched = []
recording = SimpleNamespace(program=None, kept=[])


def flush():
    if recording.program is not None:
        closed, recording.program = recording.program, None
        recording.kept += closed.close()


graph.recorded, graph.flush = lambda: recording, flush
program.on, program._can = True, lambda: True
phases.multiprocessors = program.multiprocessors = lambda: BLOCKS
program.function = lambda file, name, shared, **macros: Emulated(macros)
program.lasting = lambda size, dtype, values=None: array(np.zeros(size, dtype) if values is None else values)


def numbers(generator, *shape):
    return array(generator.standard_normal(shape) / np.sqrt(shape[-1]), BF16)


def wide(x):
    return np.asarray(x, np.float32)


def rounded(x):
    return wide(wide(x).astype(BF16))


def error(found, expected):
    found, expected = wide(found), wide(expected)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
