import itertools
import json

import numpy as np
import pytest

from tallow.convert import convert
from tallow.errors import ArgumentError, ModelNotFoundError, WeightsError
from tallow.loading import load
from tallow.weights.gguf import open_gguf
from tallow.weights.safetensors import open_safetensors

from .engine.published import publish

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip


@pytest.fixture(params=["qwen3", "qwen2", "llama", "llama3", "untied"])
def folder(request, tmp_path):
    changes = {"llama3": {"rope_scaling": LLAMA3, "rope_theta": 5e5}, "untied": {"tie_word_embeddings": False}}
    architecture = {"llama3": "llama", "untied": "llama"}.get(request.param, request.param)
    (tmp_path / "published").mkdir()
    return publish(tmp_path / "published", architecture, **changes.get(request.param, {}))


def answers(path, **options):
    model = load(path, **options)
    return [model.generate(p, max_tokens=10, ignore_eos=True).ids for p in ("the cat sat", "naïve 東京 <|im_end|>")]


def test_there_and_back(folder, tmp_path):
    convert(folder, tmp_path / "m.gguf")
    assert answers(tmp_path / "m.gguf") == answers(folder)
    convert(tmp_path / "m.gguf", tmp_path / "back")
    assert answers(tmp_path / "back") == answers(folder)
    before, after = (open_safetensors(path) for path in (folder, tmp_path / "back"))
    assert set(after.names()) == set(before.names())
    for name in before.names():
        np.testing.assert_array_equal(after.read(name), before.read(name))
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["architectures"] == [f"{config['model_type'].capitalize()}ForCausalLM"]
    assert config["dtype"] == "float32"
    chat = [load(path).chat("the cat", max_tokens=4).ids for path in (folder, tmp_path / "back", tmp_path / "m.gguf")]
    assert chat[0] == chat[1] == chat[2]


@pytest.mark.parametrize(
    ("storage", "matrices", "tables"),
    [("int8", "q8_0", "q8_0"), ("q5_1", "q5_1", "q8_0"), ("int4", "q4_1", "q8_0"), ("bfloat16", "bf16", "bf16")],
)
def test_how_tensors_are_stored(tmp_path, storage, matrices, tables):
    publish(tmp_path)
    convert(tmp_path, tmp_path / "m.gguf", storage)
    file = open_gguf(tmp_path / "m.gguf")
    assert file.kind("blk.1.attn_q.weight").name == matrices
    assert file.kind("token_embd.weight").name == tables
    assert file.kind("blk.0.attn_norm.weight").name == "f32"
    whole = open_safetensors(tmp_path).read("model.layers.1.mlp.up_proj.weight")
    stored = file.read("blk.1.ffn_up.weight")
    stored = stored.astype(np.float32) if isinstance(stored, np.ndarray) else stored.dequantize()
    assert np.linalg.norm(stored - whole) / np.linalg.norm(whole) < 0.1


def test_rows_that_are_no_whole_blocks_stay_in_half_precision(tmp_path):
    publish(tmp_path, hidden_size=48)
    convert(tmp_path, tmp_path / "m.gguf", "q8_0")
    file = open_gguf(tmp_path / "m.gguf")
    assert file.kind("blk.0.attn_q.weight").name == "f16"
    assert file.kind("blk.0.ffn_down.weight").name == "q8_0"


def test_blocks_into_a_folder_are_widened(tmp_path):
    publish(tmp_path)
    convert(tmp_path, tmp_path / "m.gguf", "q8_0")
    convert(tmp_path / "m.gguf", tmp_path / "half")
    convert(tmp_path / "m.gguf", tmp_path / "brain", "bfloat16")
    for name, dtype in (("half", "float16"), ("brain", "bfloat16")):
        assert open_safetensors(tmp_path / name).read("model.embed_tokens.weight").dtype.name == dtype
        assert json.loads((tmp_path / name / "config.json").read_text())["dtype"] == dtype


def test_a_folders_other_files_come_along(tmp_path):
    (tmp_path / "a").mkdir()
    publish(tmp_path / "a")
    (tmp_path / "a" / "generation_config.json").write_text('{"eos_token_id": 3}')
    convert(tmp_path / "a", tmp_path / "b", "float16")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


NAMED = {"default": "{{ messages[0].content }}", "tool_use": "{{ tools }}", "rag": "{{ documents }}"}


@pytest.mark.parametrize("layout", ["list", "files", "json"])
def test_named_chat_templates_are_kept(tmp_path, layout):
    (tmp_path / "a").mkdir()
    publish(tmp_path / "a")
    path = tmp_path / "a" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    several = [{"name": name, "template": template} for name, template in NAMED.items()]
    if layout == "list":
        settings["chat_template"] = several
    else:
        del settings["chat_template"]
    path.write_text(json.dumps(settings))
    if layout == "json":
        (tmp_path / "a" / "chat_template.json").write_text(json.dumps({"chat_template": several}))
    if layout == "files":
        (tmp_path / "a" / "chat_template.jinja").write_text(NAMED["default"])
        (tmp_path / "a" / "additional_chat_templates").mkdir()
        for name in ("tool_use", "rag"):
            (tmp_path / "a" / "additional_chat_templates" / f"{name}.jinja").write_text(NAMED[name])
    chain = ["a", "b", "m.gguf", "again.gguf", "c"]
    for source, target in itertools.pairwise(chain):
        convert(tmp_path / source, tmp_path / target, "float32")
        assert load(tmp_path / target).text.templates.sources == NAMED
    metadata = open_gguf(tmp_path / "m.gguf").metadata
    assert metadata["tokenizer.chat_template"] == NAMED["default"]
    assert metadata["tokenizer.chat_template.tool_use"] == NAMED["tool_use"]
    assert metadata["tokenizer.chat_templates"].tolist() == ["rag", "tool_use"]


def test_names_of_templates_in_gguf_are_letters_and_digits(tmp_path):
    publish(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    several = [{"name": "../tool-use", "template": "a"}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": several}))
    convert(tmp_path, tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "back")
    for name in ("m.gguf", "back"):
        assert load(tmp_path / name).text.templates.sources == {"___tool_use": "a"}  # and no default was made up


def test_what_cannot_be_converted(tmp_path):
    publish(tmp_path, "qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=0)
    with pytest.raises(WeightsError, match="sliding windows"):
        convert(tmp_path, tmp_path / "m.gguf")
    with pytest.raises(ArgumentError, match="storage 'q2_k'"):
        convert(tmp_path, tmp_path / "m.gguf", "q2_k")
    with pytest.raises(ArgumentError, match="safetensors hold no q8_0"):
        convert(tmp_path, tmp_path / "folder", "q8_0")
    (tmp_path / "text").touch()
    (tmp_path / "model").mkdir()
    with pytest.raises(ArgumentError, match=r"is a file; the target must be a folder, or a file \*.gguf"):
        convert(publish(tmp_path / "model", "qwen2"), tmp_path / "text")
    with pytest.raises(ModelNotFoundError):
        convert(tmp_path / "nowhere", tmp_path / "m.gguf")
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("true", "false", 1))
    config = json.loads((tmp_path / "config.json").read_text()) | {"use_sliding_window": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="splits text in a way"):
        convert(tmp_path, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
