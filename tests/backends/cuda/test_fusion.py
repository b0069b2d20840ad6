"""What waits in a recording for another kernel, and what does not."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallow as tl
from tallow import ops
from tallow.matrix.weight import make_weight
from tallow.ops import KVCache
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import TOLERANCE, error, needs_gpu, numbers
from tests.backends.cuda.test_blocks import CASES, stored

pytestmark = needs_gpu
WIDTH = 256
NEAR = {"float16": 2e-3, "bfloat16": 1.5e-2}
some = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def launched(monkeypatch):
    """The kernels that are launched."""
    from tallow.backends.cuda import kernels

    found, launch = [], kernels.Kernel.__call__

    def told(self, *arguments):
        launch(self, *arguments)
        found.append(self)

    monkeypatch.setattr(kernels.Kernel, "__call__", told)
    return found


def on_card(*shape, seed=0, dtype="bfloat16"):
    return Tensor(numbers(*shape, seed=seed) / shape[-1] ** 0.5).to(dtype).to("cuda")


def several(*shapes, dtype="bfloat16"):
    return [on_card(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]


def kernels_of(run, launched, dtype="bfloat16"):
    """How many kernels a recording launches, whose results are those of the operations one by one."""
    expected = [x.float().numpy() for x in run()]
    launched.clear()
    recording = Recording(run, tl.Device("cuda"))
    count = len(launched)
    for _ in range(2):
        for result, wanted in zip(recording.result, expected, strict=True):
            assert error(result.float(), Tensor(wanted)) <= 2 * TOLERANCE[dtype]
            result.storage.fill(np.nan)
        recording.replay()
    return count


def put(array, dtype):
    return Tensor(array).to(dtype).to("cuda")


def check(run, dtype, times=3, tolerance=1.0):
    """A recording gives what the operations give one by one, again and again."""
    expected = run()
    recording = Recording(run, expected.device)
    for _ in range(times):
        assert error(recording.result.float(), expected.float()) <= tolerance * NEAR[dtype]
        recording.result.storage.fill(np.nan)
        recording.replay()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("storage", ["dense", "q4_0"])
def test_a_norm_is_part_of_what_reads_it(launched, dtype, rows, storage):
    x, gain, shift = (
        on_card(*shape, seed=i, dtype=dtype) for i, shape in enumerate([(rows, WIDTH), (WIDTH,), (WIDTH,)])
    )
    if storage == "dense":
        weight = on_card(64, WIDTH, seed=3, dtype=dtype)
    else:
        matrix, _ = stored(storage, 64, WIDTH)
        weight = make_weight(matrix, storage, tl.Device("cuda"), None, x.dtype)
    assert kernels_of(lambda: [ops.linear(ops.rms_norm(x, gain), weight)], launched, dtype) == 1
    assert kernels_of(lambda: [ops.linear(ops.layer_norm(x, gain, shift), weight)], launched, dtype) == 1
    assert kernels_of(lambda: [ops.linear_glu(ops.rms_norm(x, gain), weight)], launched, dtype) == 1


def test_a_large_weight_is_read_further_ahead(launched, monkeypatch):
    from tallow.backends.cuda import linear

    monkeypatch.setattr(linear, "_LARGE", 0)
    x, gain, weight = (on_card(*shape, seed=i) for i, shape in enumerate([(1, 2048), (2048,), (100, 2048)]))
    assert kernels_of(lambda: [ops.linear(ops.rms_norm(x, gain), weight)], launched) == 1


def test_what_reads_a_norm_later_finds_it(launched):
    x, gain, *weights = (
        on_card(*shape, seed=i) for i, shape in enumerate([(2, WIDTH), (WIDTH,), (64, WIDTH), (64, WIDTH)])
    )

    def run():
        y = ops.rms_norm(x, gain)
        return [ops.linear(y, weights[0]), ops.linear(y, weights[1]), y]

    assert kernels_of(run, launched) == 2


def test_a_norm_that_is_added_to_what_reads_it_comes_first(launched):
    x, gain, weight = several((2, WIDTH), (WIDTH,), (WIDTH, WIDTH))

    def run():
        y = ops.rms_norm(x, gain)
        return [ops.linear(y, weight, residual=y)]

    assert kernels_of(run, launched) == 2


def test_norms_that_nothing_takes_along_are_launched(launched):
    x, gain, weight = several((2, WIDTH), (WIDTH,), (64, WIDTH))
    wide, narrow = on_card(2, 8192), on_card(8192, seed=1)  # more than blocks keep
    assert kernels_of(lambda: [ops.rms_norm(x, gain)], launched) == 1
    assert kernels_of(lambda: [ops.rms_norm(ops.rms_norm(x, gain), gain)], launched) == 2
    assert kernels_of(lambda: [ops.rms_norm(wide, narrow), ops.rms_norm(x, gain)], launched) == 2
    assert kernels_of(lambda: [ops.rms_norm(x, gain), ops.linear(x, weight)], launched) == 2


def test_a_position_is_appended_by_the_attention_to_it(launched):
    heads, kv_heads, d = 4, 2, 64
    q, k, v = several(*((2, 1, count, d) for count in (heads, kv_heads, kv_heads)))
    angles = numbers(1, 1, d // 2, seed=9)
    cos, sin = (Tensor(turn(angles)).to("cuda") for turn in (np.cos, np.sin))

    def kernels(attend):
        caches = [KVCache(2, kv_heads, d, 20, "bfloat16", "cuda") for _ in range(2)]
        expected = attend(caches[0]).float().numpy()
        launched.clear()
        recording = Recording(lambda: attend(caches[1]), tl.Device("cuda"))
        count = len(launched)
        assert error(recording.result.float(), Tensor(expected)) <= TOLERANCE["bfloat16"]
        for mine, other in zip(caches[1].view(), caches[0].view(), strict=True):
            assert error(mine.float(), other.float()) <= TOLERANCE["bfloat16"]
        return count

    def turned(cache):
        return ops.attention(ops.rope_append(q, k, v, cache, cos, sin), cache)

    def plain(cache):
        cache.append(k, v)
        return ops.attention(q, cache)

    def other_queries(cache):
        ops.rope_append(q, k, v, cache, cos, sin)
        return ops.attention(q, cache)

    def another_type(cache):
        cache.append(k, v)
        return ops.attention(wide, cache)

    wide = q.float()
    assert kernels(turned) == kernels(plain) == 1
    assert kernels(other_queries) == kernels(another_type) == 2


def test_two_positions_in_one_recording():
    heads, kv_heads, d = 4, 2, 64
    steps = [several(*((1, 1, count, d) for count in (heads, kv_heads, kv_heads))) for _ in range(2)]
    caches = [KVCache(1, kv_heads, d, 20, "bfloat16", "cuda") for _ in range(2)]

    def attend(cache):
        attended = []
        for q, k, v in steps:
            cache.append(k, v)
            attended.append(ops.attention(q, cache))
        return attended

    recording = Recording(lambda: attend(caches[1]), tl.Device("cuda"))
    for again in (False, True):
        for mine, other in zip(recording.replay() if again else recording.result, attend(caches[0]), strict=True):
            assert error(mine.float(), other.float()) <= TOLERANCE["bfloat16"]
    assert caches[1].held.tolist() == caches[0].held.tolist() == [4]


@pytest.mark.parametrize("dtype", NEAR)
@given(
    rows=st.integers(1, 8), outputs=st.integers(1, 1500),
    inputs=st.sampled_from([8, 64, 72, 1024, 1280, 3072, 4104, 6000]), normed=st.sampled_from([None, "rms", "layer"]),
    biased=st.booleans(), scaled=st.booleans(), added=st.booleans(),
    activation=st.sampled_from([None, "gelu", "silu", "relu", "gelu_tanh"]), seed=st.integers(0, 99),
)  # fmt: skip
@some
def test_linear_after_a_norm(dtype, rows, outputs, inputs, normed, biased, scaled, added, activation, seed):
    x, w = put(numbers(rows, inputs, seed=seed), dtype), numbers(outputs, inputs, seed=seed + 1) / inputs**0.5
    weight = put(w, dtype)
    gain, shift, bias, scale, residual = (
        put(numbers(*shape, seed=seed + i), dtype)
        for i, shape in enumerate([(inputs,), (inputs,), (outputs,), (outputs,), (rows, outputs)])
    )

    def run():
        y = x if normed is None else ops.rms_norm(x, gain) if normed == "rms" else ops.layer_norm(x, gain, shift)
        return ops.linear(y, weight, bias if biased else None, activation=activation,
                          scale=scale if scaled else None, residual=residual if added else None)  # fmt: skip

    check(run, dtype)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_linear_glu_after_a_norm(dtype, rows):
    for outputs, inputs in ((3072, 1024), (200, 4096), (1, 8), (70, 128)):
        x, w = put(numbers(rows, inputs), dtype), put(numbers(2 * outputs, inputs, seed=1) / inputs**0.5, dtype)
        gain = put(numbers(inputs, seed=2), dtype)
        check(lambda x=x, w=w, gain=gain: ops.linear_glu(ops.rms_norm(x, gain), w), dtype)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(("storage", "group"), CASES)
def test_quantised_linear(dtype, rows, storage, group):
    for outputs, inputs in ((512, 1024), (2112, 256), (48, 4096), (7, 512)):
        matrix, _ = stored(storage, outputs, inputs, group)
        weight = make_weight(matrix, storage, tl.Device("cuda"), group, tl.asarray([0.0], dtype=dtype).dtype)
        x, residual = put(numbers(rows, inputs), dtype), put(numbers(rows, outputs, seed=5), dtype)
        check(lambda x=x, w=weight, r=residual: ops.linear(x, w, residual=r), dtype)
        if outputs % 32 == 0 and dtype == "bfloat16":  # products of such weights may be too large for float16
            check(lambda x=x, w=weight: ops.linear_glu(x, w), dtype, tolerance=2)


@pytest.mark.parametrize("dtype", NEAR)
def test_what_nothing_takes_along_comes_in_its_turn(dtype):
    x, gain, w = (put(numbers(*shape, seed=i), dtype) for i, shape in enumerate([(2, 256), (256,), (256, 256)]))

    def run():
        y = ops.rms_norm(x, gain)
        y = ops.linear(y, w, residual=y) + 1.0  # the norm is read twice, and no kernel takes the sum along
        y = ops.rms_norm(ops.rms_norm(y, gain), gain)
        return ops.linear(y.permute(1, 0).reshape(2, 256), w) + y

    check(run, dtype)
