import threading

import numpy as np
import pytest

import tallow as tl
from tallow import ops
from tallow.engine import step
from tallow.errors import BoundsError, CaptureError
from tallow.matrix.weight import make_weight
from tallow.ops import KVCache, dispatch
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def layer():
    """A small decoder layer on one token a row: what it reads, and a function of its cache."""
    heads, d, vocab = 2, 16, 40
    table, qkv, out = (make_weight(floats(n, heads * d, seed=i), "float16") for i, n in enumerate((vocab, 96, 32)))
    scale = Tensor(floats(heads * d, seed=7))

    def step(ids, cache):
        x = ops.embedding(ids, table)
        y = ops.linear(ops.rms_norm(x, scale), qkv)
        q, k, v = (y.narrow(-1, i * 32, 32).reshape(*ids.shape, heads, d) for i in range(3))
        cache.append(k, v)
        attended = ops.attention(q, cache, causal=True).reshape(*x.shape)
        return ops.linear(ops.linear(attended, out, residual=x), table)

    return step


@pytest.mark.parametrize("batch", [1, 3])
def test_replayed_steps_equal_eager_ones(layer, batch):
    tokens = np.random.default_rng(1).integers(0, 40, (12, batch, 1))
    eager, recorded = (KVCache(batch, 2, 16, 12) for _ in range(2))
    ids = Tensor(tokens[0].copy())
    recording = Recording(lambda: layer(ids, recorded))
    assert len(recording) == 7
    for at, now in enumerate(tokens):
        expected = layer(Tensor(now), eager).numpy()
        if at:
            ids.storage[...] = now
            assert recording.replay() is recording.result
        np.testing.assert_array_equal(recording.result.numpy(), expected)
    np.testing.assert_array_equal(recorded.lengths.numpy(), eager.lengths.numpy())


def test_a_replay_checks_what_it_reads(layer):
    cache, ids = KVCache(1, 2, 16, 16), Tensor(np.zeros((1, 1), np.int64))
    recording = Recording(lambda: layer(ids, cache))
    ids.storage[...] = 40
    with pytest.raises(IndexError, match="row 40 of 40"):
        recording.replay()
    ids.storage[...] = 39
    recording.replay()
    cache.lengths.storage[...] = 16  # the cache is full
    with pytest.raises(ValueError, match="lengths"):
        recording.replay()


def test_operations_that_cannot_be_recorded_are_named(layer):
    x, apart = Tensor(floats(4, 8)), Tensor(floats(4, 16)[:, ::2])
    weight = make_weight(floats(8, 8), "float32")
    for function, message in (
        (lambda: ops.expm1(x), "expm1 cannot be recorded: it has no native kernel"),
        (lambda: x.sum().item(), "sum cannot be recorded"),
        (lambda: ops.linear(x, weight).tolist(), "tolist cannot be recorded: it gives a tensor's value to Python"),
        (
            lambda: ops.linear(apart, weight),
            "copied",
        ),
    ):
        with pytest.raises(CaptureError, match=message):
            Recording(function)
    assert (x + 1.0).shape == (4, 8)  # and nothing of it stays behind
    with pytest.raises(BoundsError):
        Recording(lambda: layer(Tensor(np.array([[40]])), KVCache(1, 2, 16, 2)))


def test_recordings_do_not_nest_and_leave_other_threads_alone():
    x, weight = Tensor(floats(2, 8)), make_weight(floats(8, 8), "float32")
    with pytest.raises(RuntimeError, match="already"):
        Recording(lambda: Recording(lambda: ops.linear(x, weight)))
    seen = []

    def both():
        other = threading.Thread(target=lambda: seen.append((x + 1.0).sum().item()))
        other.start()
        other.join()
        return ops.linear(x, weight)

    recording = Recording(both)
    assert len(recording) == 1
    assert seen == [pytest.approx(float((x.numpy() + 1).sum()), rel=1e-6)]
    assert isinstance(recording.result, tl.Tensor)


ONE = {name: getattr(ops, name) for name in ("negative", "abs", "square", "sqrt", "reciprocal", "exp", "log", "tanh",
                                             "sin", "cos")}  # fmt: skip
TWO = {name: getattr(ops, name) for name in (
    "add", "subtract", "multiply", "divide", "maximum", "minimum",
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
)}  # fmt: skip
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.3, 88.0, -80.0, 1e-30, 1e30, np.inf, -np.inf, np.nan], np.float32)


def replayed(function, *tensors):
    """What the recording of a function gives once it reads other numbers, and what the function gives for these."""
    given = [x.storage.copy() for x in tensors]
    for x in tensors:
        x.storage[...] = 0.5
    recording = Recording(lambda: function(*tensors))
    assert len(recording)
    for x, values in zip(tensors, given, strict=True):
        x.storage[...] = values
    return recording.replay().numpy().copy(), function(*tensors).numpy()


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 5), (2, 3, 40)])
def test_functions_of_one_operand_are_recorded(name, shape):
    for values in (floats(*shape), np.resize(SPECIAL, shape).astype(np.float32)):
        if values.size == 0:
            assert ONE[name](Tensor(values)).shape == shape
            continue
        found, expected = replayed(ONE[name], Tensor(values.copy()))
        assert found.dtype == np.float32
        if name in ("exp", "log", "tanh", "sin", "cos"):
            np.testing.assert_allclose(found, expected, rtol=5e-7, atol=0)
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize(
    "shapes",
    [((5,), (5,)), ((2, 3, 7), (7,)), ((300, 100), (100,)), ((1,), (4, 6)), ((3, 1, 5), (2, 1)), ((), (3, 2)),
     ((4, 1), (1, 9))],
)  # fmt: skip
def test_functions_of_two_operands_are_recorded(name, shapes):
    # Rounded, so that some are equal.
    a, b = (Tensor(np.asarray(np.round(floats(*shape, seed=i), 1))) for i, shape in enumerate(shapes))
    found, expected = replayed(TWO[name], a, b)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    a, b = (Tensor(x) for x in np.meshgrid(SPECIAL, SPECIAL))
    np.testing.assert_array_equal(*replayed(TWO[name], Tensor(a.storage.copy()), Tensor(b.storage.copy())))


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("scalar", [2, -0.5, 0, float("inf"), float("nan"), 1e300, np.float64(0.5), np.int32(3)])
def test_a_scalar_may_be_either_operand(name, scalar):
    x = Tensor(floats(3, 33))
    np.testing.assert_array_equal(*replayed(lambda x: TWO[name](x, scalar), x))
    np.testing.assert_array_equal(*replayed(lambda x: TWO[name](scalar, x), x))


def test_elementwise_functions_take_any_strides():
    x, y = floats(6, 8, 10), floats(10, 8, 6, seed=1)
    views = Tensor(x[::2, ::-1, 1::3]), Tensor(y.transpose(2, 1, 0)[::2, :, 1::3])
    for name in TWO:
        np.testing.assert_array_equal(*replayed(TWO[name], *views))


@pytest.mark.parametrize("bounds", [(-0.5, 0.5), (None, 1), (0, None), (1.0, -1.0), (float("nan"), 1.0)])
def test_clip_is_recorded(bounds):
    np.testing.assert_array_equal(*replayed(lambda x: ops.clip(x, *bounds), Tensor(floats(3, 33))))
    np.testing.assert_array_equal(*replayed(lambda x: ops.clip(x, *bounds), Tensor(SPECIAL.copy())))


def test_clip_between_tensors_is_recorded():
    x, low, high = Tensor(floats(4, 5)), Tensor(floats(5, seed=1) - 1), Tensor(floats(2, 1, 1, seed=2) + 1)
    np.testing.assert_array_equal(*replayed(lambda x, low, high: ops.clip(x, min=low, max=high), x, low, high))


@pytest.mark.parametrize("shapes", [((4, 5), (4, 5)), ((5,), (4, 1)), ((), (2, 4, 5)), ((2, 1, 5), ()), ((1,), (1,))])
def test_where_is_recorded(shapes):
    x, a, b = (Tensor(np.asarray(floats(*shape, seed=i))) for i, shape in enumerate(((4, 5), *shapes)))
    for function in (
        lambda x, a, b: ops.where(x > 0.0, a, b),
        lambda x, a, b: ops.where(x[::-1] < 0.5, a, 0),
        lambda x, a, b: ops.where(ops.less(x, 0.1), float("-inf"), b),
        lambda x, a, b: ops.where(x.T > 0.0, 1.0, 0) * 2.0,
    ):
        found, expected = replayed(function, x, a, b)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype == np.float32


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.where(x > 0.0, 1, 0),  # int64
        lambda x: ops.where(x, x, 0.0),  # a condition of numbers
        lambda x: ops.clip(x),
        lambda x: x < Tensor(np.arange(4)),
    ],
)
def test_what_has_no_native_kernel_is_told_whatever_the_function(function):
    x = Tensor(floats(3, 4))
    with pytest.raises(CaptureError, match="cannot be recorded"):
        Recording(lambda: function(x))
    assert function(x).shape == (3, 4)


def test_parts_of_a_layer_that_users_write_are_recorded():
    """Gemma's: an embedding that is scaled, gains that begin at 1, scores and logits with a soft cap, GeGLU."""
    x, gain, up = Tensor(floats(1, 64)), Tensor(floats(64, seed=1)), Tensor(floats(1, 64, seed=2))

    def part(x, gain, up):
        scaled = x * 8.0 * (1.0 + gain)
        capped = ops.tanh(scaled / 30.0) * 30.0
        return ops.gelu(capped, approximate="tanh") * up + x

    np.testing.assert_allclose(*replayed(part, x, gain, up), rtol=1e-5)


def test_what_a_reference_computes_by_other_means_is_not_frozen_into_a_recording():
    """A recorded operation may read what NumPy computed once, which would be the same in every replay."""
    x = Tensor(floats(1, 4))

    @dispatch.operation
    def half_recorded(x):
        return Tensor(np.cumsum(x.storage, -1)) * 2.0

    try:
        with pytest.raises(CaptureError, match="multiply cannot be recorded: it reads what was computed without"):
            Recording(lambda: half_recorded(x))
    finally:
        del dispatch.OPERATIONS["half_recorded"]


def test_a_step_that_cannot_be_recorded_is_told_once(caplog, monkeypatch):
    monkeypatch.setattr(step, "_warned", set())
    cache = KVCache(1, 1, 16, 4)
    for _ in range(2):
        recorded = step.CapturedStep(lambda ids: ops.expm1(ids.astype("float32")), [cache])
        for token in (1, 2):
            assert recorded([token]).tolist() == [[pytest.approx(np.expm1(token))]]
        assert not recorded.recordable
    told = [record for record in caplog.records if record.name == "tallow" and record.levelname == "WARNING"]
    assert len(told) == 1
    assert "astype cannot be recorded" in told[0].getMessage()
