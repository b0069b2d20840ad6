"""GGUF's blocks: single weights bit for bit, products against the quantised arithmetic in NumPy, on every level."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.backends.cpu.packing import PackedMatrix, pack
from tallow.errors import BoundsError, DTypeError
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.blocks import BY_NAME
from tallow.matrix.weight import BLOCK_STORAGES, Weight, make_weight
from tallow.tensor import Tensor

KINDS = BLOCK_STORAGES["cpu"]
kinds = st.sampled_from(KINDS)
rows = st.one_of(st.integers(0, 70), st.sampled_from([31, 32, 33, 64, 65]))
some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("cpu_level")


def random_blocks(name, n, count, seed, codes=None):
    """A matrix of n rows with ``count`` blocks each: any codes, and scales near 1; ``codes`` fills all but scales."""
    kind = BY_NAME[name]
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (n, count, kind.nbytes), np.uint8)
    if codes is not None:
        raw[...] = codes
    blocks = raw.view(kind.layout)[..., 0]
    for field in {"d", "m", "dmin"} & set(kind.layout.names):
        blocks[field] = rng.uniform(-1, 1, (n, count)) if codes is None else 1
    return BlockMatrix(raw.reshape(n, count * kind.nbytes), kind)


def draw(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rounded(x, group):
    """Activations as the kernels round them: to 8 bits, with a scale for each group of inputs."""
    pieces = x.reshape(len(x), x.shape[1] // group, group)
    largest = np.abs(pieces).max(2, initial=0)
    scales = largest / np.float32(127)
    inverse = np.where(largest > 0, np.float32(127) / np.where(largest > 0, largest, 1), 0).astype(np.float32)
    values = np.rint(pieces * inverse[:, :, None]) * scales[:, :, None].astype(np.float64)
    return values.reshape(x.shape)


def group_of(name):
    return 16 if name == "q6_k" else 32


def product(x, packed, **options):
    return ops.linear(Tensor(x), Weight(packed), **options).numpy()


def check(out, x, matrix):
    """Within float32's rounding of the product with the activations as they were rounded, summed in double."""
    wide = matrix.dequantize().astype(np.float64)
    exact = rounded(x, group_of(matrix.storage))
    largest = np.abs(exact) @ np.abs(wide).T + np.abs(exact).sum(1)[:, None]  # minima and codes may cancel
    np.testing.assert_array_less(np.abs(out - exact @ wide.T), 4e-6 * largest * max(1, np.log2(1 + x.shape[1])) + 1e-30)


@some
@given(kinds, rows, st.integers(0, 5), st.integers(0, 2**31))
def test_weights_stay_as_they_are(name, n, count, seed):
    matrix = random_blocks(name, n, count, seed)
    packed = pack(matrix, name)
    assert isinstance(packed, PackedMatrix)
    assert (packed.storage, packed.shape) == (name, matrix.shape)
    assert packed.dequantize().tobytes() == matrix.dequantize().tobytes()
    if n:
        ids = np.array([[0, n - 1], [n // 2, 0]])
        assert packed.rows(ids).tobytes() == matrix.rows(ids).tobytes()
        with pytest.raises(BoundsError, match=f"table of {n} rows"):
            packed.rows(np.array([n]))


@some
@given(kinds, st.integers(0, 30), rows, st.integers(0, 5), st.integers(0, 2**31))
def test_products(name, m, n, count, seed):
    matrix = random_blocks(name, n, count, seed)
    x = draw((m, matrix.shape[1]), seed + 1)
    check(product(x, pack(matrix, name)), x, matrix)


@pytest.mark.parametrize("name", KINDS)
def test_long_rows_and_many(name):
    matrix = random_blocks(name, 50, 2048 // BY_NAME[name].elements, 7)
    x = draw((150, 2048), 8)
    check(product(x, pack(matrix, name)), x, matrix)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("codes", [0x00, 0xFF, 0x80, 0x7F, 0x81])
def test_extreme_operands(name, codes):
    """All codes alike and all activations ±127: sums of pairs that don't fit 16 bits if they are added carelessly."""
    matrix = random_blocks(name, 40, 3, 0, codes)
    rng = np.random.default_rng(codes)
    x = rng.choice(np.float32([-127, 127]), (9, matrix.shape[1]))
    x[0], x[1], x[2] = 127, -127, 0
    wide = matrix.dequantize().astype(np.float64)
    out = product(x, pack(matrix, name))
    np.testing.assert_allclose(out, x @ wide.T, rtol=1e-5, atol=1e-5 * np.abs(wide).max() * 127)
    if BY_NAME[name].elements == 32:  # whole numbers all along, so exactly
        assert np.array_equal(out, (x @ wide.T).astype(np.float32))


@some
@given(kinds, st.integers(2, 40), st.integers(1, 100), st.integers(1, 4), st.data())
def test_rows_are_bit_identical_however_they_are_batched(threads, name, m, n, count, data):
    matrix = random_blocks(name, n, count, m)
    packed, x = pack(matrix, name), draw((m, matrix.shape[1]), m)
    bias, residual = Tensor(draw(n, 1)), draw((m, n), 2)
    threads(1)
    whole = product(x, packed, bias=bias, activation="silu", residual=Tensor(residual))
    threads(data.draw(st.integers(1, 5)))
    begin = 0
    while begin < m:
        end = data.draw(st.integers(begin + 1, m))
        part = product(x[begin:end], packed, bias=bias, activation="silu", residual=Tensor(residual[begin:end]))
        assert part.tobytes() == whole[begin:end].tobytes()
        begin = end


@pytest.mark.parametrize("name", KINDS)
def test_close_to_the_product_with_activations_as_they_are(name):
    matrix = random_blocks(name, 64, 1024 // BY_NAME[name].elements, 3)
    x = draw((16, 1024), 4)
    exact = x.astype(np.float64) @ matrix.dequantize().astype(np.float64).T
    assert np.linalg.norm(product(x, pack(matrix, name)) - exact) / np.linalg.norm(exact) < 0.012


@pytest.mark.parametrize("name", KINDS)
def test_rows_that_are_not_finite_or_tiny(name):
    matrix = random_blocks(name, 33, 2, 5)
    packed, x = pack(matrix, name), draw((6, matrix.shape[1]), 6)
    clean = product(x, packed)
    x[1, 3], x[2, 40], x[4] = np.nan, -np.inf, 1e-42
    out = product(x, packed)
    assert np.isnan(out[1:3]).all()
    assert np.array_equal(out[4], np.zeros(33))
    assert np.array_equal(out[[0, 3, 5]], clean[[0, 3, 5]])


def test_slices_and_copies():
    matrix = random_blocks("q4_1", 40, 4, 9)
    part = matrix.columns(slice(32, 96))  # rows with bytes between them
    assert np.array_equal(pack(part, "q4_1").dequantize(), matrix.dequantize()[:, 32:96])
    weight = make_weight(matrix, "q4_1")
    assert isinstance(weight.packed, PackedMatrix)
    assert weight.to(dtype="float16") is weight
    assert weight.nbytes == pytest.approx(matrix.nbytes, rel=0.7)  # the last panel is filled up
    with pytest.raises(DTypeError, match="blocks of q4_1"):
        pack(matrix, "q8_0")


def test_panels_take_what_the_file_takes():
    for name in KINDS:
        matrix = random_blocks(name, 128, 4, 1)
        assert pack(matrix, name).nbytes <= matrix.nbytes * 1.03
