import numpy as np
import pytest

import tallow as tl
from tallow import ops
from tallow.media.image import IMAGENET_MEAN, IMAGENET_STD
from tallow.tensor import Tensor

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_pixels_become_numbers_of_mean_0_and_deviation_1(dtype):
    found = ops.normalize_pixels(Tensor(PIXELS), IMAGENET_MEAN, IMAGENET_STD, dtype)
    expected = ((PIXELS / 255.0 - IMAGENET_MEAN) / IMAGENET_STD).transpose(0, 3, 1, 2)
    assert (found.shape, found.dtype.name) == ((2, 3, 5, 7), dtype)
    np.testing.assert_allclose(found.float().numpy(), expected, atol=1e-6 if dtype == "float32" else 2e-2)


def test_other_pixels_are_refused():
    with pytest.raises(tl.ShapeError, match=r"\(2, 5, 7\)"):
        ops.normalize_pixels(Tensor(PIXELS[..., 0]), IMAGENET_MEAN, IMAGENET_STD)
    with pytest.raises(tl.DTypeError, match="float32"):
        ops.normalize_pixels(Tensor(PIXELS.astype(np.float32)), IMAGENET_MEAN, IMAGENET_STD)
