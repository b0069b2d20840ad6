import numpy as np
import pytest

from tallow.convert import with_attention_factor
from tallow.errors import ModelNotFoundError, WeightsError
from tallow.matrix.blocks import BY_NAME
from tallow.models.checkpoint import open_checkpoint
from tallow.models.registry import find_gguf
from tallow.nn.rope_scaling import rotary_frequencies
from tallow.weights.adapters import gguf as adapter
from tallow.weights.adapters.gguf_export import gguf_settings
from tallow.weights.gguf import GGUFFile
from tallow.weights.var_builder import VarBuilder

from ..gguf_bytes import ARRAY, STRING, U32, array, gguf, pair, tensor

F32 = 6
LLAMA = find_gguf("llama", "").gguf
SIZES = {"embedding_length": 64, "feed_forward_length": 96, "block_count": 1, "attention.head_count": 4,
         "attention.head_count_kv": 2, "context_length": 128}  # fmt: skip


def gguf_config(source):
    spec = find_gguf(adapter.architecture(source), source.where)
    return adapter.gguf_config(source, spec.gguf, spec.model_types[0])


def from_gguf(source):
    config = gguf_config(source)
    return adapter.from_gguf(source, find_gguf(config["model_type"], "").gguf, config)


def settings(architecture="llama", changes=(), **more):
    pairs = {"general.architecture": pair("general.architecture", STRING, architecture)}
    for key, value in SIZES.items():
        pairs[key] = pair(f"{architecture}.{key}", U32, value)
    key = "attention.layer_norm_rms_epsilon"
    pairs[key] = pair(f"{architecture}.{key}", F32, 1e-5)
    for key, value in changes:
        pairs[key] = value
    return [value for value in pairs.values() if value is not None]


def file(tmp_path, pairs, shapes=None, data=b""):
    """A file with F32 tensors of zeros but for ``data``, which begins with the first."""
    shapes = {"token_embd.weight": (10, 64)} if shapes is None else shapes
    tensors, offset = [], 0
    for name, (shape, kind) in {n: s if isinstance(s[0], tuple) else (s, "f32") for n, s in shapes.items()}.items():
        tensors.append(tensor(name, shape[::-1], BY_NAME[kind].id, offset))
        size = int(np.prod(shape)) // BY_NAME[kind].elements * BY_NAME[kind].nbytes
        offset += -(-size // 32) * 32
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(pairs, tensors, data + b"\0" * (offset - len(data))))
    return GGUFFile(path)


def test_settings_become_transformers_config(tmp_path):
    changes = [("t", pair("llama.rope.freq_base", F32, 5e5)), ("e", pair("tokenizer.ggml.eos_token_id", U32, 2))]
    config = gguf_config(file(tmp_path, settings(changes=changes)))
    assert config == {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
        "rms_norm_eps": pytest.approx(1e-5), "rope_theta": 5e5, "rope_scaling": None, "vocab_size": 10,
        "tie_word_embeddings": True, "sliding_window": None, "use_sliding_window": False, "max_window_layers": 0,
        "biases": [], "eos_token_id": 2,
    }  # fmt: skip


def test_optional_settings(tmp_path):
    changes = [
        ("attention.head_count_kv", None),
        ("w", pair("qwen3.attention.sliding_window", U32, 32)),
        ("k", pair("qwen3.attention.key_length", U32, 32)),
        ("v", pair("qwen3.attention.value_length", U32, 32)),
        ("feed_forward_length", pair("qwen3.feed_forward_length", ARRAY, array(5, [7, 7]))),
        ("s", pair("qwen3.rope.scaling.type", STRING, "yarn")),
        ("f", pair("qwen3.rope.scaling.factor", F32, 4)),
        ("o", pair("qwen3.rope.scaling.original_context_length", U32, 64)),
    ]
    shapes = {"token_embd.weight": (10, 64), "output.weight": (10, 64), "blk.0.attn_q.bias": (128,)}
    config = gguf_config(file(tmp_path, settings("qwen3", changes), shapes))
    assert (config["num_key_value_heads"], config["head_dim"], config["intermediate_size"]) == (4, 32, 7)
    assert (config["sliding_window"], config["use_sliding_window"]) == (32, True)
    assert not config["tie_word_embeddings"]
    assert config["biases"] == ["q_proj"]
    assert config["rope_scaling"] == {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64}


def test_frequency_factors(tmp_path):
    factors = np.arange(1, 9, dtype=np.float32)
    source = file(tmp_path, settings(), {"rope_freqs.weight": (8,), "token_embd.weight": (10, 64)}, factors.tobytes())
    assert gguf_config(source)["rope_scaling"] == {"rope_type": "factors", "factors": list(range(1, 9))}


YARN = [("s", pair("llama.rope.scaling.type", STRING, "yarn")), ("f", pair("llama.rope.scaling.factor", F32, 4))]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([("a", pair("llama.rope.scale_linear", F32, 2))], {"rope_type": "linear", "factor": 2}),
        ([("a", pair("llama.rope.scaling.factor", F32, 4))], {"rope_type": "linear", "factor": 4}),
        (
            [("a", pair("llama.rope.scaling.factor", F32, 4)), ("b", pair("llama.rope.scale_linear", F32, 2))],
            {"rope_type": "linear", "factor": 4},
        ),
        ([("a", pair("llama.rope.scaling.factor", F32, 0))], None),
        ([YARN[1], ("s", pair("llama.rope.scaling.type", STRING, "none"))], None),
        ([("s", pair("llama.rope.scaling.type", STRING, "linear"))], None),
        (
            [("a", pair("llama.rope.scaling.factor", F32, 2)), ("b", pair("llama.rope.scaling.attn_factor", F32, 1.5))],
            {"rope_type": "factors", "factors": [2.0] * 8, "attention_factor": 1.5},
        ),
        (YARN, {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 128}),
        (
            [*YARN, ("x", pair("llama.rope.scaling.attn_factor", F32, 0.5)),
             ("b", pair("llama.rope.scaling.yarn_beta_fast", F32, 16)),
             ("c", pair("llama.rope.scaling.yarn_beta_slow", F32, 2))],
            {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 128, "beta_fast": 16, "beta_slow": 2,
             "attention_factor": pytest.approx(0.5 * (1 + 0.1 * np.log(4)))},
        ),
        ([*YARN, ("x", pair("llama.rope.scaling.yarn_ext_factor", F32, 0))], {"rope_type": "linear", "factor": 4}),
    ],
)  # fmt: skip
def test_rope_scaling_as_llama_cpp_reads_it(tmp_path, keys, expected):
    """Sources: llama.cpp's ``llama-model.cpp`` (keys), ``llama-context.cpp`` and ggml's ``rope_yarn`` (factors)."""
    assert gguf_config(file(tmp_path, settings(changes=keys)))["rope_scaling"] == expected


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "attention_factor": 0.75},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 8.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 2.0,
         "mscale_all_dim": 0.5},
        {"rope_type": "factors", "factors": [1.0] * 8, "attention_factor": 1.25},
    ],
)  # fmt: skip
def test_rope_scaling_is_written_as_it_is_read(tmp_path, scaling):
    source = file(tmp_path, settings())
    config = gguf_config(source) | {"rope_scaling": scaling}
    written = gguf_settings(LLAMA, with_attention_factor(config), source, "name")
    pairs = [(k, pair(k, STRING if isinstance(v, str) else F32 if isinstance(v, float) else U32, v))
             for k, v in written.items() if ".rope.scaling." in k]  # fmt: skip
    back = gguf_config(file(tmp_path, settings(changes=pairs)))["rope_scaling"]
    for mine, theirs in zip(
        rotary_frequencies(16, 1e4, back, 128), rotary_frequencies(16, 1e4, scaling, 128), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_yarn_without_whole_bounds_has_no_key(tmp_path):
    source = file(tmp_path, settings())
    config = gguf_config(source) | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "truncate": False}}
    with pytest.raises(WeightsError, match="truncate"):
        gguf_settings(LLAMA, config, source, "name")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("general.architecture", pair("general.architecture", STRING, "bert"), "architecture 'bert'"),
        ("general.architecture", None, "must be a name, found None"),
        ("general.architecture", pair("general.architecture", U32, 1), "must be a name, found 1"),
        ("embedding_length", None, "lacks llama.embedding_length"),
        ("embedding_length", pair("llama.embedding_length", U32, 0), "must be 1 to"),
        ("embedding_length", pair("llama.embedding_length", F32, 64), "must be 1 to"),
        ("embedding_length", pair("llama.embedding_length", ARRAY, array(U32, [64, 65])), "must be 1 to"),
        ("embedding_length", pair("llama.embedding_length", ARRAY, array(U32, [])), "must be 1 to"),
        ("embedding_length", pair("llama.embedding_length", 10, 2**60), "must be 1 to"),
        ("block_count", pair("llama.block_count", U32, 2**31), "must be 1 to 1,000"),
        ("attention.layer_norm_rms_epsilon", None, "lacks"),
        ("x", pair("llama.expert_count", U32, 8), "mixture of experts"),
        ("x", pair("llama.rope.dimension_count", U32, 8), "not the size of a head"),
        ("x", pair("llama.rope.freq_base", F32, float("nan")), "must be positive"),
        ("x", pair("llama.rope.scaling.type", STRING, "longrope"), "longrope"),
        ("x", pair("llama.rope.scaling.factor", F32, -1), "must be positive"),
    ],
)
def test_settings_that_cannot_be(tmp_path, key, value, said):
    with pytest.raises(WeightsError, match=said):
        gguf_config(file(tmp_path, settings(changes=[(key, value)])))


def test_an_embedding_that_is_no_matrix(tmp_path):
    with pytest.raises(WeightsError, match=r"'token_embd\.weight'; it is not there"):
        gguf_config(file(tmp_path, settings(), {}))
    with pytest.raises(WeightsError, match="it has shape"):
        gguf_config(file(tmp_path, settings(), {"token_embd.weight": (64,)}))


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_llamas_rows_are_put_in_order(tmp_path, kind):
    """Row h · d + 2 i + j of the file is row h · d + j · d / 2 + i of the model."""
    heads, d = 4, 16
    if kind == "q8_0":
        blocks = np.zeros((64, 2), BY_NAME[kind].layout)
        blocks["d"] = 1
        blocks["qs"] = np.arange(64)[:, None, None]
        data = blocks.tobytes()
    else:
        data = np.repeat(np.arange(64, dtype=np.float32), 64).tobytes()
    shapes = {"blk.0.attn_q.weight": ((64, 64), kind), "blk.0.attn_v.weight": (32, 64), "token_embd.weight": (10, 64)}
    source = file(tmp_path, settings(), shapes, data)
    vb = VarBuilder(from_gguf(source)).pp("model.layers.0.self_attn")
    rows = vb.weight((64, 64), "q_proj.weight").dequantize().numpy()[:, 0]
    expected = [h * d + 2 * i + j for h in range(heads) for j in range(2) for i in range(d // 2)]
    assert rows.tolist() == expected
    assert vb.weight((32, 64), "v_proj.weight").shape == (32, 64)


def test_other_architectures_keep_their_rows(tmp_path):
    data = np.repeat(np.arange(64, dtype=np.float32), 64).tobytes()
    shapes = {"blk.0.attn_q.weight": (64, 64), "token_embd.weight": (10, 64), "blk.0.attn_q_norm.weight": (16,)}
    source = from_gguf(file(tmp_path, settings("qwen3"), shapes, data))
    assert source.read("model.layers.0.self_attn.q_proj.weight")[:, 0].tolist() == list(range(64))
    assert set(source.names()) == {
        "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_norm.weight", "model.embed_tokens.weight"
    }  # fmt: skip


def test_a_gguf_file_is_a_checkpoint(tmp_path):
    file(tmp_path, settings())
    for path in (tmp_path, tmp_path / "model.gguf"):
        checkpoint = open_checkpoint(path)
        assert checkpoint.architecture == "llama"
        assert checkpoint.metadata["llama.block_count"] == 1
        assert checkpoint.source.info("model.embed_tokens.weight").shape == (10, 64)
    whole = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "blob").write_bytes(whole)
    assert open_checkpoint(tmp_path / "blob").architecture == "llama"
    (tmp_path / "ct2").mkdir()
    (tmp_path / "ct2" / "model.bin").write_bytes(whole)
    for path in (tmp_path / "ct2", tmp_path / "ct2" / "model.bin"):
        assert open_checkpoint(path).metadata["llama.block_count"] == 1
    (tmp_path / "mmproj-model.gguf").write_bytes(whole)
    assert open_checkpoint(tmp_path).architecture == "llama"
    (tmp_path / "wrong.GGUF").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="not a GGUF file, whatever its name"):
        open_checkpoint(tmp_path / "wrong.GGUF")
    (tmp_path / "wrong.GGUF").unlink()
    (tmp_path / "other.gguf").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=r"model\.gguf, other\.gguf"):
        open_checkpoint(tmp_path)
