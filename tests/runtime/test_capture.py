import threading

import numpy as np
import pytest

import tallow as tl
from tallow import ops
from tallow.errors import BoundsError, CaptureError
from tallow.ops import KVCache
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tallow.weights.weight import make_weight


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
        (lambda: x + 1.0, "add cannot be recorded: it has no native kernel"),
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
