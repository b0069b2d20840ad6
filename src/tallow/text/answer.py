"""What a model wrote, taken apart: reasoning, and the answer itself."""

from __future__ import annotations

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
