"""Convolution kernels against their reference implementations."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallow as tl
from tallow import ops
from tallow.backends.cpu.packing import PackedMatrix
from tallow.errors import ShapeError
from tallow.matrix.weight import make_weight
from tallow.ops.dispatch import OPERATIONS

ACTIVATIONS = [None, "gelu", "gelu_tanh", "silu", "relu"]
layouts = st.sampled_from(["channels first", "channels last", "every other"])


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def laid_out(x, layout):
    """The same values in memory of another order."""
    if layout == "channels first":
        return x
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    if layout == "every other":
        last = np.repeat(last, 2, axis=-2)[..., ::2, :]
    return np.moveaxis(last, -1, 1)


def assert_equals_reference(name, operands, options):
    result = getattr(ops, name)(*operands, **options)
    expected = OPERATIONS[name].reference(*operands, **options)
    assert result.shape == expected.shape
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=1e-5, atol=3e-5)


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(0, 3), inner=st.integers(1, 19), out=st.integers(1, 40), k=st.integers(1, 5),
    extra=st.integers(0, 40),
    stride=st.integers(1, 4), padding=st.integers(0, 7), dilation=st.integers(1, 3), groups=st.sampled_from([1, 1, 2]),
    activation=st.sampled_from(ACTIVATIONS), bias=st.booleans(), layout=layouts,
)  # fmt: skip
def test_conv1d(b, inner, out, k, extra, stride, padding, dilation, groups, activation, bias, layout):
    x = laid_out(draw(1, b, inner * groups, (k - 1) * dilation + 1 + extra), layout)
    weight, shift = draw(2, out * groups, inner, k), draw(3, out * groups)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "activation": activation}
    assert_equals_reference("conv1d", (tl.asarray(x), tl.asarray(weight), tl.asarray(shift) if bias else None), options)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(0, 3), inner=st.integers(1, 9), out=st.integers(1, 40), kernel=pairs,
    extra=st.tuples(st.integers(0, 9), st.integers(0, 20)), stride=pairs,
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)), dilation=pairs,
    activation=st.sampled_from(ACTIVATIONS), bias=st.booleans(), layout=layouts,
)  # fmt: skip
def test_conv2d(b, inner, out, kernel, extra, stride, padding, dilation, activation, bias, layout):
    size = [(k - 1) * d + 1 + e for k, d, e in zip(kernel, dilation, extra, strict=True)]
    x = laid_out(draw(1, b, inner, *size), layout)
    weight, shift = draw(2, out, inner, *kernel), draw(3, out)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "activation": activation}
    assert_equals_reference("conv2d", (tl.asarray(x), tl.asarray(weight), tl.asarray(shift) if bias else None), options)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    b=st.integers(0, 2), channels=st.integers(2, 40), kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 20)), stride=pairs,
    padding=st.tuples(st.integers(0, 9), st.integers(0, 9)), dilation=pairs, bias=st.booleans(), layout=layouts,
)  # fmt: skip
def test_depthwise(cpu_level, b, channels, kernel, extra, stride, padding, dilation, bias, layout):
    size = [(k - 1) * d + 1 + e for k, d, e in zip(kernel, dilation, extra, strict=True)]
    x = tl.asarray(laid_out(draw(1, b, channels, *size), layout))
    weight, shift = tl.asarray(draw(2, channels, 1, *kernel)), tl.asarray(draw(3, channels)) if bias else None
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
    assert_equals_reference("conv2d", (x, weight, shift), options)
    if b:
        whole = ops.conv2d(x, weight, shift, **options).numpy()
        assert np.array_equal(ops.conv2d(x[-1:], weight, shift, **options).numpy(), whole[-1:])


def test_depthwise_of_what_is_not_finite(cpu_level):
    pixels = draw(1, 1, 20, 9, 9)
    pixels[0, 3, 4, 4], pixels[0, 17, 0, 0] = np.nan, np.inf
    found = ops.conv2d(tl.asarray(pixels), tl.asarray(np.ones((20, 1, 3, 3), np.float32)), padding=1, groups=20).numpy()
    assert np.isnan(found[0]).sum() == 9
    assert np.isnan(found[0, 3, 3:6, 3:6]).all()
    assert np.isinf(found[0, 17, :2, :2]).all()


def test_a_kernel_longer_than_a_stretch_of_the_product(cpu_level):
    x, weight = tl.asarray(draw(0, 2, 130, 7, 6)), tl.asarray(draw(1, 50, 130, 3, 3))
    assert_equals_reference("conv2d", (x, weight), {"padding": 1})
    assert_equals_reference("conv2d", (x, weight), {"padding": (0, 2), "stride": (1, 3), "dilation": (1, 2)})


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["conv1d", "conv2d"])
def test_packed_kernels(cpu_level, name, storage):
    shape = (40, 6, 3) if name == "conv1d" else (40, 6, 3, 2)
    array = draw(1, *shape)
    kernel = make_weight(array, storage)
    assert isinstance(kernel.packed, PackedMatrix)
    assert kernel.shape == shape
    widened = kernel.dequantize()
    rounded = array.astype(tl.dtypes.as_dtype(storage).numpy).astype(np.float32)
    assert np.array_equal(widened.numpy(), rounded)
    x = tl.asarray(draw(0, 2, 6, *[9] * (len(shape) - 2)))
    function = getattr(ops, name)
    assert np.array_equal(function(x, kernel, padding=1).numpy(), function(x, widened, padding=1).numpy())
    assert_equals_reference(name, (x, kernel), {"padding": 1})


def test_a_sequence_is_the_same_in_any_batch():
    x, weight = draw(4, 3, 8, 50), tl.asarray(draw(5, 33, 8, 3))
    together = ops.conv1d(tl.asarray(x), weight, padding=1).numpy()
    for i in range(3):
        assert np.array_equal(together[i], ops.conv1d(tl.asarray(x[i : i + 1]), weight, padding=1).numpy()[0])


def test_nan_stays_in_its_windows():
    x = draw(6, 1, 4, 20)
    x[0, 2, 10] = np.nan
    touched = np.isnan(ops.conv1d(tl.asarray(x), tl.asarray(draw(7, 5, 4, 3))).numpy()[0]).any(axis=0)
    assert list(np.flatnonzero(touched)) == [8, 9, 10]


def test_an_image_that_is_all_padding():
    assert_equals_reference(
        "conv2d", (tl.asarray(draw(0, 1, 2, 1, 1)), tl.asarray(draw(1, 3, 2, 2, 2))), {"padding": 9}
    )


def test_elements_that_are_not_aligned():
    x = draw(0, 1, 4, 20)
    shifted = np.frombuffer(b"x" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    weight = tl.asarray(draw(1, 5, 4, 3))
    assert np.array_equal(ops.conv1d(tl.asarray(shifted), weight).numpy(), ops.conv1d(tl.asarray(x), weight).numpy())


@pytest.mark.parametrize("shape", [(1, 4, 2), (1, 5, 9), (4, 9)])
def test_what_does_not_fit_is_refused(shape):
    with pytest.raises(ShapeError, match="conv1d"):
        ops.conv1d(tl.asarray(draw(8, *shape)), tl.asarray(draw(9, 6, 4, 3)))
    with pytest.raises(ShapeError, match="conv2d"):
        ops.conv2d(tl.asarray(draw(8, *shape, 2)), tl.asarray(draw(9, 6, 4, 3, 3)))
    with pytest.raises(ShapeError, match="bias"):
        ops.conv1d(tl.asarray(draw(8, 1, 4, 9)), tl.asarray(draw(9, 6, 4, 3)), tl.asarray(draw(0, 5)))
