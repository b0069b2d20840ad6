"""Prompts as callers give them -> ids that a model can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tallow.errors import ArgumentError
from tallow.text.language import Text

Prompt = str | Sequence[int]


def token_ids(prompt: Prompt | Sequence[Prompt], text: Text, vocab: int) -> tuple[list[list[int]], bool]:
    """The ids of a prompt, or of each of several.

    Args:
        prompt: a text or its ids, or a list of them.
        text: the model's tokenizer.
        vocab: tokens that the model has.

    Returns:
        A list of ids for each prompt; whether there was one prompt, not a list.

    Raises:
        ArgumentError: for what is no prompt, is empty, or has ids that the model doesn't have.
        WeightsError: for text without a tokenizer.
    """
    prompt = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    single = isinstance(prompt, str) or (len(prompt) > 0 and _is_id(prompt[0]))
    prompts: Sequence[Any] = [prompt] if single else prompt
    if not prompts:
        raise ArgumentError("the list of prompts is empty")
    return [_one(item, text, vocab) for item in prompts], single


def _one(prompt: Any, text: Text, vocab: int) -> list[int]:
    if isinstance(prompt, str):
        ids = [*text.tokenizer.before, *text.tokenizer.encode(prompt, special=True)]
    else:
        prompt = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        ids = [int(id) if _is_id(id) else -1 for id in prompt]
    if not ids:
        raise ArgumentError("the prompt is empty; a model needs at least one token to go on from")
    if min(ids) < 0 or max(ids) >= vocab:
        wrong = next(given for given, id in zip(prompt, ids, strict=False) if not 0 <= id < vocab)
        raise ArgumentError(f"the prompt holds {wrong!r}; the model's token ids are 0 to {vocab - 1}")
    return ids


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def fit(ids: list[int], context: int, max_tokens: int, truncate: bool) -> list[int]:
    """A prompt that leaves room for at least one token of the answer.

    Args:
        ids: the prompt.
        context: tokens that prompt and answer may have together.
        max_tokens: of the answer.
        truncate: whether to cut a longer prompt, keeping its end, and leaving room for the answer (half of the context
            at most).

    Raises:
        ArgumentError: for a longer prompt that may not be cut; it gives both lengths.
    """
    if len(ids) < context:
        return ids
    if not truncate:
        raise ArgumentError(
            f"the prompt has {len(ids):,} tokens, and the model's context holds {context:,}, the answer included; "
            "shorten it, or pass truncate=True to keep its end"
        )
    return ids[-(context - max(1, min(max_tokens, context // 2))) :]
