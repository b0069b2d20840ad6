"""Recordings of operations on a few rows, some of which do others on their way or that are one kernel altogether,
against the same operations launched one by one."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallow as tl
from tallow import ops
from tallow.ops import KVCache
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tallow.weights.weight import make_weight
from tests.backends.cuda.card import error, in_any_order, needs_card, numbers
from tests.backends.cuda.test_blocks import CASES, stored

pytestmark = needs_card
NEAR = {"float16": 2e-3, "bfloat16": 1.5e-2}
some = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, params=["fused", "one kernel"])
def way(request, monkeypatch):
    from tallow.backends.cuda import program
    from tallow.device import compute_capability

    if request.param == "one kernel" and compute_capability(0) < (9, 0):
        pytest.skip("programs need compute capability 9.0")
    monkeypatch.setattr(program, "on", request.param == "one kernel")


def as_asked(recording):
    """Whether a recording launches programs just if it was to."""
    from tallow.backends.cuda import program

    return (len(recording._tape.kept) > 0) == program.on


def on_card(array, dtype):
    return Tensor(array).to(dtype).to("cuda")


def check(run, dtype, times=3, tolerance=1.0):
    """A recording gives what the operations give one by one, again and again. Returns it."""
    expected = run()
    recording = Recording(run, expected.device)
    assert as_asked(recording)
    for _ in range(times):
        assert error(recording.result.float(), expected.float()) <= tolerance * NEAR[dtype]
        recording.result.storage.fill(np.nan)
        recording.replay()
    return recording


@pytest.mark.parametrize("dtype", NEAR)
@given(
    rows=st.integers(1, 8), outputs=st.integers(1, 1500),
    inputs=st.sampled_from([8, 64, 72, 1024, 1280, 3072, 4104, 6000]), normed=st.sampled_from([None, "rms", "layer"]),
    biased=st.booleans(), scaled=st.booleans(), added=st.booleans(),
    activation=st.sampled_from([None, "gelu", "silu", "relu", "gelu_tanh"]), seed=st.integers(0, 99),
)  # fmt: skip
@some
def test_linear(dtype, rows, outputs, inputs, normed, biased, scaled, added, activation, seed):
    x, w = on_card(numbers(rows, inputs, seed=seed), dtype), numbers(outputs, inputs, seed=seed + 1) / inputs**0.5
    weight = on_card(w, dtype)
    gain, shift, bias, scale, residual = (
        on_card(numbers(*shape, seed=seed + i), dtype)
        for i, shape in enumerate([(inputs,), (inputs,), (outputs,), (outputs,), (rows, outputs)])
    )

    def run():
        y = x if normed is None else ops.rms_norm(x, gain) if normed == "rms" else ops.layer_norm(x, gain, shift)
        return ops.linear(y, weight, bias if biased else None, activation=activation,
                          scale=scale if scaled else None, residual=residual if added else None)  # fmt: skip

    check(run, dtype)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_linear_swiglu(dtype, rows):
    for outputs, inputs in ((3072, 1024), (200, 4096), (1, 8), (70, 128)):
        x, w = on_card(numbers(rows, inputs), dtype), on_card(numbers(2 * outputs, inputs, seed=1) / inputs**0.5, dtype)
        gain = on_card(numbers(inputs, seed=2), dtype)
        check(lambda x=x, w=w, gain=gain: ops.linear_swiglu(ops.rms_norm(x, gain), w), dtype)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(("storage", "group"), CASES)
def test_quantised_linear(dtype, rows, storage, group):
    for outputs, inputs in ((512, 1024), (2112, 256), (48, 4096), (7, 512)):
        matrix, _ = stored(storage, outputs, inputs, group)
        weight = make_weight(matrix, storage, tl.Device("cuda"), group, tl.asarray([0.0], dtype=dtype).dtype)
        x, residual = on_card(numbers(rows, inputs), dtype), on_card(numbers(rows, outputs, seed=5), dtype)
        check(lambda x=x, w=weight, r=residual: ops.linear(x, w, residual=r), dtype)
        if outputs % 32 == 0 and dtype == "bfloat16":  # products of such weights may be too large for float16
            check(lambda x=x, w=weight: ops.linear_swiglu(x, w), dtype, tolerance=2)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "d"), [(4, 2, 64), (16, 8, 128), (3, 1, 32), (2, 2, 16), (32, 4, 128), (4, 4, 256)]
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("held", [0, 5, 300, 1500])
def test_attention_to_a_cache_that_grows(dtype, heads, kv_heads, d, batch, held):
    gains = [on_card(numbers(d, seed=seed), dtype) for seed in (7, 8)]
    inputs = [
        on_card(numbers(batch, 1, count, d, seed=i), dtype) for i, count in enumerate([heads, kv_heads, kv_heads])
    ]
    weight = on_card(numbers(64, heads * d, seed=9) / (heads * d) ** 0.5, dtype)
    angles = numbers(batch, 1, d // 2, seed=4)
    cos, sin = (Tensor(f(angles)).to("cuda") for f in (np.cos, np.sin))
    before = [on_card(numbers(batch, held, kv_heads, d, seed=seed), dtype) for seed in (11, 12)] if held else None
    sides = []
    for recorded in (False, True):
        cache = in_any_order(KVCache(batch, kv_heads, d, held + 8, dtype, "cuda"))
        if before:
            cache.append(*before, None if batch == 1 else [held, held // 2, 1])

        def run(cache=cache):
            q, k, v = inputs
            q = ops.rope_append(q, k, v, cache, cos, sin, q_norm=gains[0], k_norm=gains[1], interleaved=d == 64)
            y = ops.attention(q, cache, causal=True)
            return ops.linear(y.reshape(batch, 1, -1), weight)

        results = []
        if recorded:
            recording = Recording(run, tl.Device("cuda"))
            assert as_asked(recording)
            results.append(recording.result.float().numpy())
        for _ in range(4 - len(results)):
            results.append((recording.replay() if recorded else run()).float().numpy())
        assert cache.held.tolist() == cache.lengths.tolist()
        sides.append((np.stack(results), *cache.view()[:2], cache.lengths.tolist()))
    assert sides[0][3] == sides[1][3]
    assert error(Tensor(sides[1][0]), Tensor(sides[0][0])) <= 2 * NEAR[dtype]
    for mine, other in zip(sides[1][1:3], sides[0][1:3], strict=True):
        for row, length in enumerate(sides[0][3]):
            assert error(mine[row, :length].float(), other[row, :length].float()) <= 1e-3


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("m", [1, 90, 1500])
def test_attention_to_what_is_there(dtype, queries, m):
    cache = KVCache(1, 4, 64, m, dtype, "cuda")
    cache.append(*(on_card(numbers(1, m, 4, 64, seed=seed), dtype) for seed in (1, 2)))
    q, weight = on_card(numbers(1, queries, 4, 64), dtype), on_card(numbers(256, 256, seed=3) / 16, dtype)
    check(lambda: ops.linear(ops.attention(q, cache).reshape(queries, 1, 256), weight), dtype)


@pytest.mark.parametrize("dtype", NEAR)
def test_what_is_no_phase_comes_in_its_turn(dtype):
    x, gain, w = (on_card(numbers(*shape, seed=i), dtype) for i, shape in enumerate([(2, 256), (256,), (256, 256)]))

    def run():
        y = ops.rms_norm(x, gain)
        y = ops.linear(y, w, residual=y) + 1.0  # the norm is read twice, and the sum is no phase
        y = ops.rms_norm(ops.rms_norm(y, gain), gain)
        return ops.linear(y.permute(1, 0).reshape(2, 256), w) + y

    check(run, dtype)
