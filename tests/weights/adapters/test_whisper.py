import numpy as np
import pytest

from tallow.errors import WeightsError
from tallow.matrix.quantize import quantize_int8
from tallow.weights.adapters import whisper
from tallow.weights.adapters.mapped import MappedSource, Piece
from tallow.weights.ctranslate2 import CTranslate2File
from tallow.weights.safetensors import open_safetensors, save_safetensors
from tallow.weights.var_builder import VarBuilder

from ..ct2 import WHISPER_ALIASES, ct2_bytes, whisper_variables


@pytest.fixture
def make(tmp_path):
    def make_(variables, **options):
        (tmp_path / "model.bin").write_bytes(
            ct2_bytes(variables, WHISPER_ALIASES if "decoder/embeddings/weight" in variables else (), **options)
        )
        return CTranslate2File(tmp_path / "model.bin")

    return make_


LAYER_NAMES = {
    f"{block}.{part}"
    for block in ("self_attn.q_proj", "self_attn.v_proj", "self_attn.out_proj", "self_attn_layer_norm", "fc1", "fc2",
                  "final_layer_norm")
    for part in ("weight", "bias")
} | {"self_attn.k_proj.weight"}  # fmt: skip
CROSS_NAMES = {name.replace("self_attn", "encoder_attn") for name in LAYER_NAMES if name.startswith("self_attn")}


def test_ctranslate2_names_are_hugging_faces(make):
    names = set(whisper.from_ctranslate2(make(whisper_variables())).names())
    assert names == (
        {f"model.encoder.layers.{i}.{name}" for i in range(2) for name in LAYER_NAMES}
        | {f"model.decoder.layers.0.{name}" for name in LAYER_NAMES | CROSS_NAMES}
        | {f"model.encoder.conv{i}.{part}" for i in (1, 2) for part in ("weight", "bias")}
        | {f"model.{side}.layer_norm.{part}" for side in ("encoder", "decoder") for part in ("weight", "bias")}
        | {f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")}
        | {"model.decoder.embed_tokens.weight", "proj_out.weight"}
    )


def test_ctranslate2_fused_weights_come_apart(make):
    variables = whisper_variables()
    vb = VarBuilder(whisper.from_ctranslate2(make(variables)))
    fused = variables["encoder/layer_1/self_attention/linear_0/weight"]
    attention = vb.pp("model.encoder.layers.1.self_attn")
    for part, letter in enumerate("qkv"):
        weight = attention.weight((8, 8), f"{letter}_proj.weight")
        np.testing.assert_array_equal(weight.dequantize().numpy(), fused[8 * part : 8 * part + 8])
    whole = attention.weight((24, 8), ["q_proj.weight", "k_proj.weight", "v_proj.weight"])
    np.testing.assert_array_equal(whole.dequantize().numpy(), fused)
    bias = variables["encoder/layer_1/self_attention/linear_0/bias"].astype(np.float32)
    np.testing.assert_array_equal(attention.get(8, "v_proj.bias").numpy(), bias[16:])
    cross = vb.pp("model.decoder.layers.0.encoder_attn")
    np.testing.assert_array_equal(
        cross.weight((8, 8), "v_proj.weight").dequantize().numpy(),
        variables["decoder/layer_0/attention/linear_1/weight"][8:],
    )
    np.testing.assert_array_equal(
        cross.weight((8, 8), "out_proj.weight").dequantize().numpy(),
        variables["decoder/layer_0/attention/linear_2/weight"],
    )
    np.testing.assert_array_equal(
        vb.weight((21, 8), "proj_out.weight").dequantize().numpy(), variables["decoder/embeddings/weight"]
    )


def test_ctranslate2_int8_weights_come_apart(make):
    variables = whisper_variables(dtype=np.float32)
    for name in [name for name in variables if name.endswith("weight") and variables[name].ndim == 2]:
        matrix = quantize_int8(variables[name])
        variables[name] = matrix.values
        variables[name + "_scale"] = 1 / matrix.scales
    vb = VarBuilder(whisper.from_ctranslate2(make(variables)))
    weight = vb.weight((8, 8), "model.encoder.layers.0.self_attn.k_proj.weight")
    assert weight.storage == "int8"
    original = whisper_variables(dtype=np.float32)["encoder/layer_0/self_attention/linear_0/weight"][8:16]
    np.testing.assert_allclose(weight.dequantize().numpy(), original, atol=0.01)
    assert vb.weight((21, 8), "proj_out.weight").storage == "int8"


def test_ctranslate2_config(make):
    settings = {"suppress_ids": [1], "suppress_ids_begin": [2], "alignment_heads": [[0, 1]], "lang_ids": [9]}
    config, generation = whisper.ctranslate2_config(make(whisper_variables()), settings)
    assert config == {
        "model_type": "whisper", "d_model": 8, "num_mel_bins": 4, "vocab_size": 21,
        "max_source_positions": 10, "max_target_positions": 6, "encoder_layers": 2, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    }  # fmt: skip
    assert generation == {
        "is_multilingual": False, "suppress_tokens": [1], "begin_suppress_tokens": [2], "alignment_heads": [[0, 1]],
    }  # fmt: skip


@pytest.mark.parametrize("flag", ["activation", "pre_norm", "scale_embeddings", "alibi"])
def test_variants_that_whisper_is_not(make, flag):
    source = make(whisper_variables() | {f"decoder/{flag}": np.int8(2)})
    with pytest.raises(WeightsError, match=f"decoder/{flag}"):
        whisper.ctranslate2_config(source, {})


@pytest.mark.parametrize("name", ["encoder/conv1/weight", "decoder/embeddings/weight", "encoder/num_heads"])
def test_a_missing_or_misshapen_variable_is_named(make, name):
    variables = whisper_variables()
    with pytest.raises(WeightsError, match=name):
        whisper.ctranslate2_config(make(variables | {name: np.zeros((1, 1, 1, 1), np.float32)}), {})


def test_hugging_face_names_with_and_without_prefix(tmp_path):
    embedding = np.ones((3, 2), np.float16)
    files = {
        "whole": {"model.decoder.embed_tokens.weight": embedding, "model.encoder.conv1.bias": np.ones(2)},
        "bare": {"decoder.embed_tokens.weight": embedding, "encoder.conv1.bias": np.ones(2)},
        "tied": {"proj_out.weight": embedding, "model.encoder.conv1.bias": np.ones(2)},
    }
    for kind, arrays in files.items():
        save_safetensors(arrays, tmp_path / kind)
        source = whisper.from_huggingface(open_safetensors(tmp_path / kind))
        assert set(source.names()) == {
            "model.decoder.embed_tokens.weight", "model.encoder.conv1.bias", "proj_out.weight"
        }  # fmt: skip
        np.testing.assert_array_equal(source.read("proj_out.weight"), embedding)


def test_a_fused_matrix_that_does_not_divide(make):
    source = MappedSource(make({"w": np.zeros((5, 2), np.float32)}), {"a": Piece("w", 0, 3), "absent": Piece("x")})
    assert source.info("absent") is None
    with pytest.raises(WeightsError, match="3 equal parts"):
        source.info("a")
