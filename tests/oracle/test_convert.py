"""Converted models, read by Transformers and by llama.cpp."""

import numpy as np
import pytest

from tallow.convert import convert
from tallow.models.checkpoint import open_checkpoint
from tallow.models.registry import find_class
from tallow.tensor import Tensor
from tallow.weights.gguf import open_gguf
from tallow.weights.var_builder import VarBuilder
from tests.text.vocabularies import byte_level

torch = pytest.importorskip("torch", reason="needs the extra `oracle`")
transformers = pytest.importorskip("transformers", reason="needs the extra `oracle`")
pytestmark = pytest.mark.oracle

SIZES = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 256}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192, "rope_theta": 5e5}  # fmt: skip
CASES = {
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-tied": ("Qwen3", {"head_dim": 64, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {}),
    "llama": ("Llama", {}),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "num_hidden_layers": 7,
            "sliding_window": 9,
            "tie_word_embeddings": True,
            "final_logit_softcapping": 20.0,
        },
    ),
    "llama3": ("Llama", {"rope_parameters": LLAMA3, "max_position_embeddings": 16384}),
}
PROMPT = np.random.default_rng(1).integers(0, 300, 40).tolist()


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def published(request, tmp_path_factory):
    """A folder as Transformers saves it, and the logits for the prompt."""
    name, changes = CASES[request.param]
    folder = tmp_path_factory.mktemp("published")
    encoder = byte_level()
    torch.manual_seed(0)
    config_class = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")
    config = config_class(vocab_size=encoder.get_vocab_size() + 3, **SIZES | changes)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        logits = model(torch.tensor([PROMPT])).logits[0].numpy()
    model.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=encoder, eos_token="<|im_end|>", bos_token="<|im_start|>", chat_template="{{ bos_token }}hello"
    )
    tokenizer.save_pretrained(folder)
    return folder, logits


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def ours(path, **options):
    checkpoint = open_checkpoint(path)
    model = find_class(checkpoint.architecture).from_checkpoint(checkpoint, VarBuilder(checkpoint.source, **options))
    hidden = model.forward(Tensor(np.array([PROMPT])), model.new_cache(1, 64))
    return model, model.logits(hidden).numpy()[0]


def llama_cpp_logits(path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    llm = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False, type_k=0, type_v=0)  # float32 cache
    llm.eval(PROMPT)
    return llm, np.array(llm.scores[: len(PROMPT)])


def test_gguf_in_float32(published, tmp_path):
    folder, logits = published
    convert(folder, tmp_path / "m.gguf", "float32")
    model, again = ours(tmp_path / "m.gguf")
    assert relative_error(again, logits) < 2e-5
    llm, theirs = llama_cpp_logits(tmp_path / "m.gguf")
    assert relative_error(theirs, logits) < 1e-3
    text = "the cat sat 123 on <|im_end|>"
    assert model.tokenizer.encode(text, special=True) == llm.tokenize(text.encode(), add_bos=False, special=True)
    assert model.text.template.render("x") == "<|im_start|>hello"
    assert model.tokenizer.id("<|im_end|>") in model.text.eos_token_ids


@pytest.mark.parametrize("storage", ["q8_0", "int4", "q5_1", "q4_0", "q5_0"])
def test_gguf_in_blocks(published, tmp_path, storage):
    folder, logits = published
    convert(folder, tmp_path / "m.gguf", storage)
    _, again = ours(tmp_path / "m.gguf", dtype="float32")
    _, theirs = llama_cpp_logits(tmp_path / "m.gguf")
    bound = 0.05 if storage == "q8_0" else 0.5  # random weights take four bits badly
    assert relative_error(again, logits) < bound
    assert relative_error(theirs, again) < 0.1  # llama.cpp also quantises what it multiplies with


def test_back_to_transformers(published, tmp_path):
    folder, logits = published
    convert(folder, tmp_path / "m.gguf", "float32")
    convert(tmp_path / "m.gguf", tmp_path / "back")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32).eval()
    with torch.no_grad():
        again = model(torch.tensor([PROMPT])).logits[0].numpy()
    assert relative_error(again, logits) < 1e-5
    before = transformers.AutoTokenizer.from_pretrained(folder)
    after = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    for text in ("the cat <|im_end|> naïve 東京", "12345  a"):
        assert after(text).input_ids == before(text).input_ids
        assert after.decode(after(text).input_ids) == text
    assert after.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "<|im_start|>hello"


NAMED = {"default": "{{ messages[0].content }}", "tool_use": "{{ tools|tojson }}", "rag": "{{ bos_token }}rag"}


@pytest.mark.parametrize("in_files", [True, False])
def test_named_chat_templates_as_transformers_saves_and_reads_them(tmp_path, in_files):
    config = transformers.Qwen2Config(vocab_size=byte_level().get_vocab_size(), **SIZES)
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "a")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token="<|im_start|>")
    theirs.chat_template = NAMED
    theirs.save_pretrained(tmp_path / "a", save_jinja_files=in_files)
    assert (tmp_path / "a" / "additional_chat_templates" / "tool_use.jinja").is_file() == in_files
    convert(tmp_path / "a", tmp_path / "b")
    convert(tmp_path / "b", tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "c")
    messages, tools = [{"role": "user", "content": "x"}], [{"type": "function", "function": {"name": "f"}}]
    for name in ("a", "b", "c"):
        again = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert again.chat_template == NAMED
        template = ours(tmp_path / name)[0].text.template
        for given in ({}, {"tools": tools}, {"chat_template": "rag"}, {"tools": tools, "chat_template": "default"}):
            expected = again.apply_chat_template(messages, tokenize=False, **given)
            chosen = template.chosen(given.get("tools"), given.get("chat_template"))
            assert chosen.render(messages, tools=given.get("tools"), add_generation_prompt=False) == expected
    gguf = pytest.importorskip("gguf", reason="needs the gguf package")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.chat_template.tool_use"].contents() == NAMED["tool_use"]
    assert fields["tokenizer.chat_templates"].contents() == ["rag", "tool_use"]


def test_from_blocks_to_other_blocks(published, tmp_path):
    folder, _ = published
    convert(folder, tmp_path / "a.gguf", "q8_0")
    convert(tmp_path / "a.gguf", tmp_path / "same.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "small.gguf", "q4_0")
    a, same, small = (open_gguf(tmp_path / f"{name}.gguf") for name in ("a", "same", "small"))
    for name in a.names():
        np.testing.assert_array_equal(a.raw(name), same.raw(name))
    assert small.kind("blk.0.ffn_up.weight").name == "q4_0"
    assert small.kind("token_embd.weight").name == "q8_0"
    assert small.kind("output_norm.weight").name == "f32"
