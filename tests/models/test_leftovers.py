"""Biases count wherever a file has them, and a tensor that no module reads is an error that names it."""

import json

import numpy as np
import pytest

import tallow as tl
from tallow.convert import convert
from tallow.errors import WeightsError
from tallow.models.registry import every_spec
from tallow.runtime.resident import unload
from tallow.tensor import Tensor
from tallow.weights.gguf import open_gguf
from tallow.weights.gguf_write import PLAIN, NewTensor, save_gguf
from tallow.weights.safetensors import open_safetensors, save_safetensors
from tests.engine.small_model import vocabulary

VOCABULARY = len(vocabulary())
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
         "tie_word_embeddings": True, "rms_norm_eps": 1e-5}  # fmt: skip
PROJECTIONS = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32),
               "self_attn.o_proj": (32, 32), "mlp.gate_proj": (48, 32), "mlp.up_proj": (48, 32),
               "mlp.down_proj": (32, 48)}  # fmt: skip
BIASES = tuple(PROJECTIONS)


@pytest.fixture(autouse=True)
def nothing_resident():
    unload()
    yield
    unload()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "model"


def write(folder, kind="llama", biases=(), extra=(), **changes):
    """A checkpoint as Transformers writes it, with random weights."""
    draw = np.random.default_rng(0)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, 32), "model.norm.weight": (32,)}
    for layer in range(2):
        at = f"model.layers.{layer}."
        shapes |= {at + "input_layernorm.weight": (32,), at + "post_attention_layernorm.weight": (32,)}
        if kind == "qwen3":
            shapes |= {at + "self_attn.q_norm.weight": (8,), at + "self_attn.k_norm.weight": (8,)}
        for name, shape in PROJECTIONS.items():
            shapes[f"{at}{name}.weight"] = shape
            if name in biases:
                shapes[f"{at}{name}.bias"] = shape[:1]
    shapes |= dict(extra)
    folder.mkdir(exist_ok=True)
    save_safetensors(
        {name: draw.standard_normal(shape).astype(np.float32) / 3 for name, shape in shapes.items()},
        folder / "model.safetensors",
    )
    (folder / "tokenizer.json").write_text(vocabulary().to_json())
    (folder / "config.json").write_text(json.dumps(SIZES | {"model_type": kind} | changes))


def logits(path):
    model = tl.load(path, device="cpu")
    ids = Tensor(np.array([[3, 1, 4, 1, 5]]))
    return model.logits(model.forward(ids, model.new_cache(1, 8))).numpy()


@pytest.mark.parametrize(
    ("kind", "biases", "flags"),
    [
        ("llama", BIASES, {"attention_bias": True, "mlp_bias": True}),
        ("llama", BIASES[4:], {"mlp_bias": True}),
        ("llama", BIASES[:4], {"attention_bias": True}),
        ("qwen3", BIASES[:4], {"attention_bias": True}),
        ("qwen2", BIASES[:3], {}),
    ],
)
def test_biases_survive_the_way_to_gguf_and_back(folder, tmp_path, kind, biases, flags):
    write(folder, kind, biases, **flags)
    expected = logits(folder)
    convert(folder, tmp_path / "model.gguf")
    np.testing.assert_allclose(logits(tmp_path / "model.gguf"), expected, rtol=1e-4, atol=1e-5)
    convert(tmp_path / "model.gguf", tmp_path / "back")
    np.testing.assert_allclose(logits(tmp_path / "back"), expected, rtol=1e-4, atol=1e-5)


def plain(metadata):
    """Metadata as ``save_gguf`` takes it."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in metadata.items()}


def rewritten(source, target, drop):
    """The same GGUF file without the tensors whose names hold one of these."""

    file = open_gguf(source)
    tensors = {}
    for name in file.names():
        if not any(part in name for part in drop):
            value = file.read(name)
            tensors[name] = NewTensor(value.shape, PLAIN["float32"], lambda value=value: value)
    save_gguf(target, plain(file.metadata), tensors)


@pytest.mark.parametrize("kept", ["attn_output", "ffn_down", "attn_k"])
def test_a_bias_alone_counts(folder, tmp_path, kept):
    """Against a file that has all biases, all others zero."""
    theirs = {"attn_output": "self_attn.o_proj", "ffn_down": "mlp.down_proj", "attn_k": "self_attn.k_proj"}
    write(folder, biases=BIASES, attention_bias=True, mlp_bias=True)
    convert(folder, tmp_path / "all.gguf")
    dropped = [
        f"{name}.bias" for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    ]
    rewritten(tmp_path / "all.gguf", tmp_path / "one.gguf", [name for name in dropped if not name.startswith(kept)])
    source = open_safetensors(folder)
    zeroed = {
        name: np.array(source.read(name)) * (not name.endswith("bias") or theirs[kept] in name)
        for name in source.names()
    }
    save_safetensors(zeroed, folder / "model.safetensors")
    unload()
    np.testing.assert_allclose(logits(tmp_path / "one.gguf"), logits(folder), rtol=1e-4, atol=1e-5)
    convert(tmp_path / "one.gguf", tmp_path / "back")  # where Transformers wants the other biases too: zeros
    np.testing.assert_allclose(logits(tmp_path / "back"), logits(folder), rtol=1e-4, atol=1e-5)


def test_transformers_has_no_place_for_some_biases(folder, tmp_path):
    write(folder, "qwen2", BIASES[:3])
    convert(folder, tmp_path / "model.gguf")

    file = open_gguf(tmp_path / "model.gguf")
    tensors = {n: NewTensor(file.info(n).shape, PLAIN["float32"], lambda n=n: file.read(n)) for n in file.names()}
    for layer in range(2):
        tensors[f"blk.{layer}.ffn_up.bias"] = NewTensor((48,), PLAIN["float32"], lambda: np.ones(48, np.float32))
    save_gguf(tmp_path / "up.gguf", plain(file.metadata), tensors)
    with pytest.raises(WeightsError, match="up_proj have biases, which Transformers' Qwen2 has not"):
        convert(tmp_path / "up.gguf", tmp_path / "back")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.layers.0.self_attn.o_proj.bias", "is nothing that Tallow's llama computes"),
        ("model.layers.0.self_attn.q_norm.weight", "is nothing that Tallow's llama computes"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "LoRA; merge"),
        ("vision_tower.patch.weight", "model of pictures"),
        ("mtp.layers.0.fc.weight", "predict several tokens"),
        ("model.layers.0.mlp.experts.0.up_proj.weight", "mixture of experts"),
        ("score.weight", "head of a classifier"),
        ("model.layers.2.input_layernorm.weight", "the config has no layer for"),
    ],
)
def test_a_tensor_left_unread_is_named(folder, name, said):
    write(folder, extra={name: (4,)})
    with pytest.raises(WeightsError, match=f"{said}"):
        tl.load(folder, device="cpu")


def test_a_tensor_of_gguf_left_unread_is_named(folder, tmp_path):
    write(folder, biases=BIASES[4:], mlp_bias=True)
    convert(folder, tmp_path / "model.gguf")
    rewritten(tmp_path / "model.gguf", tmp_path / "some.gguf", ["blk.0.ffn_up.bias"])
    with pytest.raises(WeightsError, match=r"'model\.layers\.1\.mlp\.up_proj\.bias' is nothing"):
        tl.load(tmp_path / "some.gguf", device="cpu")


def test_what_means_nothing_is_no_error(folder):
    write(folder, extra={"model.layers.0.self_attn.rotary_emb.inv_freq": (4,), "lm_head.weight": (VOCABULARY, 32)})
    assert tl.load(folder, device="cpu")


def test_every_architecture_says_what_it_leaves():
    assert all(spec.unread for spec in every_spec())
