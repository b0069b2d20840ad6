"""The CPU backend: kernels of the native module ``tallow._cpu``, registered for the operations that they speed up."""

from __future__ import annotations

import numpy as np

from tallow import _cpu, dtypes

_cpu.register_numpy(np.ndarray, {dtype.name: dtype.numpy for dtype in dtypes.ALL})

from tallow.backends.cpu import (  # noqa: E402
    activation,  # noqa: F401
    arithmetic,  # noqa: F401
    attention,  # noqa: F401
    audio,  # noqa: F401
    conv,  # noqa: F401
    linear,  # noqa: F401
    norm,  # noqa: F401
    positions,  # noqa: F401
    searching,  # noqa: F401
    softmax,  # noqa: F401
)
