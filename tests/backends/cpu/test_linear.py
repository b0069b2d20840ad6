"""Products with float weights: against float64, and bit for bit against themselves."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.backends.cpu.packing import PackedMatrix, pack
from tallow.errors import DTypeError, ShapeError, TallowError
from tallow.matrix.weight import Weight, make_weight
from tallow.tensor import Tensor

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
ACTIVATIONS = [None, "gelu", "gelu_tanh", "silu", "relu"]
sizes = st.one_of(st.integers(0, 70), st.sampled_from([128, 255, 256, 257, 300]))
some = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("cpu_level")


def draw(shape, seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def product(x, packed, bias=None, activation=None, residual=None):
    wrap = [None if a is None else Tensor(a) for a in (bias, residual)]
    return ops.linear(Tensor(x), Weight(packed), wrap[0], activation=activation, residual=wrap[1]).numpy()


def assert_near(out, x, w, reference):
    """Within the error that summing len(k) products in float32 may make."""
    bound = np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64).T + 1
    assert (np.abs(out - reference) <= 2e-7 * (4 + x.shape[1] / 8) * bound).all()


@some
@given(sizes, sizes, sizes, st.sampled_from(list(DTYPES)), st.integers(0, 2**31))
def test_product_of_any_shape_and_storage(m, n, k, storage, seed):
    x, w = draw((m, k), seed), draw((n, k), seed + 1, DTYPES[storage])
    out = product(x, pack(w, storage))
    assert out.shape == (m, n)
    assert out.dtype == np.float32
    w = w.astype(np.float64)
    assert_near(out, x, w, x.astype(np.float64) @ w.T)


@some
@given(st.integers(1, 40), st.integers(1, 70), st.sampled_from(ACTIVATIONS), st.booleans(), st.booleans())
def test_bias_activation_and_residual(m, n, activation, with_bias, with_residual):
    x, w = draw((m, 24), m), draw((n, 24), n)
    bias = draw(n, 1) if with_bias else None
    residual = draw((m, n), 2) if with_residual else None
    out = product(x, pack(w, "float32"), bias, activation, residual)
    wrap = [None if a is None else Tensor(a) for a in (bias, residual)]
    expected = ops.linear(Tensor(x), Tensor(w), wrap[0], activation=activation, residual=wrap[1]).numpy()
    np.testing.assert_allclose(out, expected, rtol=2e-6, atol=4e-6)


@some
@given(st.integers(2, 200), st.integers(1, 200), st.integers(1, 600), st.sampled_from(list(DTYPES)), st.data())
def test_rows_are_bit_identical_however_they_are_batched(threads, m, n, k, storage, data):
    x, bias, residual = draw((m, k), m), draw(n, 1), draw((m, n), 2)
    packed = pack(draw((n, k), n), storage)
    threads(1)
    whole = product(x, packed, bias, "gelu", residual)
    threads(data.draw(st.integers(1, 5)))
    begin = 0
    while begin < m:
        end = data.draw(st.integers(begin + 1, m))
        part = product(x[begin:end], packed, bias, "gelu", residual[begin:end])
        assert part.tobytes() == whole[begin:end].tobytes()
        begin = end


def test_the_many_threads_of_a_large_product_agree_with_one(threads):
    x, packed = draw((300, 700), 0), pack(draw((513, 700), 1), "float16")
    threads(1)
    alone = product(x, packed)
    for count in (2, 3, 7):
        threads(count)
        assert product(x, packed).tobytes() == alone.tobytes()


@pytest.mark.parametrize("storage", DTYPES)
def test_operands_of_any_strides(storage):
    base = draw((40, 60), 0)
    w = draw((50, 30), 1)
    expected = product(np.ascontiguousarray(base[::-2, ::2]), pack(w, storage))
    assert np.array_equal(product(base[::-2, ::2], pack(w, storage)), expected)
    assert np.array_equal(product(base[::-2, ::2], pack(np.asfortranarray(w), storage)), expected)
    assert np.array_equal(product(base[::-2, ::2], pack(w[::-1][::-1], storage)), expected)
    apart = np.repeat(base[::-2, ::2], 2, axis=0)[::2]
    assert np.array_equal(product(apart, pack(w, storage)), expected)
    one_row = np.broadcast_to(base[:1, :30], (7, 30))
    assert np.array_equal(product(one_row, pack(w, storage)), product(one_row.copy(), pack(w, storage)))
    shifted = np.frombuffer(b"x" + base.tobytes(), np.uint8)[1:].view(np.float32).reshape(40, 60)[:, :30]
    assert not shifted.flags.aligned
    assert np.array_equal(product(shifted, pack(w, storage)), product(shifted.copy(), pack(w, storage)))


def test_more_than_two_axes_and_an_empty_batch():
    x, packed = draw((2, 3, 5, 16), 0), pack(draw((8, 16), 1), "float32")
    out = product(x, packed, residual=np.ones((2, 3, 5, 8), np.float32))
    assert np.array_equal(out.reshape(30, 8), product(x.reshape(30, 16), packed) + 1)
    assert product(np.zeros((0, 4, 16), np.float32), packed).shape == (0, 4, 8)
    assert product(np.zeros(16, np.float32), packed).shape == (8,)


@pytest.mark.parametrize("storage", DTYPES)
def test_not_a_number_and_infinity_stay_in_their_rows(storage):
    x, w = draw((9, 20), 0), draw((33, 20), 1)
    packed = pack(w, storage)
    clean = product(x, packed)
    x[3, 4], x[5, 0] = np.nan, np.inf
    out = product(x, packed)
    assert np.isnan(out[3]).all()
    assert np.isinf(out[5]).all()
    others = [0, 1, 2, 4, 6, 7, 8]
    assert np.array_equal(out[others], clean[others])
    w[7, 2] = np.inf
    assert np.isinf(product(x[:1], pack(w, storage))[0, 7])


@pytest.mark.parametrize("storage", DTYPES)
def test_conversion_rounds_as_numpy_does(storage):
    values = np.concatenate([
        np.float32([0, -0.0, 1, 65504, 65519, 65520, 1e30, -np.inf, np.nan, 6e-8, 2.9e-8, 3.1e-8, 6.1e-5, 1e-40]),
        draw(500, 3) * np.float32(1e-5), draw(500, 4) * np.float32(3e4),
        np.arange(1, 2049, dtype=np.float32) * np.float32(2**-26),
        (np.arange(4096, dtype=np.uint32) * 0x1001 + 0x3F800000).view(np.float32),
    ])  # fmt: skip
    with np.errstate(over="ignore"):
        expected = values.astype(DTYPES[storage]).astype(np.float32)
    for shape in ((1, -1), (-1, 1)):
        matrix = values.reshape(shape)
        assert np.array_equal(pack(matrix, storage).dequantize(), expected.reshape(matrix.shape), equal_nan=True)


@pytest.mark.parametrize("storage", DTYPES)
def test_rows_and_dequantize(storage):
    w = draw((77, 50), 0, DTYPES[storage])
    packed = pack(w, storage)
    assert packed.shape == (77, 50)
    assert packed.storage == storage
    assert packed.nbytes >= w.nbytes
    assert np.array_equal(packed.dequantize(), w.astype(np.float32))
    ids = np.array([[0, 76, 3], [5, 5, 31]], np.int32)
    assert np.array_equal(packed.rows(ids), w.astype(np.float32)[ids])
    assert packed.rows(np.zeros((0,), np.int64)).shape == (0, 50)
    looked_up = ops.embedding(Tensor(ids), Weight(packed))
    assert np.array_equal(looked_up.numpy(), w.astype(np.float32)[ids])
    for bad in (-1, 77):
        with pytest.raises(ShapeError, match="77 rows"):
            packed.rows(np.array([0, bad]))


def test_make_weight_packs_for_the_cpu():
    weight = make_weight(draw((6, 5), 0), "float16")
    assert isinstance(weight.packed, PackedMatrix)
    assert weight.shape == (6, 5)


def test_residual_may_be_the_memory_of_x():
    x, w = draw((30, 30), 0), draw((30, 30), 1)
    assert np.array_equal(product(x, pack(w, "float32"), residual=x), product(x, pack(w, "float32")) + x)


def test_wrong_operands_are_refused():
    packed = pack(draw((8, 16), 0), "float32")
    with pytest.raises(ShapeError, match="does not fit"):
        product(draw((3, 15), 0), packed)
    with pytest.raises(ShapeError, match="bias"):
        product(draw((3, 16), 0), packed, bias=draw(7, 0))
    with pytest.raises(ShapeError, match="residual"):
        product(draw((3, 16), 0), packed, residual=draw((3, 7), 0))
    with pytest.raises(TallowError, match="activation"):
        product(draw((3, 16), 0), packed, activation="tanh")
    with pytest.raises(DTypeError, match="int3"):
        pack(draw((8, 16), 0), "int3")
    with pytest.raises(ShapeError, match="matrix"):
        pack(draw(8, 0), "float32")
