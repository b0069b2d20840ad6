"""Chat templates: a conversation written out as a model was trained to read it.

Templates come with a model, are written in Jinja2, and are code that nobody has checked. They are rendered as
Transformers renders them (``utils/chat_template_utils.py``), in Jinja's sandbox, and within limits: of steps, of time,
and of the size of what they build.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tallow.errors import ArgumentError, TemplateError
from tallow.weights.source import short

REASONING = ("reasoning_content", "thinking", "reasoning")  # names of a message's reasoning, the usual one first


class ChatTemplate:
    """A model's template, or its templates: some models have one of their own for tools.

    Args:
        source: the template, or templates by name: ``"default"``, ``"tool_use"``, …; there may be none.
        tokens: texts of special tokens that templates use: ``bos_token``, ``eos_token``, ….
    """

    def __init__(self, source: str | Mapping[str, str], tokens: Mapping[str, str] | None = None) -> None:
        self.sources = {"default": source} if isinstance(source, str) else dict(source)
        self.tokens = dict(tokens or {})

    def chosen(self, tools: Any = None, choice: str | None = None) -> ChatTemplate:
        """The one template for a conversation, as Transformers chooses it (``get_chat_template``).

        Args:
            tools: what the model may call; ``"tool_use"`` is for conversations with any.
            choice: a template's name, or the text of another template; None for ``"tool_use"`` or ``"default"``.

        Raises:
            TemplateError: for a name that is none of the templates, and where there is no default.
        """
        name = choice or ("tool_use" if tools and "tool_use" in self.sources else "default")
        if name in self.sources:
            return ChatTemplate(self.sources[name], self.tokens)
        if choice and "{" in choice:
            return ChatTemplate(choice, self.tokens)
        known = ", ".join(map(short, self.sources)) or "it has none"
        raise TemplateError(
            f"no {short(name)} among the model's chat templates ({known}); "
            "chat_template= takes one of their names, or a template's text"
        )

    def render(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Write a conversation out.

        Args:
            messages: each with ``role`` and ``content``, and whatever else the template reads (``tool_calls``, …);
                or a string, which stands for one message by the user.
            tools: JSON schemas of functions that the model may call.
            add_generation_prompt: whether to end with what introduces the assistant's answer.
            variables: what else the template reads, such as ``enable_thinking=False``.

        Raises:
            ArgumentError: for messages or tools of the wrong form.
            TemplateError: if the template refuses the conversation (the message is the template's own), is damaged,
                reaches for what the sandbox forbids, or exceeds a limit.
        """
        from tallow.text.sandbox import render

        given = {
            **self.tokens,
            **_plain(variables),
            "messages": conversation(messages),
            "tools": _tools(tools),
            "documents": _plain(variables.get("documents")),
            "add_generation_prompt": add_generation_prompt,
        }
        return render(self.chosen(tools).sources["default"], given)

    def reads(self, variable: str) -> bool:
        """Whether a template reads a variable, such as ``tools``. Raises TemplateError for one that is damaged."""
        from tallow.text.sandbox import variables

        return any(variable in variables(source) for source in self.sources.values())

    def mentions(self, text: str) -> bool:
        """Whether a text, such as ``</think>``, stands in a template."""
        return any(text in source for source in self.sources.values())


def conversation(messages: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as templates see them: plain data, without values of None, reasoning under each of its names.

    Raises:
        ArgumentError: if there is none, or one is no message.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not messages or not all(isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in messages):
        raise ArgumentError("chat: expected messages such as [{'role': 'user', 'content': 'Hello'}], or a string")
    result = []
    for message in messages:
        said = {key: value for key, value in _plain(message).items() if value is not None}
        reasoning = next((said[key] for key in REASONING if key in said), None)
        if reasoning is not None:
            said = {"thinking": reasoning, **said, "reasoning_content": reasoning}
        result.append(said)
    return result


def _tools(tools: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    if tools is None:
        return None
    if isinstance(tools, (str, Mapping)) or not all(isinstance(tool, Mapping) for tool in tools):
        raise ArgumentError("chat: tools must be a list of JSON schemas, such as [{'type': 'function', …}]")
    return [_plain(tool) for tool in tools]


@functools.singledispatch
def _plain(value: Any) -> Any:
    """A value rebuilt out of plain JSON types: other objects have methods that a template could call."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return f"<{type(value).__name__}>"


@_plain.register(type(None))
@_plain.register(bool)
def _(value: Any) -> Any:
    return value


@_plain.register(str)
def _(value: Any) -> Any:
    return str.__str__(value)


@_plain.register(int)
def _(value: Any) -> Any:
    return int.__int__(value)


@_plain.register(float)
def _(value: Any) -> Any:
    return float.__float__(value)


@_plain.register(np.generic)
def _(value: Any) -> Any:
    return _plain(value.item())


@_plain.register(Mapping)
def _(value: Any) -> Any:
    return {_plain(key): _plain(item) for key, item in value.items()}


@_plain.register(list)
def _(value: Any) -> Any:
    return [_plain(item) for item in value]


@_plain.register(tuple)
def _(value: Any) -> Any:
    return tuple(_plain(item) for item in value)
