"""Calls of functions in what a model wrote.

There are several published forms. Which of them a model writes is told by its chat template, which writes the calls of
earlier turns in the same form. Sources: the chat templates of Hermes 2 Pro, Qwen2.5, Qwen3 and SmolLM2 (JSON in tags),
Qwen3-Coder (parameters in tags), Llama 3.1 (JSON alone), Mistral 7B v0.3 to Mistral Small 3.2, Llama Nemotron,
DeepSeek R1 and V3.1.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class ToolCall(NamedTuple):
    """A function that the model wants called.

    Attributes:
        name: of the function.
        arguments: for it.
        id: by which the function's result will be known, if the model gave one.
    """

    name: str
    arguments: dict[str, Any]
    id: str | None = None


Tools = Mapping[str, Mapping[str, Any]]  # a function's name -> JSON schemas of its parameters by name
Found = tuple[list[ToolCall], int] | None  # calls and the position after them; None where the text is none of the form


class Form(NamedTuple):
    """A published form of calls.

    Attributes:
        sign: a text that templates of this form hold.
        opening: a regular expression for what stands before a call.
        read: (text, position after the opening, tools) -> what is found there.
        marks: texts that are special tokens in some vocabularies, and that decoding would leave out.
    """

    sign: str
    opening: str
    read: Callable[[str, int, Tools], Found]
    marks: tuple[str, ...]


def signatures(tools: Iterable[Mapping[str, Any]]) -> Tools:
    """The parameters of each function, out of JSON schemas with or without ``{"type": "function", "function": …}``."""
    found = {}
    for tool in tools:
        function = _mapping(tool.get("function", tool))
        found[str(function.get("name"))] = _mapping(_mapping(function.get("parameters")).get("properties"))
    return found


def marks(template: str) -> set[str]:
    """What must be left in a decoded answer, special token or not, for its calls to be found."""
    return {mark for form in _forms(template) for mark in form.marks}


def split_tool_calls(text: str, tools: Tools, template: str) -> tuple[list[ToolCall], str]:
    """Separate the calls of functions from the rest.

    Args:
        text: what the model wrote.
        tools: the functions that there are, from ``signatures``.
        template: the chat template that told the model of them.

    Returns:
        The calls in their order; the text without them. What is written like a call, but is damaged, cut off or names
        another function, is left in the text as it is. An answer that is nothing but JSON in the shape of calls is
        taken whatever the template.
    """
    alone = _json_calls(text, 0, tools)
    if alone is not None and not text[alone[1] :].strip(" \t\r\n;"):
        return alone[0], ""
    forms = _forms(template)
    if not forms:
        return [], text
    openings = re.compile("|".join(f"(?P<form{i}>{form.opening})" for i, form in enumerate(forms)))
    calls: list[ToolCall] = []
    kept, at, end = [], 0, 0  # texts between calls; where to look on; where the last call ended
    while match := openings.search(text, at):
        found = forms[int(str(match.lastgroup)[4:])].read(text, match.end(), tools)
        if found is None or not found[0]:  # what stands inside of another function's call is no call
            at = max(match.end(), match.start() + 1) if found is None else found[1]
            continue
        kept.append(text[end : match.start()])
        calls += found[0]
        at = end = found[1]
    rest = "".join([*kept, text[end:]])
    return calls, rest.strip() if calls else text


def _forms(template: str) -> list[Form]:
    return [form for form in FORMS if form.sign in template]


_DECODER = json.JSONDecoder(strict=False)  # models leave line breaks in strings as they are
_BETWEEN = re.compile(r"[\s;]*")


def _json(text: str, at: int) -> tuple[Any, int]:
    """The JSON value at a position, and the position after it. Raises ValueError if there is none."""
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _json_calls(text: str, at: int, tools: Tools) -> Found:
    """JSON objects of calls, or lists of them: one after the other, as Qwen writes, or with semicolons, as Llama."""
    calls: list[ToolCall] = []
    end = at
    while text.startswith(("{", "["), begin := _after(_BETWEEN, text, end)):
        try:
            value, end = _json(text, begin)
        except ValueError:
            return None
        for item in value if isinstance(value, list) else [value]:
            said = _mapping(item)
            call = _call(said.get("name"), said.get("arguments", said.get("parameters")), said.get("id"), tools)
            if call is None:
                return None
            calls.append(call)
    return (calls, end) if calls else None


def _call(name: Any, arguments: Any, id: Any, tools: Tools) -> ToolCall | None:
    """A call, if it is of one of the functions and its arguments are an object (or JSON of one)."""
    if isinstance(arguments, str):
        try:
            arguments = _json(arguments.strip(), 0)[0]
        except ValueError:
            return None
    arguments = {} if arguments is None else arguments
    if not isinstance(name, str) or name not in tools or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments, id if isinstance(id, str) else None)


def _json_in_tags(text: str, at: int, tools: Tools, opening: str, closing: str) -> Found:
    """JSON that ends with a tag; or without it, at the end of the answer or where the next call begins."""
    found = _json_calls(text, at, tools)
    if found is None:
        return None
    calls, end = found
    rest = _after(_BETWEEN, text, end)
    if text.startswith(closing, rest):
        return calls, rest + len(closing)
    return (calls, end) if rest == len(text) or text.startswith(opening, rest) else None


_FUNCTION = re.compile(r"\s*([^>\n]+?)\s*>")
_PARAMETER = re.compile(
    r"\s*<parameter=([^>\n]+)>\n?((?:(?!<parameter=).)*?)\n?</parameter>(?=\s*(?:<parameter=|</function>))", re.DOTALL
)
_FUNCTION_END = re.compile(r"\s*</function>(?:\s*</tool_call>)?")


def _parameters_in_tags(text: str, at: int, tools: Tools) -> Found:
    """``name>``, ``<parameter=city>…</parameter>`` for each, ``</function>``; values that are no text are JSON."""
    function = _FUNCTION.match(text, at)
    if function is None:
        return None
    arguments, end = {}, function.end()
    schemas = tools.get(function[1], {})
    while parameter := _PARAMETER.match(text, end):
        arguments[parameter[1]] = _value(parameter[2], _mapping(schemas.get(parameter[1])))
        end = parameter.end()
    last = _FUNCTION_END.match(text, end)
    call = _call(function[1], arguments, None, tools)
    return None if last is None else ([call] if call else [], last.end())


_LITERALS = {"True": True, "False": False}  # as templates write them, where they use no tojson


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """A parameter's value; text where its schema says so, or says nothing."""
    options = [schema, *_list(schema.get("anyOf")), *_list(schema.get("oneOf"))]
    types = [kind for option in options for kind in _list(_mapping(option).get("type"))]
    if text in ("null", "None") and "null" in types:
        return None
    if not types or "string" in types:
        return text
    if text in _LITERALS:
        return _LITERALS[text]
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return text


_MISTRAL_HEAD = re.compile(r"([\w.-]+)\s*(?:\[CALL_ID\]\s*(\w+)\s*)?(?:\[ARGS\]\s*)?(?=\{)")


def _mistral(text: str, at: int, tools: Tools) -> Found:
    """A JSON list of calls; or since 2025 a name, for some models an id, and the arguments."""
    return _json_calls(text, at, tools) or _named(text, at, tools, _MISTRAL_HEAD)


_DEEPSEEK_HEAD = re.compile(r"\s*(?:function<｜tool▁sep｜>)?\s*([\w.-]+)()\s*(?:<｜tool▁sep｜>|```json)\s*(?=\{)")
_DEEPSEEK_END = re.compile(r"\s*(?:```\s*)?(?:<｜tool▁call▁end｜>\s*(?:<｜tool▁calls▁end｜>)?|\Z)")


def _deepseek(text: str, at: int, tools: Tools) -> Found:
    found = _named(text, at, tools, _DEEPSEEK_HEAD)
    end = None if found is None else _DEEPSEEK_END.match(text, found[1])
    return None if found is None or end is None else (found[0], end.end())


def _named(text: str, at: int, tools: Tools, head: re.Pattern[str]) -> Found:
    """A head with the function's name and an id, which may be empty; then its arguments as a JSON object."""
    begin = head.match(text, at)
    if begin is None:
        return None
    try:
        arguments, end = _json(text, begin.end())
    except ValueError:
        return None
    call = _call(begin[1], arguments, begin[2] or None, tools)
    return None if call is None else ([call], end)


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    """The position after a pattern that always matches."""
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _tags(opening: str, closing: str) -> Form:
    read = functools.partial(_json_in_tags, opening=opening, closing=closing)
    return Form(opening, re.escape(opening), read, (opening, closing))


FORMS = (
    Form("<function=", r"(?:<tool_call>\s*)?<function=", _parameters_in_tags, ("<tool_call>", "</tool_call>")),
    _tags("<tool_call>", "</tool_call>"),
    _tags("<TOOLCALL>", "</TOOLCALL>"),
    Form("<|python_tag|>", r"<\|python_tag\|>", _json_calls, ("<|python_tag|>",)),
    Form(
        "[TOOL_CALLS]",
        r"\[TOOL_CALLS\]\s*|(?<![\w.-])(?=[\w.-]+\s*(?:\[CALL_ID\]\s*\w+\s*)?\[ARGS\])",
        _mistral,
        ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    ),
    Form(
        "<｜tool▁call▁begin｜>",
        r"(?:<｜tool▁calls▁begin｜>\s*)?<｜tool▁call▁begin｜>",
        _deepseek,
        (
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
        ),
    ),
)
