"""What a model wrote, taken apart: reasoning, tool calls, and the answer itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_OPEN, _CLOSE = "<think>", "</think>"


def split_reasoning(text: str, prompt: str = "") -> tuple[str | None, str]:
    """Separate what a model thought from what it answered.

    Args:
        text: what it wrote: ``<think>…</think>answer``. Some prompts already end with the opening tag.
        prompt: what it wrote that behind.

    Returns:
        The reasoning, None if there is none; the answer. An answer that was cut off while thinking is empty.
    """
    opened = text.lstrip().startswith(_OPEN)
    begun = opened or prompt.rstrip().endswith(_OPEN)
    before, closed, after = text.partition(_CLOSE)
    if not closed and not begun:
        return None, text
    reasoning = before.lstrip()[len(_OPEN) :] if opened else before
    return reasoning.strip("\n"), after.lstrip("\n")


def split_tool_calls(text: str, names: set[str]) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """Separate the calls of functions from the rest.

    Args:
        text: with ``<tool_call>{"name": …, "arguments": …}</tool_call>`` (Qwen, and what Hermes began), or as a whole
            one such JSON object or a list of them, with ``parameters`` instead of ``arguments`` too (Llama 3, Mistral).
        names: of the functions that there are. What is written like a call of another is left in the text.

    Returns:
        (name, arguments) of each call; the text without them.
    """
    calls: list[tuple[str, dict[str, Any]]] = []

    def take(match: re.Match[str]) -> str:
        found = list(_calls(match[1], names))
        calls.extend(found)
        return "" if found else match[0]

    rest = _CALL.sub(take, text)
    if not calls and text.lstrip()[:1] in ("{", "["):
        calls = list(_calls(text, names))
        rest = "" if calls else text
    return calls, rest.strip() if calls else text


def _calls(text: str, names: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The calls that a piece of JSON says; none if it is not JSON or says something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict) or item.get("name") not in names:
            return
        arguments = item.get("arguments", item.get("parameters", {}))
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                return
        if isinstance(arguments, dict):
            yield str(item["name"]), arguments
