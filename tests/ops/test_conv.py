import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.errors import ArgumentError, ShapeError
from tallow.matrix.weight import make_weight
from tests.ops.both import both, relative_error, tensor
from tests.ops.test_activation import FORMULAS


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """The definition, one output element at a time."""
    b = x.shape[0]
    out, inner, kh, kw = weight.shape
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    high = (x.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    wide = (x.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((b, out, high, wide))
    for o in range(out):
        first = o // (out // groups) * inner
        for i in range(high):
            for j in range(wide):
                rows = i * stride[0] + dilation[0] * np.arange(kh)
                columns = j * stride[1] + dilation[1] * np.arange(kw)
                patch = x[:, first : first + inner][:, :, rows][:, :, :, columns]
                y[:, o, i, j] = (patch * weight[o]).sum((1, 2, 3)) + bias[o]
    return y


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@both("conv2d")
@given(
    b=st.integers(1, 2), inner=st.integers(1, 3), out=st.integers(1, 3), groups=st.integers(1, 3),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kernel=pairs, stride=pairs, dilation=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_conv2d(op, b, inner, out, groups, size, kernel, stride, dilation, padding):
    assume(all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((b, inner * groups, *size))
    weight, bias = rng.standard_normal((out * groups, inner, *kernel)), rng.standard_normal(out * groups)
    y = op(tensor(x), tensor(weight), tensor(bias), stride=stride, padding=padding, dilation=dilation, groups=groups)
    expected = conv2d(x, weight, bias, stride, padding, dilation, groups)
    assert y.shape == expected.shape
    assert np.allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)


@both("conv1d")
@given(
    inner=st.integers(1, 20), out=st.integers(1, 20), n=st.integers(1, 40), kernel=st.integers(1, 4),
    stride=st.integers(1, 3), padding=st.integers(0, 2), activation=st.sampled_from([None, "gelu", "silu", "relu"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_conv1d(op, inner, out, n, kernel, stride, padding, activation):
    assume(n + 2 * padding >= kernel)
    rng = np.random.default_rng(0)
    x, weight, bias = (
        rng.standard_normal((2, inner, n)),
        rng.standard_normal((out, inner, kernel)),
        rng.standard_normal(out),
    )
    y = op(tensor(x), tensor(weight), tensor(bias), stride=stride, padding=padding, activation=activation)
    expected = conv2d(x[:, :, None], weight[:, :, None], bias, (1, stride), (0, padding), (1, 1), 1)[:, :, 0]
    if activation:
        expected = FORMULAS[activation](expected)
    assert y.shape == expected.shape
    assert np.allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)


@both("conv1d")
def test_conv1d_as_whisper_uses_it(op):
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((1, 80, 61)), rng.standard_normal((64, 80, 3)) / 16
    bias = rng.standard_normal(64)
    expected = conv2d(x[:, :, None], weight[:, :, None], bias, (1, 2), (0, 1), (1, 1), 1)[:, :, 0]
    assert relative_error(op(tensor(x), tensor(weight), tensor(bias), stride=2, padding=1), expected) < 1e-6


@both("conv2d")
def test_conv2d_without_bias_of_views_and_of_no_images(op):
    rng = np.random.default_rng(2)
    x, weight = (
        rng.standard_normal((5, 6, 2, 3)).astype(np.float32),
        rng.standard_normal((4, 3, 2, 2)).astype(np.float32),
    )
    images = tensor(x).permute(2, 3, 0, 1)
    expected = conv2d(x.transpose(2, 3, 0, 1), weight, np.zeros(4), (1, 1), (0, 0), (1, 1), 1)
    assert np.allclose(op(images, tensor(weight)).numpy(), expected, atol=1e-5)
    assert op(images[:0], tensor(weight)).shape == (0, 4, 4, 5)


@pytest.mark.parametrize(
    ("x", "weight", "options"),
    [
        ((1, 3, 8, 8), (4, 2, 3, 3), {}),
        ((1, 4, 8, 8), (3, 2, 3, 3), {"groups": 2}),
        ((1, 3, 8), (4, 3, 3, 3), {}),
        ((1, 3, 2, 8), (4, 3, 3, 3), {}),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"stride": 0}),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"padding": -1}),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"dilation": (1, 0)}),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"groups": 0}),
        ((1, 3, 8, 8), (4, 3, 0, 3), {}),
    ],
)
def test_conv2d_says_what_does_not_fit(x, weight, options):
    with pytest.raises(ShapeError, match="conv2d"):
        ops.conv2d(tensor(np.zeros(x)), tensor(np.zeros(weight)), **options)


def test_an_activation_that_there_is_not():
    for op, rank in ((ops.conv1d, 3), (ops.conv2d, 4)):
        x, weight = np.zeros((1, 3, 8, 8)[:rank]), np.zeros((4, 3, 3, 3)[:rank])
        for kernel in (tensor(weight), make_weight(weight.astype(np.float32), "float32")):
            with pytest.raises(ArgumentError, match="no activation 'tanh'"):
                op(tensor(x), kernel, activation="tanh")


def test_conv1d_says_what_does_not_fit():
    x, weight = tensor(np.zeros((1, 3, 8))), tensor(np.zeros((4, 3, 3)))
    with pytest.raises(ShapeError, match=r"conv1d.*\(1, 3, 2\)"):
        ops.conv1d(x[:, :, :2], weight)
    with pytest.raises(ShapeError, match="conv1d"):
        ops.conv1d(x[0], weight)
    with pytest.raises(ShapeError, match=r"conv1d: bias of shape \(3,\)"):
        ops.conv1d(x, weight, tensor(np.zeros(3)))
