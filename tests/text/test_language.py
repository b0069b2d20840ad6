import json
from types import SimpleNamespace

import pytest

from tallow.errors import ArgumentError, TemplateError, WeightsError
from tallow.text.language import Text

from .vocabularies import as_gguf, byte_level, strings


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
    assert found.eos_token_ids == {library.token_to_id("<|im_end|>")}
    assert found.defaults == {}


def test_the_ends_of_answers(folder, library):
    end = library.token_to_id("<|im_end|>")
    assert text(folder, {"eos_token_id": [3, 4]}).eos_token_ids == {3, 4, end}
    assert text(folder, {"eos_token_id": 3}, {"eos_token_id": 5}).eos_token_ids == {3, end}
    assert text(folder, {}, {"eos_token_id": 5}).eos_token_ids == {5, end}


def test_a_folder_that_names_no_end(folder, library):
    write(folder, "tokenizer_config.json", {})
    assert text(folder).eos_token_ids == {library.token_to_id("<|im_end|>")}
    assert text(folder, {"eos_token_id": 3}).eos_token_ids == {3}  # as in Transformers, what is named is all


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


def test_templates_by_name(folder):
    (folder / "additional_chat_templates").mkdir()
    write(folder, "additional_chat_templates/tool_use.jinja", "tools")
    write(folder, "additional_chat_templates/rag.jinja", "documents")
    write(folder, "additional_chat_templates/readme.txt", "no template")
    said = text(folder).templates
    assert said.sources.keys() == {"default", "tool_use", "rag"}  # the default of tokenizer_config.json
    assert said.chosen([{}]).render("x") == "tools"
    assert said.chosen(None, "rag").render("x") == "documents"
    write(folder, "chat_template.jinja", "file")
    assert text(folder).templates.sources == {"default": "file", "tool_use": "tools", "rag": "documents"}
    damaged = [{"name": "a"}, {"name": [3], "template": "b"}, "c", {"name": "d", "template": "e"}]
    write(folder, "tokenizer_config.json", {"chat_template": damaged})
    (folder / "chat_template.jinja").unlink()
    assert text(folder).templates.sources == {"d": "e", "tool_use": "tools", "rag": "documents"}


@pytest.mark.parametrize("damaged", ["", [], {}, 3, {"default": 3}, [{"name": "default", "template": ""}]])
def test_what_is_no_template_counts_as_none(folder, damaged):
    write(folder, "tokenizer_config.json", {"chat_template": damaged})
    assert not text(folder).has_template


def test_templates_by_name_in_a_gguf_file(library):
    metadata = as_gguf(library) | {
        "tokenizer.chat_template": "one", "tokenizer.chat_template.tool_use": "two",
        "tokenizer.chat_template.odd": 3, "tokenizer.chat_templates": strings(["tool_use", "odd"]),
    }  # fmt: skip
    checkpoint = SimpleNamespace(metadata=metadata, source=SimpleNamespace(where="m.gguf"))
    assert Text.from_checkpoint(checkpoint).templates.sources == {"default": "one", "tool_use": "two"}
    del metadata["tokenizer.chat_template"]
    assert Text.from_checkpoint(checkpoint).template.chosen([{}]).render("x") == "two"


def test_how_conversations_are_sampled():
    assert Text().chat_sampling == {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
    assert Text(defaults={"repetition_penalty": 1.1, "top_k": 9}).chat_sampling == {
        "temperature": 0.8, "top_k": 9, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1,
    }  # fmt: skip
    said = {"temperature": 0.6, "top_p": 0.9}
    assert Text(defaults=said).chat_sampling == said


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
    assert found.eos_token_ids == {library.token_to_id("<|im_end|>")}
    assert found.defaults == {"temperature": 0.7, "top_k": 20}
    bare = Text.from_checkpoint(SimpleNamespace(metadata={}, source=SimpleNamespace(where="m.gguf")))
    with pytest.raises(WeightsError, match=r"m\.gguf: has no tokenizer"):
        bare.tokenizer  # noqa: B018


def test_text_that_no_utf8_can_hold(folder):
    with pytest.raises(ArgumentError, match="not valid Unicode"):
        text(folder).tokenizer.encode("a\udcff")
