"""Every operation gives on the card what it gives on the CPU."""

import numpy as np
import pytest

import tallow as tl
from tallow import ops
from tallow.ops.dispatch import OPERATIONS
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import needs_gpu, numbers

pytestmark = needs_gpu

UNARY = """
    abs ceil floor round trunc sign sqrt square negative positive reciprocal exp expm1 log log1p log2 log10 sin
    cos tan sinh cosh tanh asin acos atan asinh acosh atanh signbit isnan isinf isfinite logical_not
"""
BINARY = """
    add subtract multiply divide floor_divide remainder pow maximum minimum atan2 hypot copysign logaddexp
    equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor nextafter
"""
NEURAL = {
    "erf": lambda x: ops.erf(x[0]),
    "gelu": lambda x: ops.gelu(x[0]),
    "gelu_tanh": lambda x: ops.gelu(x[0], "tanh"),
    "silu": lambda x: ops.silu(x[0]),
    "sigmoid": lambda x: ops.sigmoid(x[0]),
    "relu": lambda x: ops.relu(x[0]),
    "glu": lambda x: ops.glu(x[0], x[1]),
    "softmax": lambda x: ops.softmax(x[0], axis=0),
    "log_softmax": lambda x: ops.log_softmax(x[0]),
    "l2_normalize": lambda x: ops.l2_normalize(x[0]),
    "conv1d": lambda x: ops.conv1d(x[2][:, :, 0], x[2][:4, :, 1, :3], x[0][0, :4], padding=1, stride=2),
    "conv2d": lambda x: ops.conv2d(x[2], x[2][:4, :, :2, :3], padding=(1, 2), activation="gelu"),
    "matmul": lambda x: x[2] @ x[2].mT,
    "matvec": lambda x: x[2] @ x[0][0, :8],
    "tensordot": lambda x: tl.tensordot(x[0], x[1], axes=([0], [0])),
    "vecdot": lambda x: tl.vecdot(x[0], x[1]),
    "outer": lambda x: ops.outer(x[0][0], x[1][0]),
    "cross": lambda x: ops.cross(x[0][:, :3], x[1][:, :3]),
    "attention_weights": lambda x: ops.attention_weights(x[2], x[2], heads=[1, 0], causal=True),
}
SHAPES = {
    "getitem": lambda x: x[0][1:, ::2],
    "getitem_array": lambda x: x[0][:, [3, 1]],
    "getitem_mask": lambda x: x[0][x[0] > 0],
    "getitem_tensor": lambda x: x[0][tl.asarray([2, 0], device=x[0].device)],
    "take": lambda x: x[0].take(tl.asarray([2, 0], device=x[0].device), axis=1),
    "take_along_axis": lambda x: tl.take_along_axis(x[0], tl.argsort(x[0]), axis=-1),
    "reshape": lambda x: x[2].permute(0, 2, 1, 3).reshape(-1),
    "concat": lambda x: tl.concat([x[0], x[1]], axis=1),
    "stack": lambda x: tl.stack([x[0], x[1]]),
    "roll": lambda x: tl.roll(x[0], 3, axis=1),
    "flip": lambda x: x[0].flip(1),
    "tile": lambda x: tl.tile(x[0], (2, 1)),
    "repeat": lambda x: x[0].repeat(2, axis=0),
    "repeat_each": lambda x: x[0].repeat(tl.asarray([0, 1, 2, 1, 0], device=x[0].device), axis=0),
    "broadcast_to": lambda x: x[0].broadcast_to(2, 5, 12),
    "where": lambda x: tl.where(x[0] > 0, x[0], 0.0),
    "tril": lambda x: tl.tril(x[0], k=1),
    "triu": lambda x: tl.triu(x[0]),
    "meshgrid": lambda x: tl.meshgrid(x[0][0], x[1][1])[0],
    "split": lambda x: x[0].split([4, 8], axis=1)[1],
    "causal_mask": lambda x: ops.causal_mask(6, device=x[0].device),
    "arange": lambda x: tl.arange(2, 20, 3, device=x[0].device),
    "arange_float": lambda x: tl.arange(0.5, 2.0, 0.25, device=x[0].device),
    "linspace": lambda x: tl.linspace(0.0, 1.0, 7, device=x[0].device),
    "eye": lambda x: tl.eye(4, 5, k=1, device=x[0].device),
    "full": lambda x: tl.full((2, 3), 1.5, device=x[0].device),
    "like": lambda x: tl.ones_like(x[0]) + tl.zeros_like(x[0]) + tl.full_like(x[0], 2.0),
    "scalar_first": lambda x: 1.0 - x[0],
    "integers": lambda x: (x[0] * 10).astype("int32") // 3 % 5,
    "bits": lambda x: ((x[0] * 10).astype("int32") & 6) << 1,
    "mixed": lambda x: (x[0] * 10).astype("int32") + x[0],
}
REDUCING = "sum prod max min mean var std any all argmax argmin count_nonzero"
REDUCTIONS = {
    **{name: lambda x, name=name: getattr(tl, name)(x[0], axis=1) for name in REDUCING.split()},
    "cumulative_sum": lambda x: tl.cumulative_sum(x[0], axis=1, include_initial=True),
    "cumulative_prod": lambda x: tl.cumulative_prod(x[0], axis=0),
    "sum_all": lambda x: x[0].sum(),
    "sum_integers": lambda x: (x[0] * 10).astype("int8").sum(0),
    "mean_integers": lambda x: (x[0] * 10).astype("int8").mean(),
    "var_correction": lambda x: x[0].var(0, correction=1.0),
    "diff": lambda x: tl.diff(x[0], axis=0),
    "sort": lambda x: tl.sort(x[0], axis=0, descending=True),
    "argsort": lambda x: tl.argsort(x[0], axis=1, descending=True),
    "unique": lambda x: tl.unique_counts((x[0] * 2).astype("int32")).counts,
    "unique_inverse": lambda x: tl.unique_inverse((x[0] * 2).astype("int32")).inverse_indices,
    "searchsorted": lambda x: tl.searchsorted(tl.sort(x[0][0]), x[1][0]),
    "nonzero": lambda x: tl.nonzero(x[0] > 0)[1],
    "clip": lambda x: tl.clip(x[0], -0.5, 0.5),
    "clip_integers": lambda x: tl.clip((x[0] * 10).astype("int8"), -3.5, 1000),
    "fft": lambda x: tl.abs(tl.fft.rfft(x[0])),
    "svd": lambda x: tl.linalg.svd(x[0]).S,
    "solve": lambda x: tl.linalg.solve(x[2][0, 0, :6, :6], x[2][0, 1, :6, :2]),
    "norm": lambda x: tl.linalg.vector_norm(x[0], axis=1),
    "complex": lambda x: tl.real(tl.exp((x[0] + 0j) * 1j)),
}  # fmt: skip


def operands(device, dtype):
    arrays = [numbers(5, 12), numbers(5, 12, seed=1), numbers(4, 6, 8, 8, seed=2)]
    return [Tensor(array).to(dtype).to(device) for array in arrays]


def same(run, dtype="float32", rtol=2e-5):
    expected, found = run(operands("cpu", dtype)), run(operands("cuda", dtype))
    assert found.device is tl.Device("cuda")
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    a, b = (np.asarray(x.to("cpu").numpy()).astype(np.complex128) for x in (found, expected))
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * 10)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", UNARY.split())
def test_functions_of_one(name, dtype):
    same(lambda x: getattr(tl, name)(x[0]), dtype, 2e-5 if dtype == "float32" else 1e-2)


@pytest.mark.parametrize("name", BINARY.split())
def test_functions_of_two(name):
    same(lambda x: getattr(tl, name)(x[0], x[1][:1]))
    if name != "pow":
        same(lambda x: getattr(tl, name)(x[0], 0.5))


@pytest.mark.parametrize("name", [*NEURAL, *SHAPES, *REDUCTIONS])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_others(name, dtype):
    run = {**NEURAL, **SHAPES, **REDUCTIONS}[name]
    if dtype == "float16" and name in ("fft", "svd", "solve", "complex", "cumulative_prod", "prod", "unique_inverse"):
        pytest.skip("float16 rounds too coarsely to compare, or is not taken")
    same(run, dtype, 2e-5 if dtype == "float32" else 4e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
def test_spectrograms(dtype, tolerance):
    samples, filters = numbers(2, 4000), np.abs(numbers(20, 201, seed=1))
    sides = [
        ops.mel_spectrogram(Tensor(samples).to(device, dtype), Tensor(filters).to(device, dtype), 400, 160, log="log10",
                            dynamic_range=8.0)
        for device in ("cpu", "cuda")
    ]  # fmt: skip
    np.testing.assert_allclose(sides[1].numpy(), sides[0].numpy(), atol=tolerance)


def test_setting_elements():
    for device in ("cpu", "cuda"):
        x = tl.zeros((3, 4), device=device)
        x[1] = 2.0
        x[:, 1] = tl.asarray([1.0, 2.0, 3.0], device=device)
        x[0, 2:] = [5.0, 6.0]
        assert x.tolist() == [[0, 1, 5, 6], [2, 2, 2, 2], [0, 3, 0, 0]]


def test_results_stay_on_the_card_and_devices_do_not_mix():
    x = tl.ones((2, 3), device="cuda")
    assert (x + 1).device is tl.Device("cuda")
    assert x.to("cpu").device is tl.Device("cpu")
    assert repr(x).endswith("device='cuda:0')")
    with pytest.raises(tl.DeviceError, match="different devices"):
        x + tl.ones((2, 3))
    with pytest.raises(tl.ShapeError):
        x @ x
    with pytest.raises(tl.DeviceError, match="CUDA device"):
        x.to("cuda:64")


def test_other_libraries_share_the_memory():
    import cupy

    x = tl.arange(6, device="cuda", dtype="float32")
    shown = cupy.from_dlpack(x)
    shown[0] = 9
    assert x[0].item() == 9
    for dtype in ("float32", "bfloat16", "int64"):
        array = cupy.arange(4).astype(tl.asarray([0], dtype=dtype).dtype.numpy)
        y = tl.from_dlpack(array)
        assert y.storage.data.ptr == array.data.ptr
        assert y.dtype.name == dtype
    torch = pytest.importorskip("torch")
    z = torch.ones(3, device="cuda", dtype=torch.bfloat16)
    shared = tl.from_dlpack(z)
    z[1] = 2
    torch.cuda.synchronize()
    assert shared.float().tolist() == [1.0, 2.0, 1.0]
    assert torch.from_dlpack(tl.ones(2, device="cuda")).tolist() == [1.0, 1.0]


def test_memory_is_told_and_its_lack_is_an_error_that_leaves_all_usable():
    before = tl.memory_info()
    x = tl.zeros(1 << 20, device="cuda")
    after = tl.memory_info("cuda:0")
    assert after.used - before.used >= x.nbytes
    assert 0 < after.free <= after.total
    with pytest.raises(tl.OutOfMemoryError):
        tl.zeros(1 << 50, device="cuda")
    tl.synchronize()
    assert (x + 1).sum().item() == 1 << 20


def test_every_kernel_belongs_to_an_operation():
    tl.ones(1, device="cuda") + 1
    assert {"linear", "attention", "rms_norm", "rope", "embedding"} <= {
        name for name, op in OPERATIONS.items() if "cuda" in op.kernels
    }
