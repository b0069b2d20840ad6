import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from tallow import ops
from tallow.errors import ArgumentError, ShapeError
from tallow.ops.activation import activate
from tests.ops.both import both, tensor, variants

GRID = np.concatenate([np.linspace(-12, 12, 2401), [-87.0, 1e-30, -1e-30, 0.0, -0.0]])


def phi(x: np.ndarray) -> np.ndarray:
    """The normal distribution function, from the complementary error function so that its tail keeps its digits."""
    return 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2))


FORMULAS = {
    "gelu": lambda x: x * phi(x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf),
    "relu": lambda x: np.where(x > 0, x, 0.0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_follow_their_formula_in_float32(name):
    expected = FORMULAS[name](GRID.astype(np.float32).astype(np.float64))
    for op in variants(name):
        out = op(tensor(GRID))
        assert out.dtype.name == "float32"
        assert np.allclose(out.numpy(), expected, rtol=2e-6, atol=5e-7)


@both("sigmoid")
def test_sigmoid_keeps_the_digits_of_small_values(op):
    x = np.linspace(-87, 0, 500).astype(np.float32)
    assert np.allclose(op(tensor(x)).numpy(), 1 / (1 + np.exp(-x.astype(np.float64))), rtol=1e-6, atol=0)


@both("gelu")
def test_gelu_by_tanh(op):
    x = GRID.astype(np.float32).astype(np.float64)
    expected = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert np.allclose(op(tensor(GRID), "tanh").numpy(), expected, rtol=2e-6, atol=2e-6)
    assert np.allclose(op(tensor(GRID), approximate="tanh").numpy(), expected, rtol=2e-6, atol=2e-6)
    with pytest.raises(ArgumentError, match="gelu"):
        op(tensor(GRID), "sigmoid")


@pytest.mark.parametrize("name", FORMULAS)
def test_special_values(name):
    out = getattr(ops, name)(tensor([math.nan, math.inf, -100.0])).numpy()
    assert np.isnan(out[0])
    assert out[1] == (1 if name in ("sigmoid", "erf") else math.inf)
    assert out[2] == pytest.approx(-1.0 if name == "erf" else 0.0, abs=1e-36)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_narrow_floats_are_computed_wide_and_rounded_once(name, dtype):
    x = GRID.astype(dtype)
    reference, dispatched = variants(name)
    wide = reference(tensor(x, np.float32)).numpy()
    out = dispatched(tensor(x, dtype)).numpy()
    assert out.dtype == dtype
    assert np.array_equal(out, wide.astype(dtype))


@pytest.mark.parametrize("name", FORMULAS)
@given(shape=st.lists(st.integers(0, 5), max_size=4))
@settings(max_examples=15, deadline=None)
def test_any_shape_and_any_strides(name, shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    op = getattr(ops, name)
    out = op(tensor(x))
    assert out.shape == tuple(shape)
    assert np.allclose(op(tensor(x.T)).numpy(), out.numpy().T, rtol=2e-7, atol=1e-7)


@both("glu")
def test_glu_of_unequal_shapes(op):
    with pytest.raises(ShapeError, match=r"glu: gate of shape \(2, 3\) and up of shape \(3,\) differ"):
        op(tensor(np.ones((2, 3))), tensor(np.ones(3)))


@both("glu")
def test_glu(op):
    rng = np.random.default_rng(1)
    gate, up = rng.standard_normal((2, 3, 7))
    expected = gate / (1 + np.exp(-gate)) * up
    assert np.allclose(op(tensor(gate), tensor(up)).numpy(), expected, rtol=1e-5, atol=1e-6)
    for name, activation in (("gelu", ops.gelu), ("gelu_tanh", lambda x: ops.gelu(x, "tanh")), ("relu", ops.relu)):
        expected = activation(tensor(gate)).numpy() * up
        assert np.allclose(op(tensor(gate), tensor(up), name).numpy(), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ArgumentError, match="no activation 'tanh'"):
        op(tensor(gate), tensor(up), "tanh")


def test_activate_by_name():
    x = tensor([-1.0, 2.0])
    assert activate(x, None) is x
    assert np.array_equal(activate(x, "gelu_tanh").numpy(), ops.gelu(x, "tanh").numpy())
    for name in ("gelu", "silu", "relu"):
        assert np.array_equal(activate(x, name).numpy(), getattr(ops, name)(x).numpy())
    with pytest.raises(ArgumentError, match="mish"):
        activate(x, "mish")
