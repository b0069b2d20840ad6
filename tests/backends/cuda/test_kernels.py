"""Each kernel against its reference implementation in float32 on the CPU."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallow as tl
from tallow import ops
from tallow.errors import ArgumentError, BoundsError
from tallow.matrix.weight import make_weight
from tallow.nn import Embedding
from tallow.ops import KVCache
from tallow.ops.dispatch import OPERATIONS
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder
from tests.backends.cuda.gpu import TOLERANCE, error, in_any_order, needs_gpu, numbers, on_both

pytestmark = needs_gpu
DTYPES = ["float32", "float16", "bfloat16"]
some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that results will be given holds NaN."""
    import cupy

    cupy.full(16 << 20, np.nan, np.float32)


def check(name, run, *arrays, dtype, tolerance=1.0):
    """The kernel's result is the reference's in float32 of the same, rounded, operands."""
    cpu, card = zip(*(on_both(array, dtype) for array in arrays), strict=True)
    expected = run(OPERATIONS[name].reference, *(x.float() for x in cpu))
    found = run(getattr(ops, name), *card)
    assert found.dtype.name == dtype
    assert error(found, expected) <= tolerance * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=st.integers(1, 40), width=st.integers(1, 1300), seed=st.integers(0, 99))
@some
def test_norms(dtype, rows, width, seed):
    x, weight, bias = numbers(rows, width, seed=seed), numbers(width, seed=seed + 1), numbers(width, seed=seed + 2)
    check("rms_norm", lambda op, x, w: op(x, w), x, weight, dtype=dtype)
    if width > 1:
        check("layer_norm", lambda op, *args: op(*args), x, weight, bias, dtype=dtype, tolerance=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [8, 128, 256, 1024, 4096, 5120, 12288])
def test_norms_of_usual_widths(dtype, width):
    x, weight, bias = numbers(37, width), numbers(width, seed=1), numbers(width, seed=2)
    check("rms_norm", lambda op, x, w: op(x, w), x, weight, dtype=dtype)
    check("layer_norm", lambda op, *args: op(*args), x, weight, bias, dtype=dtype, tolerance=2)


def test_norms_of_heads_that_do_not_lie_side_by_side():
    x, weight = numbers(3, 5, 96), numbers(16)
    check("rms_norm", lambda op, x, w: op(x.narrow(-1, 32, 48).reshape(3, 5, 3, 16), w), x, weight, dtype="bfloat16")
    check("rms_norm", lambda op, x, w: op(x.permute(1, 0, 2)[:, :, :16], w), x, weight, dtype="float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9, 33])
@pytest.mark.parametrize(("out", "inputs"), [(1, 8), (24, 64), (151, 1024), (9001, 80), (64, 4104), (17, 30)])
def test_linear(dtype, rows, out, inputs):
    x, w = numbers(rows, inputs) / inputs**0.5, numbers(out, inputs, seed=1)
    bias, scale, residual = numbers(out, seed=2), numbers(out, seed=3), numbers(rows, out, seed=4)
    check("linear", lambda op, x, w: op(x, w), x, w, dtype=dtype)
    for activation in ("gelu", "gelu_tanh", "silu", "relu", None):
        check(
            "linear", lambda op, x, w, b, a=activation: op(x, w, b, activation=a), x, w, bias, dtype=dtype, tolerance=2
        )
    check("linear", lambda op, x, w, b, r: op(x, w, b, residual=r), x, w, bias, residual, dtype=dtype)
    check(
        "linear", lambda op, x, w, b, s, r: op(x, w, b, activation="gelu", scale=s, residual=r),
        x, w, bias, scale, residual, dtype=dtype,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9])
@pytest.mark.parametrize(("out", "inputs"), [(1, 8), (24, 64), (5000, 1024), (100, 4104), (17, 30)])
def test_linear_glu(dtype, rows, out, inputs):
    x, w = numbers(rows, inputs) / inputs**0.5, numbers(2 * out, inputs, seed=1)
    for activation in ("silu", "gelu_tanh"):
        check("linear_glu", lambda op, x, w, a=activation: op(x, w, a), x, w, dtype=dtype, tolerance=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_launches_of_a_recording_wait_for_each_other(dtype):
    x, gain, w = numbers(1, 1024), numbers(1024, seed=1), numbers(1024, 1024, seed=2) / 32
    cpu, card = zip(*(on_both(array, dtype) for array in (x, gain, w)), strict=True)

    def run(x, gain, w):
        for _ in range(12):
            x = ops.rms_norm(ops.linear(ops.rms_norm(x, gain), w, residual=x), gain)
        return x

    recording = Recording(lambda: run(*card), card[0].device)
    expected = run(*card)  # one after the other
    for _ in range(5):
        assert error(recording.result, expected) <= 1e-6
        recording.result.storage.fill(np.nan)
        recording.replay()
    assert dtype != "float32" or error(expected, run(*cpu)) <= 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 50, 96), (1, 7, 30), (2, 9, 8)])
def test_rows_are_taken(dtype, shape):
    cpu, card = on_both(numbers(*shape), dtype)
    for rows in ([[3, 0], [-1, 2]], [6] * 40):
        ids = np.array(rows)
        found = ops.take(card, Tensor(ids).to("cuda"), axis=1)
        assert error(found, ops.take(cpu, Tensor(ids), axis=1)) == 0
    assert np.isnan(ops.take(card, tl.asarray([99, -99], device="cuda"), axis=1).float().numpy()).all()


@pytest.mark.parametrize("storage", DTYPES)
@pytest.mark.parametrize("rows", [1, 40])
def test_linear_on_weights_of_any_storage(storage, rows):
    x, matrix, bias = numbers(2, rows, 64), numbers(48, 64, seed=1), numbers(48, seed=2)
    cpu, card = (make_weight(matrix, storage, tl.Device(kind)) for kind in ("cpu", "cuda"))
    expected = ops.linear(Tensor(x), cpu, Tensor(bias))
    for dtype in ("float32", storage):
        found = ops.linear(Tensor(x).to("cuda", dtype), card, Tensor(bias).to("cuda"))
        assert error(found, expected) <= max(TOLERANCE[dtype], 2e-6)
    assert error(card.dequantize(), cpu.dequantize()) == 0
    assert error(card.to("cpu").dequantize(), cpu.dequantize()) == 0
    ids = tl.asarray([[3, 0], [47, 3]])
    assert error(ops.embedding(ids.to("cuda"), card).float(), ops.embedding(ids, cpu)) == 0


def test_linear_of_rows_that_lie_apart_or_upon_each_other():
    x, w = numbers(4, 30, 64), numbers(16, 32, seed=1)
    check("linear", lambda op, x, w: op(x.narrow(-1, 16, 32), w), x, w, dtype="bfloat16")
    check("linear", lambda op, x, w: op(x.permute(1, 0, 2)[:, :, :32], w), x, w, dtype="float16")
    check("linear", lambda op, x, w: op(x[:1, :1, :32].broadcast_to(4, 5, 32), w), x, w, dtype="float32")
    check("linear", lambda op, x, w: op(x[:, :, ::2], w), x, w, dtype="float32")


def test_numbers_outside_a_table_give_nan():
    table = make_weight(numbers(5, 8), "float32", tl.Device("cuda"))
    found = ops.embedding(tl.asarray([4, 5, -1], device="cuda"), table).numpy()
    assert not np.isnan(found[0]).any()
    assert np.isnan(found[1:]).all()


def test_an_activation_outside_the_list():
    x, weight = Tensor(numbers(2, 8)).to("cuda"), numbers(4, 8)
    for storage in ("float32", "int8"):
        with pytest.raises(ArgumentError, match="no activation 'tanh'"):
            ops.linear(x, make_weight(weight, storage, tl.Device("cuda")), activation="tanh")
    with pytest.raises(ArgumentError, match="no activation 'tanh'"):
        ops.conv1d(x.unsqueeze(0), Tensor(numbers(3, 2, 3)).to("cuda"), activation="tanh")


def test_numbers_outside_a_table_that_come_from_the_cpu_are_an_error():
    layer = Embedding(5, 8, VarBuilder.random(device="cuda"))
    assert not np.isnan(layer(tl.asarray([[0, 4]])).numpy()).any()
    assert layer(tl.asarray(np.zeros((2, 0), np.int64))).shape == (2, 0, 8)
    for ids in ([4, 5], [-1]):
        with pytest.raises(BoundsError, match="table of 5 rows"):
            layer(tl.asarray(ids))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 3, 4, 16), (1, 300, 8, 128)])
def test_rope(dtype, interleaved, shape):
    b, n, _, d = shape
    angles = numbers(b, n, d // 2, seed=1)
    cpu, card = on_both(numbers(*shape), dtype)
    sides = [
        op(x, Tensor(np.cos(angles)).to(x.device), Tensor(np.sin(angles)).to(x.device), interleaved=interleaved)
        for op, x in ((OPERATIONS["rope"].reference, cpu.float()), (ops.rope, card))
    ]
    assert error(sides[1], sides[0]) <= TOLERANCE[dtype]


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "d"), [(4, 2, 64), (16, 8, 128), (3, 1, 32), (2, 2, 48)])
def test_rope_append(stored, dtype, normed, heads, kv_heads, d):
    caches = KVCache(2, kv_heads, d, 90, "float32"), in_any_order(KVCache(2, kv_heads, d, 90, stored, "cuda"))
    for step, (n, counts) in enumerate([(7, None), (1, None), (60, [60, 3]), (1, [0, 1])]):
        arrays = [numbers(2, n, count, d, seed=3 * step + i) for i, count in enumerate([heads, kv_heads, kv_heads])]
        angles, gains = numbers(2 if step else 1, n, d // 2, seed=9), [numbers(d, seed=7), numbers(d, seed=8)]
        results = []
        for cache in caches:
            device, kind = cache.device, dtype if cache is caches[1] else "float32"
            q, k, v = (Tensor(x).to(dtype).to(kind).to(device) for x in arrays)
            cos, sin = Tensor(np.cos(angles)).to(device), Tensor(np.sin(angles)).to(device)
            norms = [Tensor(gain).to(dtype).to(kind).to(device) if normed else None for gain in gains]
            results.append(ops.rope_append(q, k, v, cache, cos, sin, q_norm=norms[0], k_norm=norms[1], counts=counts,
                                           interleaved=step == 2))  # fmt: skip
        assert error(results[1].float(), results[0]) <= 2 * TOLERANCE[dtype]
        lengths = caches[0].lengths.tolist()
        assert caches[1].lengths.tolist() == caches[1].held.tolist() == lengths
        for mine, other in zip(caches[1].view()[:2], caches[0].view()[:2], strict=True):
            for row, length in enumerate(lengths):
                bound = 2 * max(TOLERANCE[dtype], TOLERANCE[stored])
                assert error(mine[row, :length].float(), other[row, :length]) <= bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 151936), (2, 5, 300), (70,)])
def test_argmax(dtype, shape):
    array = numbers(*shape)
    for poison in (None, np.inf, np.nan):
        if poison is not None:
            array.reshape(-1)[array.size // 2 :: 7] = poison
        cpu, card = on_both(array, dtype)
        found, expected = ops.argmax(card, axis=-1), ops.argmax(cpu, axis=-1)
        assert found.tolist() == expected.tolist()
        assert ops.argmax(card, axis=-1, keepdims=True).shape == (*shape[:-1], 1)
    assert ops.argmax(tl.asarray([-0.0, 0.0, -1.0], device="cuda"), axis=-1).item() == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [0, 1, 20, 3000])
@pytest.mark.parametrize(("rows", "vocab"), [(1, 1), (3, 2500), (2, 32001), (9, 1030)])
def test_top_logprobs(dtype, k, rows, vocab):
    array, chosen = numbers(rows, vocab) * 4, Tensor(np.arange(rows) * 7 % vocab)
    ties, hidden, broken = np.round(array), array.copy(), array.copy()
    hidden[:, : vocab // 2] = -np.inf  # the whole part of a block
    broken[0, vocab // 2], broken[-1] = np.nan, -np.inf
    broken[rows // 2, vocab // 3] = np.inf
    for values in (array, ties, hidden, broken):
        cpu, card = on_both(values, dtype)
        found = ops.top_logprobs(card, chosen.to("cuda"), k)
        expected = OPERATIONS["top_logprobs"].reference(cpu.float(), chosen, k)
        assert found[0].tolist() == expected[0].tolist()
        np.testing.assert_allclose(found[1].numpy(), expected[1].numpy(), rtol=2e-6, atol=4e-6)


def test_positions():
    lengths, counts = tl.asarray([0, 5, 30]), tl.asarray([3, 0, 2])
    frequencies = Tensor(numbers(24))
    for n, added in ((1, None), (4, None), (4, counts)):
        sides = []
        for device in ("cpu", "cuda"):
            at = ops.next_positions(lengths.to(device), n, None if added is None else added.to(device))
            sides.append((at, *ops.rotary_angles(at * 1000, frequencies.to(device), 1.25)))
        assert sides[0][0].tolist() == sides[1][0].tolist()
        for found, expected in zip(sides[1][1:], sides[0][1:], strict=True):
            assert error(found, expected) <= 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    b=st.integers(1, 3), channels=st.integers(1, 6), out=st.integers(1, 9), size=st.tuples(st.integers(5, 20),
    st.integers(5, 20)), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), stride=st.integers(1, 4),
    padding=st.integers(0, 3), dilation=st.integers(1, 1), biased=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@some
def test_convolutions(dtype, b, channels, out, size, kernel, stride, padding, dilation, biased, seed):
    x, w = numbers(b, channels, *size, seed=seed), numbers(out, channels, *kernel, seed=seed + 1)
    bias = numbers(out, seed=seed + 2)

    def run(op, x, w, bias):
        return op(x, w, bias if biased else None, stride=stride, padding=padding, dilation=dilation, activation="relu")

    check("conv2d", run, x, w, bias, dtype=dtype, tolerance=2)
    check("conv1d", run, x[:, :, 0], w[:, :, 0], bias, dtype=dtype, tolerance=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_glu_and_activations_of_views(dtype):
    x = numbers(7, 2, 60)
    for activation in ("silu", "gelu_tanh"):
        check("glu", lambda op, x, a=activation: op(x[..., :30], x[..., 30:], a), x, dtype=dtype)
    check("gelu", lambda op, x: op(x[:, 1]), x, dtype=dtype)
    check("silu", lambda op, x: op(x.permute(2, 0, 1)), x, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(5, 7), (8, 12)])
def test_pixels(dtype, size):
    pixels = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    expected, found = (
        ops.normalize_pixels(Tensor(pixels).to(device), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), kind)
        for device, kind in (("cpu", "float32"), ("cuda", dtype))
    )
    assert found.dtype.name == dtype
    assert error(found, expected) <= TOLERANCE[dtype]
