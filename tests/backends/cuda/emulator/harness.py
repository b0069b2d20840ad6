"""What runs program.cu alone. To be imported before anything of the CUDA backend, in a process of its own."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np

from tests.backends.cuda.emulator import standin
from tests.backends.cuda.emulator.build import Function
from tests.backends.cuda.emulator.standin import BLOCKS

BF16 = np.dtype(ml_dtypes.bfloat16)
_kept = []  # memory is never given to others

standin.install()

from tallow.backends.cuda import graph, phases, program  # noqa: E402


def array(values, dtype=None):
    """Values on the card."""
    values = np.asarray(values)
    to = empty(values.shape, dtype or values.dtype)
    to[...] = values.astype(to.dtype)
    return to


def empty(shape, dtype):
    _kept.append(standin.empty(shape, dtype))
    return _kept[-1]


class Emulated:
    """What ``kernels.function`` gives: the kernel for some macros, compiled for the CPU."""

    def __init__(self, macros):
        self._function = Function("program.cu", "program", macros, "90a")

    def together(self, grid, block, arguments, shared):
        values = [each.data.ptr if isinstance(each, np.ndarray) else each for each in arguments]
        self._arguments = grid, block, values, shared, True
        launched.append(self)
        self.again()

    def again(self):
        self._function(*self._arguments)


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
