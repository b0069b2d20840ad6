"""Int8 weights and products: the quantised numbers against NumPy's, their sums exactly, on every level."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.backends.cpu.packing import PackedMatrix, pack
from tallow.errors import ShapeError, WeightsError
from tallow.matrix.quantize import Int8Matrix, quantize_int8
from tallow.matrix.weight import Weight, make_weight
from tallow.tensor import Tensor

sizes = st.one_of(st.integers(0, 70), st.sampled_from([255, 256, 257, 511, 512, 513, 768, 770, 1600]))
groups = st.sampled_from([None, None, 8, 32, 64, 256])
some = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("cpu_level")


def draw(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def quantize_activations(x, group):
    """The quantisation of activations as the kernels define it: values int64 (m, groups, group), scales (m, groups)."""
    pieces = x.reshape(len(x), x.shape[1] // group, group)
    largest = np.abs(pieces).max(2, initial=0)
    scales = largest / np.float32(127)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(scales < np.finfo(np.float32).tiny, 0, np.float32(127) / largest).astype(np.float32)
        return np.rint(pieces * inverse[:, :, None]).astype(np.int64), scales


def reference(x, matrix, group=None):
    """The product as kernels compute it, with exact sums; for groups, up to the order of float additions."""
    size = group or matrix.shape[1]
    xs, x_scales = quantize_activations(x, size)
    ws = matrix.values.astype(np.int64).reshape(matrix.shape[0], matrix.shape[1] // size, size)
    w_scales = matrix.scales.reshape(matrix.shape[0], matrix.shape[1] // size)
    sums = np.einsum("mgk,ngk->mng", xs, ws).astype(np.float32)
    return (sums * (x_scales[:, None, :] * w_scales[None])).sum(2)


def product(x, packed, bias=None, activation=None, residual=None):
    wrap = [None if a is None else Tensor(a) for a in (bias, residual)]
    return ops.linear(Tensor(x), Weight(packed), wrap[0], activation=activation, residual=wrap[1]).numpy()


@some
@given(sizes, sizes, groups, st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]), st.integers(0, 2**31))
def test_packing_quantises_as_the_reference_does(n, k, group, dtype, seed):
    if group and k < group:
        group = None
    w = draw((n, k - k % (group or 1)), seed).astype(dtype)
    packed, expected = pack(w, "int8", group), quantize_int8(w, group)
    assert isinstance(packed, PackedMatrix)
    assert packed.storage == "int8"
    assert np.array_equal(packed.dequantize(), expected.dequantize())
    taken_over = pack(expected, "int8")
    assert np.array_equal(taken_over.dequantize(), expected.dequantize())
    if n:
        ids = np.array([[0, n - 1], [n // 2, 0]])
        assert np.array_equal(packed.rows(ids), expected.dequantize()[ids])


@some
@given(st.integers(0, 100), sizes, sizes, st.integers(0, 2**31))
def test_product_with_a_scale_a_row_is_exact(m, n, k, seed):
    k = max(k, 1)
    x, w = draw((m, k), seed), draw((n, k), seed + 1)
    assert np.array_equal(product(x, pack(w, "int8")), reference(x, quantize_int8(w)))


@some
@given(st.integers(0, 50), st.integers(1, 70), st.integers(1, 40), st.sampled_from([8, 32, 128]), st.integers(0, 2**31))
def test_product_with_groups(m, n, count, group, seed):
    x, w = draw((m, count * group), seed), draw((n, count * group), seed + 1)
    out = product(x, pack(w, "int8", group))
    np.testing.assert_allclose(out, reference(x, quantize_int8(w, group), group), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3, 64, 129, 1600, 20000])
@pytest.mark.parametrize("rows", [1, 2, 7, 33, 70])
def test_extreme_operands(rows, k):
    """All ±127: the sums that saturate 16 bits where pairs are added carelessly."""
    rng = np.random.default_rng(k)
    values = rng.choice(np.array([-127, 127], np.int8), (40, k))
    values[0], values[1], values[2] = 127, -127, 0
    x = rng.choice(np.float32([-127, 127]), (rows, k))
    x[0] = 127
    if rows > 2:
        x[1], x[2] = -127, 0
    matrix = Int8Matrix(values, np.ones(40, np.float32))
    expected = (x.astype(np.int64) @ values.T.astype(np.int64)).astype(np.float32)
    assert np.array_equal(product(x, pack(matrix, "int8")), expected)


@some
@given(st.integers(2, 150), st.integers(1, 100), st.integers(1, 50), st.sampled_from([None, 32]), st.data())
def test_rows_are_bit_identical_however_they_are_batched(threads, m, n, blocks, group, data):
    k = blocks * 32
    x, bias, residual = draw((m, k), m), draw(n, 1), draw((m, n), 2)
    packed = pack(draw((n, k), n), "int8", group)
    threads(1)
    whole = product(x, packed, bias, "gelu", residual)
    threads(data.draw(st.integers(1, 5)))
    begin = 0
    while begin < m:
        end = data.draw(st.integers(begin + 1, m))
        part = product(x[begin:end], packed, bias, "gelu", residual[begin:end])
        assert part.tobytes() == whole[begin:end].tobytes()
        begin = end


@pytest.mark.parametrize("group", [None, 32])
def test_bias_activation_and_residual(group):
    x, w, bias, residual = draw((20, 64), 0), draw((50, 64), 1), draw(50, 2), draw((20, 50), 3)
    plain = product(x, pack(w, "int8", group))
    out = product(x, pack(w, "int8", group), bias, "silu", residual)
    y = plain + bias
    np.testing.assert_allclose(out, y / (1 + np.exp(-y)) + residual, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("group", [None, 32])
def test_rows_that_are_not_finite_or_tiny(group):
    x, packed = draw((6, 64), 0), pack(draw((33, 64), 1), "int8", group)
    clean = product(x, packed)
    x[1, 3], x[2, 40], x[4] = np.nan, -np.inf, 1e-42
    out = product(x, packed)
    assert np.isnan(out[1]).all()
    assert np.isnan(out[2]).all()
    assert np.array_equal(out[4], np.zeros(33))
    assert np.array_equal(out[[0, 3, 5]], clean[[0, 3, 5]])


def test_rows_of_zeros_and_huge_numbers():
    w = draw((8, 64), 0)
    w[3] = 0
    w[5] *= np.float32(1e37)
    packed = pack(w, "int8")
    x = draw((4, 64), 1)
    x[2] = 0
    assert np.array_equal(packed.dequantize(), quantize_int8(w).dequantize())
    out = product(x, packed)
    assert not out[2].any()
    assert not out[:, 3].any()
    assert np.isfinite(out).all()


def test_weights_that_are_not_finite_are_refused():
    for bad in (np.nan, np.inf):
        w = draw((40, 32), 0)
        w[39, 31] = bad
        with pytest.raises(WeightsError, match="NaN or infinity"):
            pack(w, "int8")
    with pytest.raises(WeightsError, match="NaN or infinity"):
        pack(Int8Matrix(np.ones((2, 3), np.int8), np.float32([1, np.inf])), "int8")


def test_groups_that_kernels_do_not_take():
    w = draw((6, 60), 0)
    packed = pack(w, "int8", 12)
    assert isinstance(packed, Int8Matrix)
    assert np.array_equal(packed.dequantize(), quantize_int8(w, 12).dequantize())
    with pytest.raises(ShapeError, match="groups of 32"):
        pack(w, "int8", 32)
    assert isinstance(pack(w, "int8", 60), PackedMatrix)


def test_accuracy_of_a_large_product():
    x, w = draw((64, 1024), 0), draw((256, 1024), 1)
    exact = x.astype(np.float64) @ w.T.astype(np.float64)
    for group, bound in ((None, 0.02), (32, 0.015)):
        error = np.linalg.norm(product(x, pack(w, "int8", group)) - exact) / np.linalg.norm(exact)
        assert error < bound


def test_make_weight_quantises_for_the_cpu():
    weight = make_weight(draw((6, 64), 0), "int8", group=32)
    assert isinstance(weight.packed, PackedMatrix)
    assert weight.storage == "int8"
