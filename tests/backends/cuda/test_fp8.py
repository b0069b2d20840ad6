"""Weights in E4M3 on a card: products and rows against the numbers that they stand for."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallow as tl
from tallow import ops
from tallow.device import compute_capability, cuda_trouble
from tallow.matrix.fp8 import BLOCK, E4M3, Fp8Matrix, quantize_fp8
from tallow.matrix.weight import Weight, make_weight
from tallow.models.qwen3 import Qwen3, Qwen3Config
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tallow.weights.random import RandomSource
from tallow.weights.var_builder import VarBuilder
from tests.backends.cuda.gpu import TOLERANCE, error, needs_gpu, numbers

old = cuda_trouble(0) is None and compute_capability(0) < (8, 9)
pytestmark = [*needs_gpu, pytest.mark.skipif(old, reason="the card has no fp8")]
some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
KINDS = ("rows", "blocks", "bands of one row")


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that results will be given holds NaN."""
    import cupy

    cupy.full(16 << 20, np.nan, np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_moved_to_the_cpu_and_back(kind):
    matrix = matrix_of(kind, 130, 256)
    there = make_weight(matrix, "fp8", tl.Device("cuda"))
    back = there.packed.on_host()
    assert np.array_equal(back.values.view(np.uint8), matrix.values.view(np.uint8))
    assert np.array_equal(back.dequantize(), matrix.dequantize())
    here = there.to("cpu")
    assert here.storage == "float16"
    assert error(here.dequantize(), Tensor(matrix.dequantize())) <= 1e-3
    plain = Weight(matrix).to("cuda")
    assert plain.storage == "fp8"
    assert error(plain.dequantize(), Tensor(matrix.dequantize())) <= 1e-6


def matrix_of(kind, out, inputs, seed=1):
    """A matrix in E4M3 with scales of that kind."""
    plain = numbers(out, inputs, seed=seed) / inputs**0.5
    if kind == "rows":
        return quantize_fp8(plain)
    height = BLOCK if kind == "blocks" else 1
    shape = -(-out // height), -(-inputs // BLOCK)
    scales = np.random.default_rng(seed).uniform(0.5, 2, shape).astype(np.float32) / 64
    return Fp8Matrix((plain * 40).astype(E4M3), scales)


def in_e4m3(x, kind):
    """Activations as a large product takes them."""
    rows, width = x.shape
    parts = x.reshape(-1, BLOCK if kind == "blocks" else width)
    return quantize_fp8(parts).dequantize().reshape(rows, width)


def check(kind, dtype, rows, out, inputs, whole):
    """A product, with all that may follow it or by itself, against the reference in float32."""
    matrix = matrix_of(kind, out, inputs)
    weight = make_weight(matrix, "fp8", tl.Device("cuda"), dtype=tl.asarray([0.0], dtype=dtype).dtype)
    plain = Tensor(matrix.dequantize())
    x, residual = (Tensor(array).to(dtype) for array in (numbers(rows, inputs, seed=4), numbers(rows, out, seed=5)))
    taken = x.float()
    whole_units = not inputs % (BLOCK if kind == "blocks" else 16) and not out % 16
    with_codes = whole_units and (kind != "bands of one row" or inputs <= BLOCK)  # of which each has one scale then
    if rows > 8 and dtype != "float32" and with_codes and compute_capability(0) == (9, 0):
        taken = Tensor(in_e4m3(taken.numpy(), kind))
    if not whole:
        found, expected = ops.linear(x.to("cuda"), weight), ops.linear(taken, plain)
    else:
        bias, scale = (Tensor(numbers(out, seed=seed)).to(dtype) for seed in (2, 3))
        expected = ops.linear(taken, plain, bias.float(), activation=whole, scale=scale.float(),
                              residual=residual.float())  # fmt: skip
        found = ops.linear(x.to("cuda"), weight, bias.to("cuda"), activation=whole, scale=scale.to("cuda"),
                           residual=residual.to("cuda"))  # fmt: skip
    assert found.dtype.name == dtype
    assert error(found.float(), expected) <= 4 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
@given(
    rows=st.sampled_from([1, 2, 3, 8, 9, 17, 100, 333]), out=st.sampled_from([1, 16, 24, 160, 256, 1000, 3072]),
    inputs=st.sampled_from([8, 16, 40, 128, 256, 384, 1024, 4096]), whole=st.sampled_from([None, "silu", "gelu"]),
)  # fmt: skip
@some
def test_products(dtype, kind, rows, out, inputs, whole):
    check(kind, dtype, rows, out, inputs, whole)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["rows", "blocks"])
def test_every_epilogue(dtype, kind):
    matrix = matrix_of(kind, 256, 512)
    weight, plain = make_weight(matrix, "fp8", tl.Device("cuda")), Tensor(matrix.dequantize())
    for rows in (9, 130, 2048):
        x = Tensor(numbers(rows, 512)).to(dtype)
        bias, residual = Tensor(numbers(256, seed=2)).to(dtype), Tensor(numbers(rows, 256, seed=3)).to(dtype)
        taken = Tensor(in_e4m3(x.float().numpy(), kind)) if compute_capability(0) == (9, 0) else x.float()
        for given_bias in (None, bias):
            for options in ({}, {"residual": residual}, {"activation": "gelu_tanh"}, {"activation": "relu"},
                            {"activation": "gelu"}):  # fmt: skip
                on_card = {k: v.to("cuda") if isinstance(v, Tensor) else v for k, v in options.items()}
                wide = {k: v.float() if isinstance(v, Tensor) else v for k, v in options.items()}
                found = ops.linear(x.to("cuda"), weight, None if given_bias is None else bias.to("cuda"), **on_card)
                expected = ops.linear(taken, plain, None if given_bias is None else bias.float(), **wide)
                assert error(found.float(), expected) <= 4 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9])
@pytest.mark.parametrize(("out", "inputs"), [(1, 16), (128, 256), (5000, 1024), (100, 4112), (16, 40)])
def test_linear_glu(dtype, kind, rows, out, inputs):
    matrix = matrix_of(kind, 2 * out, inputs)
    x = Tensor(numbers(rows, inputs, seed=2)).to(dtype)
    expected = ops.linear_glu(x.float(), Tensor(matrix.dequantize()))
    found = ops.linear_glu(x.to("cuda"), make_weight(matrix, "fp8", tl.Device("cuda")))
    # Above 8 rows activations are in E4M3, whose 4 bits of mantissa are off by 2.6 % (rms), each product with its own.
    assert error(found.float(), expected) <= (0.06 if rows > 8 else 8 * TOLERANCE[dtype])


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (70, 512), (3, 48), (1000, 77)])
def test_weights_are_quantised_on_the_card_as_the_reference_does(stored, rows, columns):
    plain = (numbers(rows, columns) * np.linspace(1e-3, 1e3, rows, dtype=np.float32)[:, None]).astype(
        tl.asarray([0.0], dtype=stored).numpy().dtype
    )
    plain[rows // 2] = 0
    expected = quantize_fp8(plain)
    weight = make_weight(plain, "fp8", tl.Device("cuda"))
    assert (weight.storage, weight.shape, weight.nbytes) == ("fp8", (rows, columns), rows * columns + 4 * rows)
    assert np.array_equal(weight.packed.codes.get(), expected.values.view(np.uint8))
    assert np.array_equal(weight.packed.scales.get(), expected.scales)
    for bad in (np.nan, np.inf):
        plain[0, -1] = bad
        with pytest.raises(tl.WeightsError, match="NaN or infinity"):
            make_weight(plain, "fp8", tl.Device("cuda"))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("out", "inputs"), [(70, 512), (300, 200), (129, 77)])
def test_rows_and_the_whole(dtype, kind, out, inputs):
    matrix = matrix_of(kind, out, inputs)
    weight = make_weight(matrix, "fp8", tl.Device("cuda"), dtype=tl.asarray([0.0], dtype=dtype).dtype)
    assert np.array_equal(weight.dequantize().numpy(), matrix.dequantize())
    ids = tl.asarray([[3, 0, out - 1], [17, 17, 40]])
    assert np.array_equal(weight.rows(ids.to("cuda")).numpy(), matrix.rows(ids.numpy()))
    found = ops.embedding(ids.to("cuda"), weight)
    assert found.dtype.name == dtype
    assert error(found.float(), ops.embedding(ids, Tensor(matrix.dequantize()))) <= TOLERANCE[dtype]
    assert np.isnan(ops.embedding(tl.asarray([out, -1], device="cuda"), weight).float().numpy()).all()
    assert weight.nbytes >= matrix.nbytes
    moved = weight.to("cpu")  # which has no kernels for E4M3
    assert moved.storage == "float16"
    assert np.array_equal(moved.dequantize().numpy(), matrix.dequantize().astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("kind", ["rows", "blocks"])
def test_what_is_no_number_spoils_its_row_alone(kind):
    matrix = matrix_of(kind, 128, 256)
    weight, x = make_weight(matrix, "fp8", tl.Device("cuda")), numbers(12, 256)
    x[1, 7], x[2, :], x[3, 200], x[4, :] = np.nan, np.nan, np.inf, 0
    found = ops.linear(Tensor(x).to("bfloat16").to("cuda"), weight).float().numpy()
    assert np.isnan(found[1:4]).all()
    assert (found[4] == 0).all()
    assert np.isfinite(found[[0, *range(4, 12)]]).all()


@pytest.mark.parametrize("kind", ["rows", "blocks"])
@pytest.mark.parametrize("rows", [1, 40])
def test_products_can_be_recorded(kind, rows):
    weight = make_weight(matrix_of(kind, 512, 512), "fp8", tl.Device("cuda"))
    x = Tensor(numbers(rows, 512)).to("bfloat16").to("cuda")

    def run():
        y = x
        for _ in range(6):
            y = ops.linear(y, weight, residual=y)
        return y

    expected, recording = run(), Recording(run, x.device)
    for _ in range(3):
        assert error(recording.result.float(), expected.float()) <= 1e-6
        recording.result.storage.fill(np.nan)
        recording.replay()


class Rounded(RandomSource):
    """Random weights, the matrices rounded to what E4M3 can hold."""

    def draw(self, name, shape):
        values = super().draw(name, shape)
        return quantize_fp8(values).dequantize() if len(shape) == 2 else values


def test_a_language_model_says_nearly_the_same():
    from tests.backends.cuda.test_models import NEAR, QWEN

    config, ids = Qwen3Config.from_dict(QWEN), Tensor(np.random.default_rng(0).integers(0, 500, (1, 40)))
    sides = []
    for source, options in (
        (RandomSource(0), {}),
        (Rounded(0), {}),
        (RandomSource(0), {"device": "cuda", "dtype": "float32", "quantize": "fp8"}),
        (RandomSource(0), {"device": "cuda", "dtype": "bfloat16", "quantize": "fp8"}),
    ):
        model = Qwen3(config, VarBuilder(source, **options))
        cache = model.new_cache(1, 50)
        told = [model.logits(model.forward(ids[:, :30], cache))]  # many rows
        told += [model.logits(model.forward(ids[:, 30 + i : 31 + i], cache)) for i in range(5)]  # one
        sides.append([each.float().to("cpu") for each in told])
    off = max(error(rounded, exact) for exact, rounded, *_ in zip(*sides, strict=True))
    assert off <= 0.16
    for exact, rounded, wide, narrow in zip(*sides, strict=True):
        assert error(wide, rounded) <= 2 * NEAR["float32"]
        assert error(narrow, rounded) <= off  # to round the prompt's activations costs no more than to round weights
        assert error(narrow, exact) <= 1.5 * off
    assert model.blocks[0].mlp.down.weight.storage == model.embed_tokens.weight.storage == "fp8"
    assert len(model.generate([3, 1, 4], max_tokens=12, temperature=0, ignore_eos=True).ids) == 12
