import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.errors import ArgumentError, ShapeError
from tallow.matrix.weight import make_weight
from tests.ops.both import both, relative_error, tensor
from tests.ops.test_activation import FORMULAS

sizes = st.integers(1, 40)


@both("linear")
@given(
    batch=st.lists(st.integers(1, 4), max_size=2),
    inner=sizes,
    out=sizes,
    bias=st.booleans(),
    scale=st.booleans(),
    residual=st.booleans(),
    activation=st.sampled_from([None, "gelu", "silu", "relu"]),
)
@settings(max_examples=30, deadline=None)
def test_linear(op, batch, inner, out, bias, scale, residual, activation):
    rng = np.random.default_rng(0)
    x, matrix = rng.standard_normal((*batch, inner)), rng.standard_normal((out, inner))
    b = rng.standard_normal(out) if bias else None
    r = rng.standard_normal((*batch, out)) if residual else None
    s = rng.standard_normal(out) if scale else None
    expected = x @ matrix.T + (0 if b is None else b)
    if activation:
        expected = FORMULAS[activation](expected)
    if s is not None:
        expected = expected * s
    if r is not None:
        expected = expected + r
    y = op(
        tensor(x),
        tensor(matrix),
        None if b is None else tensor(b),
        activation=activation,
        scale=None if s is None else tensor(s),
        residual=None if r is None else tensor(r),
    )
    assert y.dtype.name == "float32"
    assert np.allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)


@both("linear")
@pytest.mark.parametrize(
    ("storage", "bound"), [("float32", 1e-6), ("float16", 1e-3), ("bfloat16", 6e-3), ("int8", 2e-2)]
)
def test_linear_on_a_weight_of_each_storage(op, storage, bound):
    rng = np.random.default_rng(1)
    x, matrix, bias = rng.standard_normal((5, 70)), rng.standard_normal((33, 70)) / 8, rng.standard_normal(33)
    weight = make_weight(matrix.astype(np.float32), storage)
    out = op(tensor(x), weight, tensor(bias))
    assert relative_error(out, x @ matrix.T + bias) < bound
    scale = rng.standard_normal(33).astype(np.float32)
    assert np.array_equal(op(tensor(x), weight, tensor(bias), scale=tensor(scale)).numpy(), out.numpy() * scale)
    exact = x @ weight.dequantize().numpy().astype(np.float64).T + bias
    assert relative_error(out, exact) < (2e-2 if storage == "int8" else 1e-6)


@both("linear")
def test_linear_takes_views_of_any_strides_and_empty_ones(op):
    rng = np.random.default_rng(2)
    wide = rng.standard_normal((6, 4, 30)).astype(np.float32)
    matrix = rng.standard_normal((9, 15)).astype(np.float32)
    weight, bias = make_weight(matrix, "float32"), tensor(np.arange(9.0))
    x = tensor(wide).permute(1, 0, 2)[:, ::2, ::2]
    expected = wide.transpose(1, 0, 2)[:, ::2, ::2] @ matrix.T + np.arange(9.0)
    assert np.allclose(op(x, weight, bias).numpy(), expected, atol=1e-5)
    assert np.allclose(op(x, tensor(matrix.T).T, bias).numpy(), expected, atol=1e-5)
    assert op(tensor(np.zeros((0, 15))), weight, bias).shape == (0, 9)
    assert op(tensor(np.zeros((2, 0, 15))), weight).shape == (2, 0, 9)
    assert np.array_equal(op(tensor(np.zeros((2, 0))), tensor(np.zeros((9, 0))), bias).numpy(), [np.arange(9.0)] * 2)
    assert op(tensor(wide[0, 0, :15]), weight).shape == (9,)


@both("linear")
@pytest.mark.parametrize("dtype", [np.float16, "bfloat16"])
def test_narrow_activations_are_summed_wide_and_rounded_once(op, dtype):
    import ml_dtypes

    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    ones = np.ones((1, 4096), dtype)
    assert op(tensor(ones, dtype), tensor(ones, dtype)).numpy() == np.array([[4096]], dtype)


def test_linear_says_what_does_not_fit():
    x, weight = tensor(np.zeros((2, 3))), tensor(np.zeros((4, 3)))
    with pytest.raises(ShapeError, match=r"linear.*\(2, 3\).*\(4, 5\)"):
        ops.linear(x, tensor(np.zeros((4, 5))))
    with pytest.raises(ShapeError, match="linear"):
        ops.linear(tensor(1.0), weight)
    with pytest.raises(ShapeError, match="linear"):
        ops.linear(x, tensor(1.0))
    with pytest.raises(ShapeError, match="bias"):
        ops.linear(x, weight, tensor(np.zeros(3)))
    with pytest.raises(ShapeError, match="residual"):
        ops.linear(x, weight, residual=tensor(np.zeros((2, 3))))
    for matrix in (weight, make_weight(np.zeros((4, 3), np.float32), "float32")):
        with pytest.raises(ArgumentError, match="no activation 'tanh'"):
            ops.linear(x, matrix, activation="tanh")
