import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from tallow import ops
from tallow.errors import BoundsError
from tests.ops.both import both, tensor


def log_softmax(x, axis):
    x = x.astype(np.float64) - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


shapes = st.lists(st.integers(1, 20), min_size=1, max_size=3)


@both("softmax")
@given(shape=shapes, data=st.data())
@settings(max_examples=25, deadline=None)
def test_softmax(op, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = (np.random.default_rng(1).standard_normal(shape) * 20).astype(np.float32)
    out = op(tensor(x), axis)
    assert out.dtype.name == "float32"
    assert np.allclose(out.numpy(), np.exp(log_softmax(x, axis)), rtol=1e-5, atol=1e-7)
    assert np.allclose(out.numpy().sum(axis), 1, atol=1e-6)


@both("log_softmax")
@given(shape=shapes, data=st.data())
@settings(max_examples=25, deadline=None)
def test_log_softmax(op, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = (np.random.default_rng(1).standard_normal(shape) * 20).astype(np.float32)
    assert np.allclose(op(tensor(x), axis).numpy(), log_softmax(x, axis), rtol=1e-5, atol=1e-5)


@both("softmax")
def test_softmax_of_huge_and_forbidden_values(op):
    x = tensor([[3e38, 3e38, -3e38, -math.inf], [-math.inf, 0, -math.inf, 1000], [-3e38, -3e38, -math.inf, -math.inf]])
    out = op(x).numpy()
    assert np.array_equal(out, [[0.5, 0.5, 0, 0], [0, 0, 0, 1], [0.5, 0.5, 0, 0]])


@both("softmax")
def test_softmax_spreads_nan_over_its_row_alone(op):
    out = op(tensor([[1.0, math.nan, 2.0], [1.0, 1.0, 1.0]])).numpy()
    assert np.isnan(out[0]).all()
    assert np.allclose(out[1], 1 / 3)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_empty_axes_and_axes_that_are_not_there(name):
    op = getattr(ops, name)
    assert op(tensor(np.zeros((3, 0)))).shape == (3, 0)
    assert op(tensor(np.zeros((0, 3)))).shape == (0, 3)
    with pytest.raises(BoundsError, match=name):
        op(tensor(np.zeros((3, 3))), 2)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_narrow_floats_are_computed_wide_and_rounded_once(name, dtype):
    x = (np.random.default_rng(2).standard_normal((5, 300)) * 4).astype(dtype)
    wide = getattr(ops, name)(tensor(x, np.float32)).numpy()
    out = getattr(ops, name)(tensor(x, dtype)).numpy()
    assert out.dtype == dtype
    assert np.array_equal(out, wide.astype(dtype))
