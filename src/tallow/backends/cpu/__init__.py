"""The CPU backend: kernels of the native module ``tallow._cpu``, registered for the operations that they speed up."""

from __future__ import annotations

import numpy as np

from tallow import _cpu, dtypes

_cpu.register_numpy(np.ndarray, {dtype.name: dtype.numpy for dtype in dtypes.ALL})

from tallow.backends.cpu import activation, arithmetic, attention, audio, conv, linear, norm, positions, softmax  # noqa: E402, F401
