import numpy as np
import pytest

from tallow.errors import DTypeError, ShapeError, WeightsError
from tallow.matrix.blocks.encode import ENCODERS, quantize

VALUES = np.random.default_rng(0).standard_normal((40, 96)).astype(np.float32)
ERRORS = {"q8_0": 0.006, "q5_1": 0.04, "q5_0": 0.05, "q4_1": 0.08, "q4_0": 0.1}


@pytest.mark.parametrize("name", ENCODERS)
def test_values_come_back_nearly(name):
    matrix = quantize(VALUES, name)
    assert (matrix.storage, matrix.shape) == (name, (40, 96))
    assert np.linalg.norm(matrix.dequantize() - VALUES) / np.linalg.norm(VALUES) < ERRORS[name]
    half = quantize(VALUES.astype(np.float16)[:, ::-1], name)
    assert np.linalg.norm(half.dequantize()[:, ::-1] - VALUES) / np.linalg.norm(VALUES) < ERRORS[name]


@pytest.mark.parametrize("name", ENCODERS)
def test_zeros_and_constants(name):
    assert not quantize(np.zeros((2, 32), np.float32), name).dequantize().any()
    np.testing.assert_allclose(quantize(np.full((1, 64), 3.0), name).dequantize(), 3.0, rtol=2e-3)
    assert quantize(np.zeros((0, 32), np.float32), name).shape == (0, 32)


def test_codes_that_the_format_can_say_come_back_exactly():
    codes = np.arange(-127, 128, dtype=np.float32)
    values = np.concatenate([codes, [127]]).reshape(8, 32) * np.float32(0.25)
    values[:, 0] = 127 * 0.25  # every block's greatest
    np.testing.assert_array_equal(quantize(values, "q8_0").dequantize(), values)
    values = (np.arange(32) % 16).reshape(1, 32) * np.float32(0.5) - 2
    np.testing.assert_array_equal(quantize(values, "q4_1").dequantize(), values)


def test_matrices_that_cannot_be():
    with pytest.raises(DTypeError, match="'q4_k'"):
        quantize(VALUES, "q4_k")
    for shape in ((4, 33), (32,), (2, 2, 32)):
        with pytest.raises(ShapeError, match="whole blocks of 32"):
            quantize(np.zeros(shape, np.float32), "q8_0")
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(WeightsError, match="NaN or infinity"):
            quantize(np.where(VALUES[3, 3] == VALUES, value, VALUES), "q4_0")
