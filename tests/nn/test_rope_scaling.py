import math

import numpy as np
import pytest

from tallow import nn
from tallow.errors import WeightsError
from tallow.nn.rope_scaling import rotary_frequencies
from tallow.tensor import Tensor

PLAIN = 500.0 ** (-np.arange(8) / 8)  # dim 16


def frequencies(scaling, context=0):
    return rotary_frequencies(16, 500.0, scaling, context)


def test_default_and_linear():
    for scaling in (None, {}, {"rope_type": "default"}, {"type": None}):
        values, attention = frequencies(scaling)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, PLAIN, rtol=1e-6)
        assert attention == 1
    np.testing.assert_allclose(frequencies({"type": "linear", "factor": 4})[0], PLAIN / 4, rtol=1e-6)


def test_factors():
    factors = [1.0, 1, 1, 2, 2, 4, 8, 8]
    np.testing.assert_allclose(frequencies({"rope_type": "factors", "factors": factors})[0], PLAIN / factors, rtol=1e-6)


def test_llama3_keeps_fast_pairs_and_stretches_slow_ones():
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}  # fmt: skip
    values, attention = frequencies(scaling)
    turns = 64 * PLAIN / (2 * math.pi)
    assert attention == 1
    for value, plain, count in zip(values, PLAIN, turns, strict=True):
        if count > 4:
            assert value == pytest.approx(plain, rel=1e-6)
        elif count < 1:
            assert value == pytest.approx(plain / 8, rel=1e-6)
        else:
            smooth = (count - 1) / 3
            assert value == pytest.approx((1 - smooth) * plain / 8 + smooth * plain, rel=1e-6)
    assert any(1 < count < 4 for count in turns)


def test_yarn_stretches_by_the_number_of_turns():
    values, attention = frequencies({"rope_type": "yarn", "factor": 4.0}, context=64)
    assert attention == pytest.approx(0.1 * math.log(4) + 1)
    assert values[0] == pytest.approx(PLAIN[0], rel=1e-6)
    assert values[-1] == pytest.approx(PLAIN[-1] / 4, rel=1e-6)
    assert (np.diff(values / PLAIN) <= 1e-6).all()
    assert frequencies({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5}, 64)[1] == 1.5
    both = {"rope_type": "yarn", "factor": 4.0, "mscale": 2.0, "mscale_all_dim": 1.0}
    assert frequencies(both, 64)[1] == pytest.approx((0.2 * math.log(4) + 1) / (0.1 * math.log(4) + 1))


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        ({"rope_type": "longrope"}, "longrope"),
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "linear", "factor": 0}, "factor"),
        ({"rope_type": "linear", "factor": "4"}, "factor"),
        ({"rope_type": "linear", "factor": math.nan}, "factor"),
        ({"rope_type": "yarn", "factor": 4.0}, "original_max_position_embeddings"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}, "below"),
        ({"rope_type": "factors", "factors": [1.0]}, "8 positive numbers"),
        ({"rope_type": "factors", "factors": [0.0] * 8}, "8 positive numbers"),
        ({"rope_type": "factors"}, "8 positive numbers"),
    ],
)
def test_scalings_that_cannot_be(scaling, said):
    with pytest.raises(WeightsError, match=said):
        frequencies(scaling)


def test_angles_of_positions_that_differ_by_row():
    layer = nn.RotaryEmbedding(16, 100, theta=500.0, scaling={"rope_type": "yarn", "factor": 4.0})
    cos, sin = layer.angles(Tensor(np.array([[0, 1, 2], [7, 8, 9]])))
    assert cos.shape == sin.shape == (2, 3, 8)
    np.testing.assert_allclose(np.hypot(cos.numpy(), sin.numpy()), layer.attention_factor, rtol=1e-6)
    expected = np.cos(8 * layer.frequencies.numpy().astype(np.float64)) * layer.attention_factor
    np.testing.assert_allclose(cos.numpy()[1, 1], expected, atol=1e-6)
