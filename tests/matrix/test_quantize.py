import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tallow.errors import DTypeError, ShapeError, WeightsError
from tallow.matrix.quantize import DenseMatrix, Int8Matrix, quantize_int8
from tallow.matrix.weight import make_weight


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 7), st.sampled_from([0, 32, 64])),
               elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from([None, 32]),
)  # fmt: skip
def test_error_is_at_most_half_a_step(array, group):
    if array.shape[1] == 0:
        group = None
    matrix = quantize_int8(array, group)
    assert matrix.values.dtype == np.int8
    assert matrix.values.min(initial=0) >= -127
    scales = matrix.scales if group else matrix.scales[:, None]
    step = np.repeat(scales, array.shape[1] // scales.shape[1], axis=1)
    error = np.abs(matrix.dequantize() - array)
    assert (error <= step * 0.5001 + np.finfo(np.float32).tiny * 200).all()


def test_known_values_and_rounding_half_to_even():
    array = np.array([[127, 0.5, 1.5, -2.5], [0, 0, 0, 0]], np.float32)
    matrix = quantize_int8(array)
    assert matrix.values.tolist() == [[127, 0, 2, -2], [0, 0, 0, 0]]
    assert matrix.scales.tolist() == [1, 0]
    assert matrix.nbytes == 8 + 8
    grouped = quantize_int8(array, 2)
    assert grouped.scales.shape == (2, 2)
    np.testing.assert_allclose(grouped.dequantize()[0], [127, 0, 2.5 * 76 / 127, -2.5], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_every_float_type_is_widened_first(dtype):
    array = np.random.default_rng(0).standard_normal((3, 8)).astype(dtype)
    ours, wide = quantize_int8(array), quantize_int8(array.astype(np.float32))
    np.testing.assert_array_equal(ours.values, wide.values)
    np.testing.assert_array_equal(ours.scales, wide.scales)


def test_quantising_again_changes_nothing():
    """So an int8 file may be widened and quantised again on the way in."""
    first = quantize_int8(np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32))
    again = quantize_int8(first.dequantize())
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_allclose(first.scales, again.scales, rtol=2e-7)


def test_extremes():
    tiny = np.float32([[1e-45, -1e-45]])
    assert quantize_int8(tiny).dequantize().tolist() == [[0, 0]]
    huge = np.float32([[3e38, -3e38]])
    np.testing.assert_allclose(quantize_int8(huge).dequantize(), huge, rtol=1e-6)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(WeightsError, match="NaN or infinity"):
            quantize_int8(np.float32([[1, bad]]))


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError):
        quantize_int8(np.zeros(3, np.float32))
    with pytest.raises(ShapeError):
        quantize_int8(np.zeros((2, 3), np.float32), 2)
    with pytest.raises(ShapeError):
        quantize_int8(np.zeros((2, 4), np.float32), 0)
    with pytest.raises(ShapeError):
        Int8Matrix(np.zeros((2, 4), np.int8), np.zeros(3, np.float32))
    with pytest.raises(ShapeError):
        Int8Matrix(np.zeros((2, 4), np.int8), np.zeros((2, 3), np.float32))
    with pytest.raises(DTypeError):
        Int8Matrix(np.zeros((2, 4), np.uint8), np.zeros(2, np.float32))


@pytest.mark.parametrize("group", [None, 2])
def test_rows_and_slices(group):
    matrix = quantize_int8(np.arange(24, dtype=np.float32).reshape(6, 4), group)
    ids = np.array([[5, 0], [2, 2]])
    np.testing.assert_array_equal(matrix.rows(ids), matrix.dequantize()[ids])
    assert matrix.rows(np.zeros((0,), np.int64)).shape == (0, 4)
    np.testing.assert_array_equal(matrix[2:4].dequantize(), matrix.dequantize()[2:4])
    dense = DenseMatrix(matrix.dequantize())
    np.testing.assert_array_equal(dense.rows(ids), matrix.rows(ids))


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16", "int8"])
def test_weights_keep_their_shape_in_every_storage(storage):
    array = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    weight = make_weight(array, storage)
    assert (weight.shape, weight.storage) == ((5, 7), storage)
    assert weight.nbytes >= 5 * 7 * {"float32": 4, "int8": 1}.get(storage, 2)
    wide = weight.dequantize()
    assert wide.numpy().dtype == np.float32
    np.testing.assert_allclose(wide.numpy(), array, atol=0.02)
    with pytest.raises(DTypeError, match="int7"):
        make_weight(array, "int7")
