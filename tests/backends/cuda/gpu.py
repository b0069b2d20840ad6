"""What the tests that need an NVIDIA GPU share."""

import numpy as np
import pytest

from tallow.device import cuda_trouble
from tallow.tensor import Tensor

_trouble = cuda_trouble(0)
needs_gpu = [pytest.mark.cuda, pytest.mark.skipif(_trouble is not None, reason=str(_trouble))]

TOLERANCE = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.2e-2}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def on_both(array, dtype=None):
    """A tensor on the CPU, in a type, and the same on the card."""
    x = Tensor(array) if dtype is None else Tensor(array).to(dtype)
    return x, x.to("cuda")


def in_any_order(cache):
    """The cache, its pages given to its rows in disorder."""
    table = cache.table
    table.rows[...] = np.random.default_rng(0).permutation(table.rows.size).reshape(table.rows.shape)
    table.held.storage.set(table.rows)
    return cache


def error(out, expected):
    """‖out − expected‖ / ‖expected‖, in float64."""
    a, b = (each.to("cpu").numpy().astype(np.float64) for each in (out, expected))
    assert a.shape == b.shape
    assert not np.isnan(a).any()
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-300))
