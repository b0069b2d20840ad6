"""How many threads the CPU kernels use."""

from __future__ import annotations

from numbers import Integral

from tallow import _cpu
from tallow.errors import ArgumentError


def get_num_threads() -> int:
    """The number of threads that kernels use: by default ``TALLOW_NUM_THREADS``, or one a core."""
    return int(_cpu.get_num_threads())


def set_num_threads(count: int) -> None:
    """Use so many threads in kernels from now on. Results do not depend on it, to the bit.

    Raises:
        ArgumentError: for what is no whole number from 1 up.
    """
    if not isinstance(count, Integral) or count < 1:
        raise ArgumentError(f"set_num_threads: expected at least 1 thread, found {count!r}")
    _cpu.set_num_threads(int(count))
