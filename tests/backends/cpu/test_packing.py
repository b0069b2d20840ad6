"""Packing: the numbers that come out are those that went in, wherever they lay in memory."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallow.backends.cpu.packing import pack
from tallow.matrix.quantize import quantize_int8

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
sizes = st.one_of(st.integers(0, 70), st.sampled_from([95, 96, 97, 128]))
some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("cpu_level")


def any_bits(shape, dtype, seed):
    """Numbers of all kinds: normal, subnormal, infinite; NaN becomes 1."""
    bits = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    numbers = bits.view(dtype)[..., 0]
    with np.errstate(invalid="ignore"):  # NaN of the signalling kind
        return np.where(np.isnan(numbers), np.ones((), dtype), numbers)


def placed(array, way):
    """The same matrix, elsewhere in memory: in file order at an odd address, by columns, or with room between."""
    if way == "unaligned":
        return np.ndarray(array.shape, array.dtype, b"\0" + array.tobytes(), 1)
    if way == "columns":
        return np.asfortranarray(array)
    room = np.zeros((array.shape[0] * 2, array.shape[1] + 3), array.dtype)
    room[::2, 1:-2] = array
    return room[::2, 1:-2]


@some
@given(
    sizes, sizes, st.sampled_from(list(DTYPES)), st.sampled_from(["unaligned", "columns", "apart"]), st.integers(0, 99)
)
def test_numbers_stay_as_they_are(n, k, storage, way, seed):
    array = any_bits((n, k), DTYPES[storage], seed)
    packed = pack(placed(array, way), storage)
    assert np.array_equal(packed.dequantize(), array.astype(np.float32))


@some
@given(sizes, sizes, st.sampled_from(list(DTYPES)), st.sampled_from(list(DTYPES)), st.integers(0, 99))
def test_other_types_are_rounded_as_numpy_does(n, k, stored, storage, seed):
    array = any_bits((n, k), DTYPES[stored], seed)
    with np.errstate(over="ignore"):
        expected = array.astype(np.float32).astype(DTYPES[storage]).astype(np.float32)
    assert np.array_equal(pack(placed(array, "unaligned"), storage).dequantize(), expected)


@some
@given(sizes, st.integers(1, 70), st.sampled_from(list(DTYPES)), st.integers(0, 99))
def test_int8_from_any_address(n, k, stored, seed):
    array = np.random.default_rng(seed).standard_normal((n, k)).astype(DTYPES[stored])
    packed = pack(placed(array, "unaligned"), "int8")
    assert np.array_equal(packed.dequantize(), quantize_int8(array).dequantize())
