import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from tallow import ops
from tallow.errors import BoundsError, ShapeError
from tests.ops.both import both, relative_error, tensor


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def rms_norm(x, weight, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


@both("layer_norm")
@given(shape=st.lists(st.integers(1, 5), max_size=2), width=st.integers(1, 70), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_layer_norm(op, shape, width, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*shape, width)).astype(np.float32) * 3 + 5
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    out = op(tensor(x), tensor(weight), tensor(bias), 1e-5)
    expected = layer_norm(x.astype(np.float64), weight, bias, 1e-5)
    assert out.dtype.name == "float32"
    assert np.allclose(out.numpy(), expected, rtol=2e-4, atol=2e-5)


@both("rms_norm")
@given(shape=st.lists(st.integers(1, 5), max_size=2), width=st.integers(1, 70), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_rms_norm(op, shape, width, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*shape, width)).astype(np.float32)
    weight = rng.standard_normal(width).astype(np.float32)
    assert relative_error(op(tensor(x), tensor(weight), 1e-6), rms_norm(x.astype(np.float64), weight, 1e-6)) < 1e-6


@both("layer_norm")
def test_layer_norm_of_a_row_far_from_zero_keeps_its_digits(op):
    x = 1e4 + np.linspace(-1, 1, 384).astype(np.float32)
    ones, zeros = np.ones(384, np.float32), np.zeros(384, np.float32)
    expected = layer_norm(x.astype(np.float64), ones, zeros, 1e-5)
    assert relative_error(op(tensor(x[None]), tensor(ones), tensor(zeros)), expected[None]) < 1e-3


@both("layer_norm")
def test_layer_norm_of_equal_elements_is_the_bias(op):
    out = op(tensor(np.full((2, 9), 7.0)), tensor(np.full(9, 3.0)), tensor(np.arange(9.0)))
    assert np.array_equal(out.numpy(), np.broadcast_to(np.arange(9.0), (2, 9)))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_norm_of_nothing_of_nan_and_of_any_strides(name):
    def op(x):
        scales = [tensor(np.linspace(1, 2, x.shape[-1])), tensor(np.zeros(x.shape[-1]))]
        return getattr(ops, name)(tensor(x), *scales[: 2 if name == "layer_norm" else 1])

    assert op(np.zeros((0, 5))).shape == (0, 5)
    rows = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    rows[1, 2] = math.nan
    out = op(rows).numpy()
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[[0, 2]]).all()
    again = op(np.asfortranarray(rows)).numpy()
    assert np.array_equal(again[[0, 2]], out[[0, 2]])
    assert np.array_equal(op(np.repeat(rows, 2, axis=1)[:, ::2])[0].numpy(), out[0])


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_narrow_norms_are_computed_wide_and_rounded_once(dtype):
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((4, 33)) * 100).astype(dtype)
    weight, bias = rng.standard_normal((2, 33)).astype(dtype)
    wide = ops.layer_norm(tensor(x, np.float32), tensor(weight, np.float32), tensor(bias, np.float32))
    out = ops.layer_norm(tensor(x, dtype), tensor(weight, dtype), tensor(bias, dtype)).numpy()
    assert out.dtype == dtype
    assert np.allclose(out.astype(np.float64), wide.numpy(), rtol=2.0 ** -(7 if dtype is bfloat16 else 10), atol=1e-3)
    wide = ops.rms_norm(tensor(x, np.float32), tensor(weight, np.float32))
    out = ops.rms_norm(tensor(x, dtype), tensor(weight, dtype)).numpy()
    assert np.allclose(out.astype(np.float64), wide.numpy(), rtol=2.0 ** -(7 if dtype is bfloat16 else 10), atol=1e-3)


@pytest.mark.parametrize("width", [1, 4, 6])
def test_norms_refuse_weights_of_another_width(width):
    x, right, wrong = tensor(np.ones((2, 5))), tensor(np.ones(5)), tensor(np.ones(width))
    for args in ((wrong, right), (right, wrong)):
        with pytest.raises(ShapeError, match="layer_norm"):
            ops.layer_norm(x, *args)
    with pytest.raises(ShapeError, match="rms_norm"):
        ops.rms_norm(x, wrong)
    with pytest.raises(ShapeError, match="rms_norm"):
        ops.rms_norm(tensor(1.0), right)


@both("l2_normalize")
@given(shape=st.lists(st.integers(0, 6), min_size=1, max_size=3), data=st.data())
@settings(max_examples=25, deadline=None)
def test_l2_normalize_along_any_axis(op, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    length = np.sqrt((x.astype(np.float64) ** 2).sum(axis, keepdims=True))
    expected = x / np.maximum(length, 1e-12)
    assert np.allclose(op(tensor(x), axis).numpy(), expected, rtol=1e-6, atol=1e-7)


@both("l2_normalize")
def test_l2_normalize_names_an_axis_that_is_not_there(op):
    with pytest.raises(BoundsError, match="l2_normalize: axis 2"):
        op(tensor(np.ones((2, 3))), 2)


@both("l2_normalize")
def test_l2_normalize_of_zeros_is_zeros(op):
    assert np.array_equal(op(tensor(np.zeros((2, 3)))).numpy(), np.zeros((2, 3)))


def test_norm_scales_of_another_dtype_or_strides():
    x = np.random.default_rng(4).standard_normal((3, 8)).astype(np.float32)
    scale = np.linspace(1, 2, 16)
    plain = ops.rms_norm(tensor(x), tensor(scale[::2])).numpy()
    assert np.allclose(ops.rms_norm(tensor(x), tensor(scale[::2], np.float64)).numpy(), plain, rtol=1e-6)
    assert np.allclose(ops.rms_norm(tensor(x), tensor(scale)[::2]).numpy(), plain, rtol=1e-6)
    assert ops.rms_norm(tensor(x), tensor(scale[::2], np.float64)).dtype.name == "float32"


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_norm_of_heads_cut_out_of_wider_rows(name):
    """(b, n, heads, d) whose rows have three strides, as queries have beside keys and values."""
    wide = np.random.default_rng(0).standard_normal((3, 5, 40)).astype(np.float32)
    scales = [tensor(np.linspace(1, 2, 7)), tensor(np.ones(7))][: 2 if name == "layer_norm" else 1]
    for heads in (wide[:, :, 5:26].reshape(3, 5, 3, 7), wide.reshape(3, 5, 4, 10)[:, 1:, ::2, :7]):
        expected = getattr(ops, name)(tensor(heads.copy()), *scales).numpy()
        np.testing.assert_array_equal(getattr(ops, name)(tensor(heads), *scales).numpy(), expected)
