"""Rotary embeddings at every level."""

import numpy as np
import pytest

from tallow import ops
from tallow.ops.dispatch import OPERATIONS
from tests.ops.both import tensor

pytestmark = pytest.mark.usefixtures("cpu_level")


@pytest.mark.parametrize("d", [2, 22, 64, 80])
def test_bit_for_bit_as_the_reference_and_whatever_stands_beside_it(d):
    rng = np.random.default_rng(2)
    x, angles = tensor(rng.standard_normal((2, 50, 6, d))), rng.uniform(-4, 4, (2, 50, d // 2))
    cos, sin = tensor(np.cos(angles)), tensor(np.sin(angles))
    found = ops.rope(x, cos, sin).numpy()
    assert np.array_equal(found, OPERATIONS["rope"].reference(x, cos, sin).numpy())
    assert np.array_equal(ops.rope(x[1:2, 7:9], cos[1:2, 7:9], sin[1:2, 7:9]).numpy(), found[1:2, 7:9])
