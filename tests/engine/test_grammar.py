import json

import pytest

from tallow.engine import grammar
from tallow.errors import ArgumentError

from .small_model import small_model

llguidance = pytest.importorskip("llguidance", reason="needs the extra `grammar`")

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.mark.parametrize("how", [{}, {"temperature": 1.5}, {"prompt_lookup_tokens": 4, "temperature": 1.0}])
def test_answers_follow_a_schema(model, how):
    for seed in range(4):
        result = model.generate("the cat", schema=SCHEMA, max_tokens=120, seed=seed, **how)
        assert result.finish_reason == "stop"
        person = json.loads(result.text)
        assert set(person) == {"name", "age"}
        assert 0 <= person["age"] <= 120
    assert model.generate("the cat", schema=json.dumps(SCHEMA), max_tokens=120, seed=0, **how).text


def test_a_regular_expression_and_a_grammar(model):
    for seed in range(3):
        assert model.generate("a", regex=r"(cat|mat) \d{2}", temperature=2.0, seed=seed).text[:3] in ("cat", "mat")
        text = model.generate("a", grammar='start: ("the" | "a") " cat"', temperature=2.0, seed=seed).text
        assert text in ("the cat", "a cat")


def test_several_answers_at_once(model):
    many = model.generate(["the", "a mat"], regex=r"[a-z]{3,9}!", temperature=1.0, seed=3)
    assert all(result.text.endswith("!") for result in many)
    assert many[0].ids == model.generate("the", regex=r"[a-z]{3,9}!", temperature=1.0, seed=3).ids


@pytest.mark.parametrize(
    "how",
    [{"schema": "no json"}, {"schema": "[1]"}, {"schema": {"type": "nonsense"}}, {"schema": {"$ref": "#/nowhere"}},
     {"regex": "("}, {"grammar": "start: nothing"}, {"schema": {}, "regex": "a"}, {"schema": {"minLength": {1}}}],
)  # fmt: skip
def test_schemas_and_grammars_that_are_none(model, how):
    with pytest.raises(ArgumentError):
        model.generate("the", **how)


def test_without_the_extra(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(ArgumentError, match=r"pip install 'tallow\[grammar\]'"):
        grammar.Grammar(schema={})
