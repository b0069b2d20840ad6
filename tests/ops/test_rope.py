import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.errors import ShapeError
from tests.ops.both import both, tensor


def rope(x, cos, sin, interleaved):
    """The definition: pairs as complex numbers."""
    d = x.shape[3]
    pairs = x.reshape(*x.shape[:3], d // 2, 2) if interleaved else x.reshape(*x.shape[:3], 2, d // 2).swapaxes(3, 4)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * (cos + 1j * sin)[:, :, None]
    y = np.stack([turned.real, turned.imag], axis=-1)
    return (y if interleaved else y.swapaxes(3, 4)).reshape(x.shape)


@both("rope")
@given(
    b=st.integers(0, 3), n=st.integers(0, 5), heads=st.integers(1, 4), pairs=st.integers(0, 40), same=st.booleans(),
    interleaved=st.booleans(), gap=st.integers(0, 2),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_rope(op, b, n, heads, pairs, same, interleaved, gap):
    rng = np.random.default_rng(0)
    wide = tensor(rng.standard_normal((b, n, heads + gap, 2 * pairs)))
    x = wide[:, :, :heads]  # as queries lie among keys and values
    angles = rng.uniform(-4, 4, (1 if same else b, n, pairs))
    y = op(x, tensor(np.cos(angles)), tensor(np.sin(angles)), interleaved=interleaved)
    assert y.shape == x.shape
    assert np.allclose(y.numpy(), rope(x.numpy(), np.cos(angles), np.sin(angles), interleaved), atol=1e-5)


@both("rope")
def test_features_of_any_stride_and_other_types(op):
    rng = np.random.default_rng(1)
    x, angles = rng.standard_normal((2, 3, 8, 4)), rng.uniform(-4, 4, (1, 3, 4))
    cos, sin = tensor(np.cos(angles)), tensor(np.sin(angles))
    expected = rope(x.swapaxes(2, 3), np.cos(angles), np.sin(angles), False)
    assert np.allclose(op(tensor(x).transpose(2, 3), cos, sin).numpy(), expected, atol=1e-6)
    half = op(tensor(x, np.float16).transpose(2, 3), cos, sin)
    assert half.dtype.name == "float16"
    assert np.allclose(half.numpy(), expected, atol=5e-3)


@pytest.mark.parametrize(
    ("x", "cos", "sin"),
    [
        ((2, 3, 4), (1, 3, 2), (1, 3, 2)),
        ((2, 3, 4, 5), (1, 3, 2), (1, 3, 2)),
        ((2, 3, 4, 6), (3, 3, 3), (3, 3, 3)),
        ((2, 3, 4, 6), (1, 2, 3), (1, 2, 3)),
        ((2, 3, 4, 6), (1, 3, 3), (2, 3, 3)),
    ],
)
def test_rope_says_what_does_not_fit(x, cos, sin):
    with pytest.raises(ShapeError, match="rope"):
        ops.rope(tensor(np.zeros(x)), tensor(np.zeros(cos)), tensor(np.zeros(sin)))
