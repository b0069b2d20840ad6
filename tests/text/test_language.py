import json
from types import SimpleNamespace

import pytest

from tallow.errors import ArgumentError, TemplateError, WeightsError
from tallow.text.language import Text

from .vocabularies import as_gguf, byte_level


@pytest.fixture(scope="module")
def library():
    return byte_level()


@pytest.fixture
def folder(tmp_path, library):
    library.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "tokenizer_config.json", {"eos_token": "<|im_end|>", "bos_token": {"content": "<|im_start|>"},
                                              "chat_template": "{{ bos_token }}{{ messages[0].content }}"})  # fmt: skip
    return tmp_path


def write(folder, name, value):
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def text(folder, generation=None, config=None):
    return Text.from_checkpoint(
        SimpleNamespace(folder=str(folder), metadata=None, generation_config=generation or {}, config=config or {})
    )


def test_a_folder(folder, library):
    found = text(folder)
    assert found.tokenizer.encode("the cat") == library.encode("the cat").ids
    assert found.template.render("x") == "<|im_start|>x"
    assert found.ends == {library.token_to_id("<|im_end|>")}
    assert found.defaults == {}


def test_the_ends_of_answers(folder, library):
    end = library.token_to_id("<|im_end|>")
    assert text(folder, {"eos_token_id": [3, 4]}).ends == {3, 4, end}
    assert text(folder, {"eos_token_id": 3}, {"eos_token_id": 5}).ends == {3, end}
    assert text(folder, {}, {"eos_token_id": 5}).ends == {5, end}


def test_how_the_authors_want_it_sampled(folder):
    said = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "transformers_version": "4"}
    assert text(folder, said | {"do_sample": True}).defaults == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert text(folder, said).defaults == {}
    assert text(folder, {"repetition_penalty": 1.1}).defaults == {"repetition_penalty": 1.1}


def test_where_the_template_lies(folder):
    write(folder, "tokenizer_config.json", {"chat_template": [{"name": "default", "template": "a"},
                                                              {"name": "tool_use", "template": "b"}]})  # fmt: skip
    assert text(folder).template.render("x", tools=[{"type": "function"}]) == "b"
    write(folder, "chat_template.json", {"chat_template": "c"})
    assert text(folder).template.render("x") == "c"
    write(folder, "chat_template.jinja", "d")
    assert text(folder).template.render("x") == "d"


def test_what_is_missing_is_said_when_it_is_needed(tmp_path):
    found = text(tmp_path)
    assert not found.has_tokenizer
    with pytest.raises(WeightsError, match=r"has no tokenizer; add its tokenizer\.json"):
        found.tokenizer  # noqa: B018
    with pytest.raises(TemplateError, match="has no chat template"):
        found.template  # noqa: B018


def test_damaged_files(folder):
    write(folder, "tokenizer_config.json", "{")
    with pytest.raises(WeightsError, match="tokenizer_config"):
        text(folder)


def test_a_gguf_file(library):
    metadata = as_gguf(library) | {
        "tokenizer.chat_template": "{{ messages[0].content }}{{ eos_token }}",
        "general.sampling.temp": 0.7,
        "general.sampling.top_k": 20,
    }
    checkpoint = SimpleNamespace(metadata=metadata, source=SimpleNamespace(where="m.gguf"))
    found = Text.from_checkpoint(checkpoint)
    assert found.template.render("x") == "x<|im_end|>"
    assert found.ends == {library.token_to_id("<|im_end|>")}
    assert found.defaults == {"temperature": 0.7, "top_k": 20}
    bare = Text.from_checkpoint(SimpleNamespace(metadata={}, source=SimpleNamespace(where="m.gguf")))
    with pytest.raises(WeightsError, match=r"m\.gguf: has no tokenizer"):
        bare.tokenizer  # noqa: B018


def test_text_that_no_utf8_can_hold(folder):
    with pytest.raises(ArgumentError, match="not valid Unicode"):
        text(folder).tokenizer.encode("a\udcff")
