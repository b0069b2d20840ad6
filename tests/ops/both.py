"""Every test of a neural operation runs twice: on its reference implementation, and on whatever dispatch runs here."""

from __future__ import annotations

import numpy as np
import pytest

from tallow import ops
from tallow.ops.dispatch import OPERATIONS
from tallow.tensor import Tensor


def variants(name: str) -> list:
    """An operation's reference implementation, and the operation."""
    return [OPERATIONS[name].reference, getattr(ops, name)]


def both(name: str) -> pytest.MarkDecorator:
    """Parametrise a test's ``op`` over an operation's reference and the operation itself."""
    return pytest.mark.parametrize("op", variants(name), ids=["reference", "dispatched"])


def tensor(array: object, dtype: object = np.float32) -> Tensor:
    return Tensor(np.asarray(array, dtype))


def relative_error(out: Tensor, expected: np.ndarray) -> float:
    """‖out − expected‖ / ‖expected‖, in float64."""
    assert out.shape == expected.shape
    difference = np.linalg.norm(out.numpy().astype(np.float64) - expected)
    return float(difference / max(np.linalg.norm(expected), 1e-300))
