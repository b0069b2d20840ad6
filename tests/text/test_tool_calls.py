"""Calls as the published chat templates write them, and as models spoil them."""

import json

import pytest

from tallow.text.answer import split_reasoning
from tallow.text.chat_template import ChatTemplate
from tallow.text.tool_calls import FORMS, ToolCall, marks, signatures, split_tool_calls

from .conversations import TEMPLATES, WEATHER, assistant, user

NOTE = {"name": "note", "parameters": {"properties": {
    "text": {"type": "string"}, "count": {"type": "integer"}, "exact": {"type": "boolean"}, "tags": {"type": "array"},
    "until": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "any": {}, "more": {"type": ["object", "null"]},
}}}  # fmt: skip
TOOLS = signatures([WEATHER, NOTE])
CALL = '{"name": "weather", "arguments": {"city": "Łódź"}}'
WANTED = ToolCall("weather", {"city": "Łódź"})

# How templates write a call, cut down to that; the committed ones are whole.
XML = (
    "{% for c in calls %}<tool_call>\n<function={{ c.name }}>\n{% for k, v in c.arguments|items %}<parameter={{ k }}>\n"
    "{{ v|tojson if v is mapping or (v is sequence and v is not string) else v|string }}\n</parameter>\n{% endfor %}"
    "</function>\n</tool_call>\n{% endfor %}"
)
NEMOTRON = "<TOOLCALL>[{% for c in calls %}{{ c|tojson }}{{ ', ' if not loop.last }}{% endfor %}]</TOOLCALL>"
MISTRAL_LIST = "[TOOL_CALLS] [{% for c in calls %}{{ c|tojson }}{{ ', ' if not loop.last }}{% endfor %}]"
MISTRAL = "{% for c in calls %}[TOOL_CALLS]{{ c.name }}[ARGS]{{ c.arguments|tojson }}{% endfor %}"
MISTRAL_ID = "{% for c in calls %}[TOOL_CALLS]{{ c.name }}[CALL_ID]a1B2c3D4{{ loop.index }}[ARGS]{{ c.arguments|tojson }}{% endfor %}"  # fmt: skip  # noqa: E501
MISTRAL_BARE = "{% for c in calls %}[TOOL_CALLS]{{ c.name }}{{ c.arguments|tojson }}{% endfor %}"
DEEPSEEK_R1 = (
    "<｜tool▁calls▁begin｜>{% for c in calls %}<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ c.name }}\n```json\n"
    "{{ c.arguments|tojson }}\n```<｜tool▁call▁end｜>{{ '\n' if not loop.last }}{% endfor %}<｜tool▁calls▁end｜>"
)
DEEPSEEK_V3 = (
    "<｜tool▁calls▁begin｜>{% for c in calls %}<｜tool▁call▁begin｜>{{ c.name }}<｜tool▁sep｜>{{ c.arguments|tojson }}"
    "<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>"
)
LLAMA_TAG = (
    "<|python_tag|>{% for c in calls %}{{ {'name': c.name, 'parameters': c.arguments}|tojson }}"
    "{{ '; ' if not loop.last }}{% endfor %}"
)
WRITTEN = {
    "xml": XML, "nemotron": NEMOTRON, "mistral list": MISTRAL_LIST, "mistral": MISTRAL, "mistral ids": MISTRAL_ID,
    "mistral without marks": MISTRAL_BARE, "deepseek r1": DEEPSEEK_R1, "deepseek v3.1": DEEPSEEK_V3, "llama": LLAMA_TAG,
}  # fmt: skip
AWKWARD = {
    "plain": "milk",
    "tags": "a</tool_call>b<tool_call>c</TOOLCALL>[/TOOL_CALLS]<｜tool▁call▁end｜></parameter> x",
    "braces": '}} {"name": "weather", "arguments": {}} ]',
    "quotes": 'say "hi" \\ \\n',
    "lines": "one\ntwo\n\n  three",
    "letters": "ünï 東京 😀",
    "empty": "",
}


def write(source, calls):
    said = [{"name": call.name, "arguments": call.arguments} for call in calls]
    return ChatTemplate(source).render("x", calls=said)


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("source", WRITTEN.values(), ids=WRITTEN.keys())
def test_what_a_template_writes_is_read(source, text):
    calls = [
        ToolCall("note", {"text": text, "count": 3, "tags": ["a", text]}),
        ToolCall("weather", {"city": text, "days": 2} if source is not XML else {"city": text}),
        ToolCall("note", {}),
    ]
    written = write(source, calls)
    found, rest = split_tool_calls(written, TOOLS, source)
    assert ([(c.name, c.arguments) for c in found], rest) == ([(c.name, c.arguments) for c in calls], "")
    found, rest = split_tool_calls(f"Let me look.\n{written}", TOOLS, source)
    assert ([(c.name, c.arguments) for c in found], rest) == ([(c.name, c.arguments) for c in calls], "Let me look.")


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "llama3"])
def test_what_whole_templates_write_is_read(name, text):
    call = ToolCall("note", {"text": text, "count": 3, "more": {"a": [text, None, 1.5]}})
    many = 1 if name == "llama3" else 2
    function = {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    messages = [user("x"), assistant("", tool_calls=[function] * many)]
    before, after = (
        ChatTemplate(TEMPLATES[name], {"bos_token": ""}).render(said, add_generation_prompt=prompt, date_string="1 Jan")
        for said, prompt in ((messages[:1], True), (messages, False))
    )
    _, written = split_reasoning(after.removeprefix(before))
    for end in ("<|im_end|>\n", "<|eot_id|>"):
        written = written.removesuffix(end)
    assert split_tool_calls(written, TOOLS, TEMPLATES[name]) == ([call] * many, "")


def test_ids_are_kept():
    found, _ = split_tool_calls(write(MISTRAL_ID, [WANTED, WANTED]), TOOLS, MISTRAL_ID)
    assert [call.id for call in found] == ["a1B2c3D41", "a1B2c3D42"]
    text = '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Łódź"}, "id": "9Ae3bDc2F"}]'
    assert split_tool_calls(text, TOOLS, MISTRAL_LIST) == ([WANTED._replace(id="9Ae3bDc2F")], "")


HERMES = "<tool_call>"
SPOILT = {
    "two in one pair of tags": (HERMES, f"<tool_call>\n{CALL}\n{CALL}\n</tool_call>", [WANTED] * 2, ""),
    "a list in tags": (HERMES, f"<tool_call>[{CALL}, {CALL}]</tool_call>", [WANTED] * 2, ""),
    "no end tag": (HERMES, f"Let me look.\n<tool_call>\n{CALL}\n", [WANTED], "Let me look."),
    "no end tag between": (HERMES, f"<tool_call>{CALL}\n<tool_call>{CALL}</tool_call>", [WANTED] * 2, ""),
    "text on both sides": (HERMES, f"a <tool_call>{CALL}</tool_call> b", [WANTED], "a  b"),
    "a line break in a string": (
        HERMES, '<tool_call>{"name": "note", "arguments": {"text": "a\nb\tc"}}</tool_call>',
        [ToolCall("note", {"text": "a\nb\tc"})], "",
    ),
    "arguments as text": (
        HERMES, '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Łódź\\"}"}</tool_call>', [WANTED], "",
    ),
    "null": (HERMES, '<tool_call>{"name": "note", "arguments": null}</tool_call>', [ToolCall("note", {})], ""),
    "no arguments": (HERMES, '<tool_call>{"name": "note"}</tool_call>', [ToolCall("note", {})], ""),
    "the tag forgotten": (HERMES, CALL, [WANTED], ""),
    "alone, as a list": ("", f" [{CALL}, {CALL}]", [WANTED] * 2, ""),
    "llama": ("", '{"name": "weather", "parameters": {"city": "Łódź"}}', [WANTED], ""),
    "llama, several": ("", f"{CALL}; {CALL};\n{CALL}", [WANTED] * 3, ""),
    "mistral whose first mark was not written": (MISTRAL, 'weather[ARGS]{"city": "Łódź"}', [WANTED], ""),
    "xml without its outer tag": (
        XML, "<function=weather>\n<parameter=city>\nŁódź\n</parameter>\n</function>", [WANTED], "",
    ),
    "xml, two in one outer tag": (
        XML, "<tool_call>" + "<function=weather><parameter=city>Łódź</parameter></function>\n" * 2 + "</tool_call>",
        [WANTED] * 2, "",
    ),
    "deepseek without its ends": (
        DEEPSEEK_R1, '<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "Łódź"}\n```', [WANTED], "",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("template", "text", "calls", "rest"), SPOILT.values(), ids=SPOILT.keys())
def test_what_models_write(template, text, calls, rest):
    assert split_tool_calls(text, TOOLS, template) == (calls, rest)


LEFT = {
    "text": (HERMES, "plain"),
    "nothing": (HERMES, ""),
    "braces": (HERMES, 'In JSON: {"name": "weather", "arguments": {}} is a call.'),
    "other JSON": ("", '{"city": "Łódź"}'),
    "an empty list": ("", "[]"),
    "numbers": ("", "[1, 2]"),
    "JSON, then text": ("", f"{CALL} is what I would call."),
    "cut off": (HERMES, '<tool_call>{"name": "weather", "arguments": {"city": "Łó'),
    "damaged": (HERMES, '<tool_call>{"name": "weather", "argu</tool_call>'),
    "a brace too many": (HERMES, f"<tool_call>{CALL}}}</tool_call>"),
    "another function": (HERMES, '<tool_call>{"name": "other", "arguments": {}}</tool_call>'),
    "another function among them": (HERMES, f'<tool_call>[{CALL}, {{"name": "other"}}]</tool_call>'),
    "no name": (HERMES, '<tool_call>{"arguments": {}}</tool_call>'),
    "arguments that are no JSON": (HERMES, '<tool_call>{"name": "weather", "arguments": "none"}</tool_call>'),
    "arguments that are a list": (HERMES, '<tool_call>{"name": "weather", "arguments": [1]}</tool_call>'),
    "nested too deep": (HERMES, "<tool_call>" + "[" * 100_000),
    "nested too deep, alone": ("", "[" * 100_000),
    "a number too long": (HERMES, '<tool_call>{"name": "note", "arguments": {"n": ' + "9" * 5000 + "}}</tool_call>"),
    "another form than the template's": (MISTRAL, f"<tool_call>{CALL}</tool_call>"),
    "a template that writes no calls": ("{{ messages }}", '[TOOL_CALLS]weather[ARGS]{"city": "a"}'),
    "xml cut off after a parameter": (XML, "<tool_call>\n<function=weather>\n<parameter=city>\na\n</parameter>\n"),
    "xml with a parameter left open": (
        XML, "<function=note>\n<parameter=text>\na\n<parameter=count>\n1\n</parameter>\n</function>",
    ),
    "xml without an end of its name": (XML, "<function=weather"),
    "a call inside of another function's": (
        XML + HERMES, f"<function=other>\n<parameter=text>\n<tool_call>{CALL}</tool_call>\n</parameter>\n</function>",
    ),
    "mistral without arguments": (MISTRAL, "[TOOL_CALLS]weather"),
    "mistral cut off": (MISTRAL, '[TOOL_CALLS]weather[ARGS]{"city": "a'),
    "mistral, another function": (MISTRAL, '[TOOL_CALLS]other[ARGS]{"city": "a"}'),
    "python": (LLAMA_TAG, "<|python_tag|>print(1)"),
    "deepseek cut off": (DEEPSEEK_V3, '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city"'),
    "deepseek, then text": (DEEPSEEK_V3, "<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{} and so on"),
}  # fmt: skip


@pytest.mark.parametrize(("template", "text"), LEFT.values(), ids=LEFT.keys())
def test_what_is_no_call_is_left_as_it_is(template, text):
    assert split_tool_calls(text, TOOLS, template) == ([], text)


def test_a_damaged_call_stays_beside_a_good_one():
    damaged = '<tool_call>{"name": "weather", "argu</tool_call>'
    text = f"{damaged}\n<tool_call>{CALL}</tool_call>"
    assert split_tool_calls(text, TOOLS, HERMES) == ([WANTED], damaged)


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("count", "3", 3), ("count", "three", "three"), ("exact", "True", True), ("exact", "false", False),
        ("tags", '["a"]', ["a"]), ("until", "None", None), ("until", "3", "3"), ("text", "3", "3"),
        ("text", "None", "None"), ("any", "3", "3"), ("more", '{"a": 1}', {"a": 1}), ("more", "null", None),
        ("unknown", "{}", "{}"),         ("text", "\na\n", "\na\n"),
    ],
)  # fmt: skip
def test_parameters_in_tags_are_of_the_types_that_were_asked_for(name, written, value):
    text = f"<tool_call>\n<function=note>\n<parameter={name}>\n{written}\n</parameter>\n</function>\n</tool_call>"
    assert split_tool_calls(text, TOOLS, XML) == ([ToolCall("note", {name: value})], "")


def test_schemas_of_any_shape():
    assert signatures([{}, {"function": None}, {"name": "a", "parameters": 3}]) == {"None": {}, "a": {}}
    odd = signatures([{"name": "a", "parameters": {"properties": {"x": {"type": {}, "anyOf": 3}, "y": None}}}])
    text = "<function=a><parameter=x>1</parameter><parameter=y>2</parameter></function>"
    assert split_tool_calls(text, odd, XML)[0][0].arguments == {"x": 1, "y": "2"}


def test_marks_that_may_be_special_tokens():
    assert marks(MISTRAL) == {"[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"}
    assert marks("{{ messages }}") == set()


def test_every_form_is_tested():
    for form in FORMS:
        assert any(form.sign in template for template in (*WRITTEN.values(), *TEMPLATES.values()))


def test_many_openings_are_read_in_one_pass():
    text = "<tool_call>[" * 5_000 + json.dumps(AWKWARD)
    assert split_tool_calls(text, TOOLS, HERMES + XML + MISTRAL) == ([], text)
