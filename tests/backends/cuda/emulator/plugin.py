"""Runs tests that need a card without one: python -m pytest -p tests.backends.cuda.emulator.plugin FILES

Tests find a card of the compute capability that EMULATOR_CAPABILITY says, 9.0 by default, on which every kernel is
emulated and all else is NumPy's work.
"""

import os
from types import SimpleNamespace

import numpy as np

from tallow import device
from tallow.backends.cuda import compiler
from tests.backends.cuda.emulator import standin

CAPABILITY = tuple(map(int, os.environ.get("EMULATOR_CAPABILITY", "9.0").split(".")))

standin.install()
device.cuda_trouble = lambda index: None if index == 0 else "this machine has 1 CUDA device(s)"
device.cuda_device_count = lambda: 1
device.driver_version = lambda: (13, 0)
device.compute_capability = lambda index: CAPABILITY
device.cuda_driver = lambda: SimpleNamespace(cuLaunchKernelEx=standin.launch)
compiler.machine_code = lambda *what: what

from tallow.backends.cuda import cublaslt, kernels  # noqa: E402

packing = kernels._packing


def noted(kinds):
    """Packed arguments, whose types ``launch`` may look at: a driver knows nothing of them."""
    made = packing(kinds)
    standin.packed.letters = made.format.removeprefix(kernels._CONFIG)
    return made


kernels._packing = noted


def multiply(out, x, distance, weight, bias, activation, added, added_distance, scaled=None):
    """What cuBLASLt would, which is not emulated."""
    assert scaled is None
    outputs, inputs = weight.shape
    rows = np.lib.stride_tricks.as_strided(x, (out.size // outputs, inputs), (distance * x.itemsize, x.itemsize))
    beside = None if added is None else added.reshape(-1, added.shape[-1])

    def act():
        y = wide(rows) @ wide(weight).T + (0 if bias is None else wide(bias))
        if activation == "relu":
            y = np.where(y < 0, 0, y)
        elif activation is not None:
            y = y / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        out[...] = (y if beside is None else y + wide(beside)).reshape(out.shape)

    standin.do(act)


def wide(array):
    return np.asarray(array).astype(np.float32)


cublaslt.multiply, cublaslt.multiplies_fp8 = multiply, lambda: False
