import math

import numpy as np
import pytest

from tallow import ops
from tallow.errors import ShapeError


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_causal_mask_forbids_what_lies_ahead(length):
    mask = ops.causal_mask(length)
    expected = [[-math.inf if key > query else 0.0 for key in range(length)] for query in range(length)]
    assert mask.shape == (1, 1, length, length)
    assert mask.dtype.name == "float32"
    assert np.array_equal(mask.numpy()[0, 0], np.reshape(expected, (length, length)))


def test_a_negative_length():
    with pytest.raises(ShapeError, match="causal_mask: expected at least 0 positions, found -1"):
        ops.causal_mask(-1)
