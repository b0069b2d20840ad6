import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tallow as tl
from tallow.convert import convert
from tallow.errors import DTypeError, ShapeError, WeightsError
from tallow.loading import load
from tallow.matrix import weight
from tallow.matrix.fp8 import E4M3, Fp8Matrix, quantize_fp8, stacked_fp8
from tallow.matrix.weight import make_weight
from tallow.models.checkpoint import open_checkpoint
from tallow.models.estimate import estimate_checkpoint, estimate_memory
from tallow.weights import var_builder
from tallow.weights.safetensors import open_safetensors, save_safetensors
from tests.engine.published import publish


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 7), st.integers(0, 40)),
                  elements=st.floats(-1e6, 1e6, width=32)))  # fmt: skip
def test_error_is_at_most_half_a_step(array):
    matrix = quantize_fp8(array)
    error = np.abs(matrix.dequantize() - array)
    # Four bits of mantissa; below 2^-6 of a scale steps are of 2^-9.
    tiny = np.finfo(np.float32).tiny * 500
    assert (error <= np.maximum(np.abs(array) * 0.0626, matrix.scales * 2**-10 * 1.001) + tiny).all()


def test_known_values():
    array = np.array([[448, 1, 1.0625, -17.9], [0, 0, 0, 0]], np.float32)
    matrix = quantize_fp8(array)
    assert matrix.scales.tolist() == [[1], [0]]
    assert matrix.dequantize().tolist() == [[448, 1, 1, -18], [0, 0, 0, 0]]  # 1.0625 lies half way, and 1 is even
    assert (matrix.shape, matrix.nbytes, matrix.storage) == ((2, 4), 8 + 8, "fp8")
    again = quantize_fp8(matrix.dequantize())
    np.testing.assert_array_equal(again.dequantize(), matrix.dequantize())
    huge = np.float32([[3e38, -3e38]])
    np.testing.assert_allclose(quantize_fp8(huge).dequantize(), huge, rtol=1e-6)
    assert quantize_fp8(np.float32([[1e-45, -1e-45]])).dequantize().tolist() == [[0, 0]]


def test_what_cannot_be_quantised():
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(WeightsError, match="NaN or infinity"):
            quantize_fp8(np.float32([[1, bad]]))
    with pytest.raises(ShapeError):
        quantize_fp8(np.zeros(3, np.float32))
    with pytest.raises(ShapeError):
        Fp8Matrix(np.zeros((200, 4), E4M3), np.zeros((3, 1), np.float32))
    with pytest.raises(ShapeError):
        Fp8Matrix(np.zeros((2, 400), E4M3), np.zeros((2, 2), np.float32))
    with pytest.raises(DTypeError):
        Fp8Matrix(np.zeros((2, 4), np.int8), np.zeros((2, 1), np.float32))


def blocks(rows, columns, seed=0):
    scales = np.random.default_rng(seed).uniform(0.5, 2, (-(-rows // 128), -(-columns // 128))).astype(np.float32)
    return Fp8Matrix(numbers(rows, columns, seed=seed).astype(E4M3), scales)


def spelled_out(matrix):
    """What blocks stand for, number by number."""
    wide = matrix.values.astype(np.float32)
    for i, j in np.ndindex(*matrix.scales.shape):
        wide[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)] *= matrix.scales[i, j]
    return wide


@pytest.mark.parametrize("shape", [(1, 1), (128, 128), (129, 300), (40, 256), (300, 77), (0, 5)])
def test_blocks(shape):
    matrix = blocks(*shape)
    np.testing.assert_array_equal(matrix.dequantize(), spelled_out(matrix))
    np.testing.assert_array_equal(matrix.widen(np.dtype(np.float16)), spelled_out(matrix).astype(np.float16))


def test_rows_slices_and_stacks():
    matrix, ids = blocks(300, 200), np.array([[299, 0], [130, 130]])
    whole = matrix.dequantize()
    np.testing.assert_array_equal(matrix.rows(ids), whole[ids])
    for part in (slice(128, 256), slice(128, 300), slice(5, 200), slice(256, 300), slice(299, 300)):
        np.testing.assert_array_equal(matrix[part].dequantize(), whole[part])
    assert matrix[128:].height == 128
    for parts in ([blocks(256, 200), matrix], [matrix, blocks(256, 200)], [matrix, quantize_fp8(numbers(7, 200))]):
        stack = stacked_fp8(parts)
        np.testing.assert_array_equal(stack.dequantize(), np.concatenate([part.dequantize() for part in parts]))
    assert stacked_fp8([blocks(256, 200), matrix]).height == 128


def test_a_weight_in_memory_keeps_its_numbers():
    array = numbers(5, 7)
    weight = make_weight(array, "fp8")
    assert (weight.shape, weight.storage, weight.nbytes) == ((5, 7), "fp8", 35 + 20)
    np.testing.assert_array_equal(weight.dequantize().numpy(), quantize_fp8(array).dequantize())
    x = tl.asarray(numbers(3, 7))
    out = tl.ops.linear(x, weight)
    np.testing.assert_allclose(out.numpy(), x.numpy() @ weight.dequantize().numpy().T, rtol=1e-5, atol=1e-6)
    assert weight.to(dtype="float16") is weight


def test_a_device_without_kernels_says_what_to_do():
    with pytest.raises(DTypeError, match=r"compute capability 8\.9.*cpu is not.*int8"):
        tl.VarBuilder.random(0, quantize="fp8")


def publish_fp8(folder, size=None, **changes):
    """A model as Qwen3-8B-FP8 is published: layers' matrices in E4M3 with ``weight_scale_inv``; the plain numbers."""
    publish(folder, **{"hidden_size": 192, "intermediate_size": 320, "head_dim": 48} | changes)
    source, tensors, plain = open_safetensors(folder), {}, {}
    for name in source.names():
        tensors[name] = plain[name] = np.array(source.read(name))
        if ".layers." in name and tensors[name].ndim == 2:
            rows, columns = plain[name].shape
            shape = -(-rows // 128), -(-columns // 128)
            scales = np.random.default_rng(1).uniform(1e-3, 2e-3, shape).astype(np.float32)
            spread = np.repeat(np.repeat(scales, 128, 0), 128, 1)[:rows, :columns]
            tensors[name] = (plain[name] / spread).astype(E4M3)
            tensors[name + "_scale_inv"] = scales
            plain[name] = tensors[name].astype(np.float32) * spread
    save_safetensors(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                     "weight_block_size": size or [128, 128]}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return plain


def test_a_checkpoint_in_fp8(tmp_path):
    plain = publish_fp8(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint.source.names()) == set(plain)
    for name, expected in plain.items():
        found = checkpoint.source.read(name)
        assert isinstance(found, Fp8Matrix) == (".layers." in name and expected.ndim == 2)
        assert checkpoint.source.info(name).shape == expected.shape
        np.testing.assert_array_equal(found if isinstance(found, np.ndarray) else found.dequantize(), expected)
    assert checkpoint.source.info("model.layers.0.mlp.up_proj.weight_scale_inv") is None


@pytest.mark.parametrize(
    ("options", "storage"),
    [
        ({}, "float16"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"quantize": "int8"}, "int8"),
        ({"quantize": "int4"}, "q4_1"),
    ],
)
def test_it_is_a_model_like_any_other_where_there_is_no_fp8(tmp_path, options, storage):
    plain = publish_fp8(tmp_path)
    model = load(tmp_path, device="cpu", **options)
    up = model.blocks[0].mlp.gate_up.weights[0]
    assert up.storage == storage
    expected = np.concatenate([plain[f"model.layers.0.mlp.{name}_proj.weight"] for name in ("gate", "up")])
    error = np.linalg.norm(up.dequantize().numpy() - expected) / np.linalg.norm(expected)
    assert error < {"float16": 3e-4, "bfloat16": 3e-3, "int8": 6e-3, "q4_1": 0.12}[up.storage]
    assert len(model.generate("the cat", max_tokens=3, ignore_eos=True).ids) == 3


def test_it_stays_as_it_is_where_there_is_fp8(tmp_path, monkeypatch):
    plain = publish_fp8(tmp_path)
    for module in (var_builder, weight):
        monkeypatch.setattr(module, "multiplies_fp8", lambda device: True)
    source = open_checkpoint(tmp_path).source
    for options in ({}, {"quantize": "fp8"}, {"quantize": "int8"}):
        vb = var_builder.VarBuilder(source, **options)
        found = vb.weight((192, 320), "model.layers.0.mlp.down_proj.weight")
        assert found.storage == "fp8"
        np.testing.assert_array_equal(found.dequantize().numpy(), plain["model.layers.0.mlp.down_proj.weight"])
    made = var_builder.VarBuilder(source, quantize="fp8").weight(plain["model.embed_tokens.weight"].shape,
                                                                 "model.embed_tokens.weight", table=True)  # fmt: skip
    assert made.storage == "fp8"


def test_a_scale_for_the_whole_matrix_and_scales_in_bfloat16(tmp_path):
    codes = numbers(200, 64).astype(E4M3)
    for scales in (np.float32(0.5), np.float32([0.5]), np.full((2, 1), 0.5, ml_dtypes.bfloat16)):
        publish(tmp_path)
        save_safetensors({"lm_head.weight": codes, "lm_head.weight_scale_inv": scales}, tmp_path / "model.safetensors")
        config = json.loads((tmp_path / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "fp8"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = open_checkpoint(tmp_path).source.read("lm_head.weight")
        np.testing.assert_array_equal(found.dequantize(), codes.astype(np.float32) * 0.5)


def test_what_is_wrong_with_a_checkpoint_is_told(tmp_path):
    publish_fp8(tmp_path, size=[64, 64])
    with pytest.raises(WeightsError, match=r"blocks of \[64, 64\]"):
        open_checkpoint(tmp_path)
    publish_fp8(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for method in ("gptq", None, 3):
        config["quantization_config"]["quant_method"] = method
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(WeightsError, match=f"quantised by {method!r}"):
            open_checkpoint(tmp_path)
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    codes, name = np.zeros((200, 64), E4M3), "lm_head.weight"
    for tensors, message in (
        ({name: codes, name + "_scale_inv": np.ones((1, 1, 2), np.float32)}, "expected one for each block"),
        ({name: codes, name + "_scale_inv": np.float32([[1], [np.inf]])}, "NaN or infinity"),
        ({name: codes.astype(np.float32), name + "_scale_inv": np.ones((2, 1), np.float32)}, "no matrix in float8"),
    ):
        save_safetensors(tensors, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match=message):
            open_checkpoint(tmp_path).source.read(name)


def test_memory(tmp_path, monkeypatch):
    publish_fp8(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    elsewhere = estimate_checkpoint(checkpoint).weights
    monkeypatch.setattr("tallow.models.estimate.multiplies_fp8", lambda device: True)
    there = estimate_checkpoint(checkpoint)
    infos = [checkpoint.source.info(name) for name in checkpoint.source.names()]
    layers = sum(info.nbytes for info in infos if info.dtype == E4M3)
    assert 0.9 * layers < elsewhere - there.weights <= layers
    assert estimate_checkpoint(checkpoint, "bfloat16").weights < there.weights  # the table's
    sizes = checkpoint.config
    whole = estimate_memory(sizes, "bfloat16").weights
    assert 0.5 * whole < estimate_memory(sizes, "bfloat16", quantize="fp8").weights < 0.56 * whole


def test_it_is_written_in_other_formats(tmp_path):
    (tmp_path / "published").mkdir()
    plain = publish_fp8(tmp_path / "published")
    for target in ("m.gguf", "folder"):
        convert(tmp_path / "published", tmp_path / target)
        source, name = open_checkpoint(tmp_path / target).source, "model.layers.1.self_attn.k_proj.weight"
        np.testing.assert_array_equal(source.read(name), plain[name].astype(np.float16))
    assert "quantization_config" not in json.loads((tmp_path / "folder" / "config.json").read_text())
