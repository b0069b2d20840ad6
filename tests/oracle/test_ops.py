"""The neural operations against PyTorch's, on the same numbers."""

import numpy as np
import pytest

from tallow import nn, ops
from tallow.weights.var_builder import VarBuilder
from tests.ops.both import both, tensor

torch = pytest.importorskip("torch", reason="needs the extra oracle")
F = torch.nn.functional
pytestmark = pytest.mark.oracle

TOLERANCE = 2e-6


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_close(ours, theirs, tolerance=TOLERANCE):
    theirs = theirs.detach().double().numpy()
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours.numpy() - theirs) <= tolerance * np.linalg.norm(theirs)


def t(array):
    return torch.from_numpy(array).double()


@both("linear")
@pytest.mark.parametrize("activation", [None, "gelu", "gelu_tanh", "silu", "relu"])
def test_linear(op, activation):
    x, weight, bias, residual = normal(2, 5, 384), normal(96, 384, seed=1), normal(96, seed=2), normal(2, 5, 96, seed=3)
    activate = {
        None: lambda y: y,
        "gelu": F.gelu,
        "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
        "silu": F.silu,
        "relu": F.relu,
    }[activation]
    ours = op(tensor(x), tensor(weight), tensor(bias), activation=activation, residual=tensor(residual))
    assert_close(ours, activate(F.linear(t(x), t(weight), t(bias))) + t(residual))


@both("conv1d")
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 1, 1, 1), (3, 4, 2, 4)])
def test_conv1d(op, stride, padding, dilation, groups):
    x, weight, bias = normal(2, 80, 57), normal(64, 80 // groups, 3, seed=1), normal(64, seed=2)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    assert_close(op(tensor(x), tensor(weight), tensor(bias), **options), F.conv1d(t(x), t(weight), t(bias), **options))


@both("conv2d")
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), (16, 0, 1, 1), ((2, 1), (0, 3), (1, 2), 1), (1, 3, 1, 12)],
)
def test_conv2d(op, stride, padding, dilation, groups):
    kernel = 16 if stride == 16 else 3
    x, weight, bias = normal(2, 12, 48, 32), normal(24, 12 // groups, kernel, kernel, seed=1), normal(24, seed=2)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    assert_close(op(tensor(x), tensor(weight), tensor(bias), **options), F.conv2d(t(x), t(weight), t(bias), **options))


@both("layer_norm")
def test_layer_norm(op):
    x, weight, bias = normal(3, 7, 384) * 4 + 2, normal(384, seed=1), normal(384, seed=2)
    assert_close(
        op(tensor(x), tensor(weight), tensor(bias), 1e-5), F.layer_norm(t(x), (384,), t(weight), t(bias), 1e-5)
    )


@both("rms_norm")
def test_rms_norm(op):
    x, weight = normal(3, 7, 384), normal(384, seed=1)
    assert_close(op(tensor(x), tensor(weight), 1e-6), F.rms_norm(t(x), (384,), t(weight), 1e-6))


@both("l2_normalize")
def test_l2_normalize(op):
    x = normal(5, 33)
    assert_close(op(tensor(x)), F.normalize(t(x), dim=-1))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax(name, axis):
    x = normal(9, 65, 4) * 10
    assert_close(getattr(ops, name)(tensor(x), axis), getattr(F, name)(t(x), dim=axis))


@pytest.mark.parametrize(("name", "theirs"), [("gelu", F.gelu), ("silu", F.silu), ("sigmoid", torch.sigmoid)])
def test_activations(name, theirs):
    x = np.linspace(-20, 20, 4001).astype(np.float32)
    for op in (getattr(ops, name), getattr(ops, name).__wrapped__):
        assert_close(op(tensor(x)), theirs(t(x)))


def test_erf():
    x = np.linspace(-6, 6, 4001).astype(np.float32)
    assert_close(ops.erf(tensor(x)), torch.erf(t(x)), 1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["layer_norm", "softmax", "gelu", "linear"])
def test_narrow_types_err_no_more_than_pytorch_does(name, dtype):
    """At most 1.2 times the error that PyTorch itself makes in that type, against float64."""
    x, weight, bias = normal(16, 256) * 2, normal(256, 256, seed=1) / 16, normal(256, seed=2)
    arguments = {
        "layer_norm": lambda a: (a[0], a[1][0], a[2]),
        "softmax": lambda a: (a[0], -1),
        "gelu": lambda a: (a[0],),
        "linear": lambda a: tuple(a),
    }[name]
    theirs = (lambda a, w, b: F.layer_norm(a, (256,), w, b)) if name == "layer_norm" else getattr(F, name)
    narrow = [torch.from_numpy(a).to(getattr(torch, dtype)) for a in (x, weight, bias)]
    exact = theirs(*arguments([a.double() for a in narrow])).numpy()
    error = np.linalg.norm(theirs(*arguments(narrow)).double().numpy() - exact)
    ours = getattr(ops, name)(*arguments([tensor(a.float().numpy()).astype(dtype) for a in narrow]))
    assert ours.dtype.name == dtype
    assert np.linalg.norm(ours.astype("float64").numpy() - exact) <= 1.2 * error


def test_attention_layer_of_nn_modules_equals_pytorchs():
    """A transformer's attention out of ``nn.Linear`` and ``ops.attention``, as docs/from-candle.md writes it."""
    dim, heads = 64, 4
    vb = VarBuilder.random(seed=5)
    qkv, proj = nn.Linear(dim, 3 * dim, vb.pp("qkv")), nn.Linear(dim, dim, vb.pp("proj"))
    x = normal(2, 9, dim)
    q, k, v = qkv(tensor(x)).reshape(2, 9, 3, heads, -1).unstack(axis=2)
    ours = proj(ops.attention(q, k, v).reshape(2, 9, dim))
    theirs = torch.nn.MultiheadAttention(dim, heads, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "in_proj_weight": t(qkv.weight.dequantize().numpy()),
            "in_proj_bias": t(qkv.bias.numpy()),
            "out_proj.weight": t(proj.weight.dequantize().numpy()),
            "out_proj.bias": t(proj.bias.numpy()),
        }
    )
    assert_close(ours, theirs(t(x), t(x), t(x), need_weights=False)[0])
