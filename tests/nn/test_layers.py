import numpy as np
import pytest

from tallow import nn, ops
from tallow.errors import ShapeError, WeightsError
from tallow.weights.safetensors import save_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.ops.both import relative_error, tensor


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def saved(tmp_path):
    """A function that writes arrays to a file and opens it."""

    def write(**arrays):
        save_safetensors({name.replace("__", "."): tensor(a) for name, a in arrays.items()}, tmp_path / "w.safetensors")
        return VarBuilder.from_safetensors(tmp_path / "w.safetensors")

    return write


def test_linear_takes_weight_and_bias_by_name(saved):
    weight, bias, x = normal(7, 5), normal(7, seed=1), normal(2, 3, 5, seed=2)
    layer = nn.Linear(5, 7, saved(a__weight=weight, a__bias=bias).pp("a"))
    assert relative_error(layer(tensor(x)), x.astype(np.float64) @ weight.T + bias) < 1e-6
    residual = normal(2, 3, 7, seed=3)
    fused = layer(tensor(x), activation="relu", residual=tensor(residual))
    assert relative_error(fused, np.maximum(x.astype(np.float64) @ weight.T + bias, 0) + residual) < 1e-6
    plain = nn.Linear(5, 7, saved(weight=weight), bias=False)
    assert plain.bias is None
    assert relative_error(plain(tensor(x)), x.astype(np.float64) @ weight.T) < 1e-6


def test_a_layer_that_finds_no_weights_or_others_says_which(saved):
    with pytest.raises(WeightsError, match=r"a\.bias"):
        nn.Linear(5, 7, saved(a__weight=normal(7, 5)).pp("a"))
    with pytest.raises(WeightsError, match=r"weight.*\(7, 6\).*\(7, 5\)"):
        nn.Linear(6, 7, saved(weight=normal(7, 5)), bias=False)
    with pytest.raises(WeightsError, match=r"bias"):
        nn.LayerNorm(4, saved(weight=normal(4), bias=normal(5)))


def test_embedding_looks_up_and_projects_back(saved):
    table = normal(11, 6)
    layer = nn.Embedding(11, 6, saved(weight=table))
    ids = np.array([[1, 10, 1], [0, 3, 2]])
    assert np.array_equal(layer(tensor(ids, np.int64)).numpy(), table[ids])
    x = normal(2, 6, seed=1)
    assert relative_error(layer.as_linear(tensor(x)), x.astype(np.float64) @ table.T) < 1e-6


def test_convolutions_pass_their_settings_on(saved):
    x = tensor(normal(1, 4, 12))
    weight, bias = normal(6, 2, 3), normal(6, seed=1)
    layer = nn.Conv1d(4, 6, 3, saved(weight=weight, bias=bias), stride=2, padding=1, groups=2)
    expected = ops.conv1d(x, tensor(weight), tensor(bias), stride=2, padding=1, groups=2, activation="gelu")
    assert np.array_equal(layer(x, activation="gelu").numpy(), expected.numpy())
    image = tensor(normal(2, 4, 9, 8))
    weight = normal(6, 2, 3, 2)
    layer = nn.Conv2d(4, 6, (3, 2), saved(weight=weight), stride=(2, 1), padding=1, groups=2, bias=False)
    expected = ops.conv2d(image, tensor(weight), stride=(2, 1), padding=1, groups=2)
    assert np.array_equal(layer(image).numpy(), expected.numpy())
    assert layer.bias is None


def test_norms_pass_their_eps_on(saved):
    x, weight, bias = tensor(normal(3, 5) / 100), normal(5, seed=1), normal(5, seed=2)
    layer = nn.LayerNorm(5, saved(weight=weight, bias=bias), eps=0.5)
    assert np.array_equal(layer(x).numpy(), ops.layer_norm(x, tensor(weight), tensor(bias), 0.5).numpy())
    layer = nn.RMSNorm(5, saved(weight=weight), eps=0.5)
    assert np.array_equal(layer(x).numpy(), ops.rms_norm(x, tensor(weight), 0.5).numpy())


def rotated(x, start, theta, interleaved):
    """x (b, n, heads, d) with its pairs turned as complex numbers."""
    d = x.shape[-1]
    angles = np.outer(np.arange(start, start + x.shape[1]), theta ** (-np.arange(0, d, 2) / d))
    turn = np.exp(1j * angles)[None, :, None, :]
    if interleaved:
        z = (x[..., ::2] + 1j * x[..., 1::2]) * turn
        return np.stack([z.real, z.imag], -1).reshape(x.shape)
    z = (x[..., : d // 2] + 1j * x[..., d // 2 :]) * turn
    return np.concatenate([z.real, z.imag], -1)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("start", "n"), [(0, 1), (0, 7), (5, 3), (9, 1), (3, 0)])
def test_rotary_embedding_from_a_start_position(interleaved, start, n):
    layer = nn.RotaryEmbedding(8, 10, theta=500.0, interleaved=interleaved)
    x = normal(2, n, 3, 8)
    out = layer(tensor(x), start)
    assert out.shape == x.shape
    assert np.allclose(out.numpy(), rotated(x.astype(np.float64), start, 500.0, interleaved), atol=1e-6)


def test_rotary_embedding_refuses_odd_sizes_and_positions_beyond_its_table():
    with pytest.raises(ShapeError, match="even"):
        nn.RotaryEmbedding(7, 10)
    with pytest.raises(ShapeError):
        nn.RotaryEmbedding(8, 10)(tensor(normal(1, 3, 1, 8)), 8)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda vb: nn.Linear(5, 7, vb, bias=False), "Linear(5, 7, bias=False, float32)"),
        (lambda vb: nn.Embedding(11, 6, vb), "Embedding(11, 6, float32)"),
        (lambda vb: nn.Conv1d(4, 6, 3, vb, stride=2, padding=1), "Conv1d((6, 4, 3), stride=2, padding=1)"),
        (lambda vb: nn.Conv2d(3, 8, 4, vb, stride=4), "Conv2d((8, 3, 4, 4), stride=4, padding=0)"),
        (lambda vb: nn.RMSNorm(4, vb, 1e-5), "RMSNorm(4, eps=1e-05)"),
        (lambda vb: nn.RotaryEmbedding(8, 32), "RotaryEmbedding(8, max_length=32)"),
    ],
)
def test_layers_print_their_sizes(layer, text):
    assert repr(layer(VarBuilder.random(seed=0))) == text


def test_batch_norm_is_by_the_statistics_of_training(saved):
    weight, bias, mean, variance = normal(5), normal(5, seed=1), normal(5, seed=2), normal(5, seed=3) ** 2
    layer = nn.BatchNorm(5, saved(weight=weight, bias=bias, running_mean=mean, running_var=variance))
    x = normal(2, 5, 3, 4, seed=4)
    spread = np.sqrt(variance.astype(np.float64) + 1e-5)
    scale, shift = (weight / spread)[:, None, None], (bias - mean * weight / spread)[:, None, None]
    assert relative_error(layer(tensor(x)), x * scale + shift) < 1e-6
    last = layer(tensor(x.transpose(0, 2, 3, 1)), axis=-1).numpy()
    assert np.array_equal(last.transpose(0, 3, 1, 2), layer(tensor(x)).numpy())
