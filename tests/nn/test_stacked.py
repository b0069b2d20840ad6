import numpy as np
import pytest

from tallow import nn
from tallow.errors import WeightsError
from tallow.tensor import Tensor
from tallow.weights.safetensors import save_safetensors
from tallow.weights.var_builder import VarBuilder

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 8)).astype(np.float32)


@pytest.fixture
def saved(tmp_path):
    def write(arrays):
        save_safetensors(arrays, tmp_path / "w.safetensors")
        return VarBuilder.from_safetensors(tmp_path / "w.safetensors")

    return write


def arrays(dtypes=("float32", "float32", "float32")):
    found = {}
    for name, rows, dtype in zip("qkv", (6, 4, 4), dtypes, strict=True):
        found[f"{name}.weight"] = RNG.standard_normal((rows, 8)).astype(dtype)
        found[f"{name}.bias"] = RNG.standard_normal(rows).astype(np.float32)
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("dtypes", "products"),
    [(("float32",) * 3, 1), (("float16", "float16", "float32"), 2), (("float16", "float32", "float16"), 3)],
)
def test_projections_of_one_storage_are_computed_together(saved, dtypes, products, bias):
    values = arrays(dtypes)
    layer = nn.StackedLinear(8, {"q": 6, "k": 4, "v": 4}, saved(values), bias=bias)
    assert len(layer.weights) == products
    for y, name in zip(layer(Tensor(X)), "qkv", strict=True):
        expected = X @ values[f"{name}.weight"].astype(np.float32).T + (values[f"{name}.bias"] if bias else 0)
        np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)
    assert f"8, 6 + 4 + 4, bias={bias}, float" in repr(layer)


def test_projections_that_do_not_fit(saved):
    vb = saved(arrays())
    with pytest.raises(WeightsError, match=r"'k\.weight'.*\(5, 8\).*\(4, 8\)"):
        nn.StackedLinear(8, {"q": 6, "k": 5, "v": 4}, vb)
    with pytest.raises(WeightsError, match=r"no tensor 'z\.weight' of shape \(4, 8\)"):
        nn.StackedLinear(8, {"q": 6, "z": 4}, vb)


@pytest.mark.parametrize("bias", [False, True])
def test_gated_mlp(saved, bias):
    shapes = {"gate_proj": (12, 8), "up_proj": (12, 8), "down_proj": (8, 12)}
    w = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    b = {name: RNG.standard_normal(shape[0]).astype(np.float32) * bias for name, shape in shapes.items()}
    vb = saved({f"{n}.weight": a for n, a in w.items()} | {f"{n}.bias": a for n, a in b.items()})
    gate = X @ w["gate_proj"].T + b["gate_proj"]
    inner = gate / (1 + np.exp(-gate)) * (X @ w["up_proj"].T + b["up_proj"])
    expected = inner @ w["down_proj"].T + b["down_proj"]
    layer = nn.GatedMLP(8, 12, vb, bias=bias)
    np.testing.assert_allclose(layer(Tensor(X)).numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer(Tensor(X), Tensor(X)).numpy(), expected + X, rtol=1e-4, atol=1e-4)
