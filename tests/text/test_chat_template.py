import dataclasses
import enum

import numpy as np
import pytest

from tallow.errors import ArgumentError, TemplateError
from tallow.text import sandbox
from tallow.text.chat_template import ChatTemplate, conversation

from .conversations import CONVERSATIONS, TEMPLATES, TOKENS, WEATHER, assistant, user


def render(source, messages="hi", **given):
    return ChatTemplate(source, TOKENS).render(messages, **given)


def test_qwen3_with_and_without_thinking():
    messages = [user("1+1?"), assistant("<think>\neasy\n</think>\n\n2"), user("And now?")]
    expected = (
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(TEMPLATES["qwen3"], messages) == expected
    assert render(TEMPLATES["qwen3"], messages, enable_thinking=True) == expected
    assert render(TEMPLATES["qwen3"], messages, enable_thinking=False) == expected + "<think>\n\n</think>\n\n"
    assert (
        render(TEMPLATES["qwen3"], messages[:1], add_generation_prompt=False)
        == expected.split("1+1?<|im_end|>\n")[0] + "1+1?<|im_end|>\n"
    )


def test_tools_are_written_as_plain_json():
    text = render(TEMPLATES["qwen3"], CONVERSATIONS["tools"], tools=[WEATHER])
    assert '"description": "The weather in a city: <b>°C</b> & wind"' in text
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Łódź", "days": 2}}\n</tool_call>' in text
    assert '<tool_response>\n{"celsius": 3}\n</tool_response>' in text


def test_a_string_is_one_message_by_the_user():
    assert render("{{ messages[0].role }}: {{ messages[0].content }}{{ messages|length }}", "x") == "user: x1"


def test_the_template_for_tools_is_used_for_them():
    template = ChatTemplate({"default": "a", "tool_use": "b"})
    assert template.render("x") == "a"
    assert template.render("x", tools=[WEATHER]) == "b"
    assert template.render("x", tools=[]) == "a"
    with pytest.raises(TemplateError, match=r"no 'default' among the model's chat templates \('rag'\)"):
        ChatTemplate({"rag": "a"}).render("x")


def test_a_template_is_chosen_by_name_or_given():
    template = ChatTemplate({"default": "a", "tool_use": "b", "rag": "{{ bos_token }}c"}, TOKENS)
    assert template.chosen([WEATHER]).render("x") == "b"
    assert template.chosen([WEATHER], "default").render("x", tools=[WEATHER]) == "a"
    assert template.chosen(None, "rag").render("x") == "<|begin_of_text|>c"
    assert template.chosen([WEATHER], "{{ messages[0].content }}").render("x", tools=[WEATHER]) == "x"
    assert ChatTemplate({}, TOKENS).chosen(None, "{{ eos_token }}").render("x") == "</s>"
    with pytest.raises(TemplateError, match=r"no 'tool-use' among .*'default', 'tool_use', 'rag'.*a template's text"):
        template.chosen(None, "tool-use")
    with pytest.raises(TemplateError, match="it has none"):
        ChatTemplate({}).chosen()


def test_what_a_template_reads():
    assert ChatTemplate("{% if tools %}{{ enable_thinking }}{% endif %}").reads("tools")
    assert ChatTemplate("{% if not tools is defined %}{% set tools = none %}{% endif %}").reads("tools")
    assert not ChatTemplate("{# tools #}I have no tools.{% set tools = 1 %}").reads("tools")
    assert ChatTemplate("a</think>").mentions("</think>")
    assert not ChatTemplate("").mentions("</think>")
    with pytest.raises(TemplateError, match="line 1"):
        ChatTemplate("{% if %}").reads("tools")
    with pytest.raises(TemplateError, match="too deep"):
        ChatTemplate("{{ " + "(" * 10_000).reads("tools")


def test_content_of_none_is_no_content():  # as Transformers 5 has it: templates that know only texts fail on None
    source = (
        "{{ 'content' in messages[0] }} {{ messages[0].content is none }} {{ messages[0].tool_calls[0].id is none }}"
    )
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": None}]}
    assert render(source, [message]) == "False False True"


def test_what_a_template_says_of_the_conversation_is_the_message():
    with pytest.raises(TemplateError, match="roles must alternate"):
        render(TEMPLATES["alternating"], [assistant("a")])


@pytest.mark.parametrize("messages", [[], [{"content": "a"}], ["a"], [{"role": 1}], [None]])
def test_messages_of_the_wrong_form(messages):
    with pytest.raises(ArgumentError, match="expected messages"):
        render("", messages)


@pytest.mark.parametrize("tools", ["weather", WEATHER, [len], ["a"]])
def test_tools_of_the_wrong_form(tools):
    with pytest.raises(ArgumentError, match="JSON schemas"):
        render("", tools=tools)


def test_only_plain_data_reaches_the_template():
    class Colour(enum.StrEnum):
        RED = "red"

    @dataclasses.dataclass
    class Point:
        x: int

    values = [Colour.RED, np.float32(0.5), np.bool_(False), Point(3), (1, 2), object(), np.zeros(2), True, None, 10**30]
    seen = conversation([{"role": "user", "content": values}])[0]["content"]
    assert seen == ["red", 0.5, False, {"x": 3}, (1, 2), "<object>", "<ndarray>", True, None, 10**30]
    assert [type(v) for v in seen[:3]] == [str, float, bool]
    assert conversation([{"role": "user", "content": None}]) == [{"role": "user"}]


def test_the_settings_are_transformers_own():
    assert (
        render("{% for i in range(9) %}\n  {% if i == 2 %}{% break %}{% endif %}\n{{ i }}\n{% endfor %}\n") == "0\n1\n"
    )
    assert render("{{ {'a': '<ü>'}|tojson }}") == '{"a": "<ü>"}'
    assert render("{{ [1]|tojson(indent=2) }}") == "[\n  1\n]"
    assert len(render("{{ strftime_now('%Y') }}")) == 4
    assert render("{{ dict(a=1)|tojson }}{{ dict.fromkeys(['b'])|tojson }}") == '{"a": 1}{"b": null}'
    assert render("{% generation %}x{% endgeneration %}") == "x"
    assert render("{{ missing }}|{{ bos_token }}") == "|<|begin_of_text|>"
    assert render("{{ '{{\"a\": {}}}'.format(1) }}") == '{"a": 1}'
    assert render("{{ '%s-%03d' % ('a', 7) }}{{ '{:>4}'.format('b') }}{{ 'c'|center(5) }}") == "a-007   b  c  "
    assert render("{{ ['a', 'b']|join(', ') }}{{ ', '.join(['a', 'b']) }}{{ 'aa'|replace('a', 'b') }}") == "a, ba, bbb"


DOUBLING = "{%% set n = namespace(s=%s) %%}{%% for i in range(60) %%}{%% set n.s = %s %%}{%% endfor %%}"
NESTED = DOUBLING % ("[1]", "[n.s, n.s]")
HOSTILE = {
    "syntax": "{% for %}",
    "unknown filter": "{{ 1|nonsense }}",
    "type error": "{{ 1 + 'a' }}",
    "loops for ever": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops in a macro": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursive loop": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "long range": "{{ range(10**9)|list }}",
    "repeated string": "{{ 'a' * 10**12 }}",
    "repeated list": "{{ [1] * 10**12 }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "doubling": DOUBLING % ("'aaaaaaaa'", "n.s ~ n.s"),
    "doubling by plus": DOUBLING % ("'aaaaaaaa'", "n.s + n.s"),
    "doubling a list": DOUBLING % ("[1]", "n.s + n.s"),
    "nested lists": NESTED + "{{ n.s }}",
    "nested as json": NESTED + "{% set a = n.s|tojson %}",
    "nested as string": NESTED + "{% set a = n.s ~ '' %}",
    "nested formatted": NESTED + "{% set a = '%s' % (n.s,) %}{% set b = '{}'.format(n.s) %}",
    "output": "{% for i in range(9999) %}{{ 'aaaaaaaaaa' * 9999 }}{% endfor %}",
    "center": "{{ 'a'|center(10**10) }}",
    "constant center": "{{ 'a'|center(10000000000) }}",
    "center method": "{{ 'a'.center(10000000000) }}",
    "zfill": "{{ 'a'.zfill(10000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(10000000000) }}",
    "indent": "{{ ('a\n' * 10000)|indent(10000000) }}",
    "json indent": "{{ [1, 2]|tojson(indent=10000000000) }}",
    "batch": "{{ [1]|batch(10000000000, 1)|list }}",
    "slice": "{{ [1]|slice(10000000000)|list }}",
    "percent width": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (1000000000, 1) }}",
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "format nested width": "{{ '{:{}}'.format(1, 1000000000) }}",
    "format map nested width": "{{ '{:{a}}'.format_map({'a': 1000000000}) }}",
    "format filter": "{{ '%1000000000d'|format(1) }}",
    "replace": "{{ ('a' * 10000000).replace('a', 'b' * 10000000) }}",
    "replace filter": "{{ ('a' * 10000000)|replace('a', 'b' * 10000000) }}",
    "join": "{{ ('b' * 10000000).join(['a'] * 10000) }}",
    "join filter": "{{ (['a'] * 10000)|join('b' * 10000000) }}",
    "subclasses": "{{ ().__class__.__base__.__subclasses__() }}",
    "class": "{{ ''.__class__.__mro__ }}",
    "init": "{{ self.__init__.__globals__ }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "namespace": "{% set n = namespace(__class__=1) %}",
    "namespace item": "{% set n = namespace() %}{% set n.__init__ = 1 %}",
    "mutation": "{{ messages.append(1) }}",
    "dict type": "{{ dict.mro() }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends '/etc/passwd' %}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_templates_end_in_an_error(source, monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_STEPS", 100_000)
    monkeypatch.setattr(sandbox, "MOST_SIZE", 1_000_000)
    with pytest.raises(TemplateError, match=r"^chat template: "):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '{a.__class__}'.format_map({'a': 1}) }}",
        "{{ raise_exception.__globals__ }}",
        "{{ ''|attr('__class__') }}",
    ],
)
def test_private_attributes_are_not_there(source):
    assert render(source) == ""


def test_a_template_that_takes_too_long_is_stopped_by_the_clock(monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.05)
    with pytest.raises(TemplateError, match="steps or"):
        render(HOSTILE["loops for ever"])


def test_limits_are_of_one_rendering(monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_STEPS", 400)
    for _ in range(5):
        assert render("{% for i in range(100) %}{{ i }}{% endfor %}").endswith("99")
