"""Tokenizers into GGUF's metadata: the way back from ``gguf_tokenizer.py``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tallow.errors import WeightsError
from tallow.text.language import Text
from tallow.text.sentencepiece import adds_space
from tallow.text.splits import DIGIT, DIGITS, GPT2, SPLITS, Split

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)


def gguf_text(text: Text, vocab: int) -> dict[str, Any]:
    """The metadata of a model's tokenizer and chat template.

    Args:
        text: of the model.
        vocab: tokens that the model has; ids without a token get a placeholder.

    Raises:
        WeightsError: for a tokenizer that splits text in a way for which GGUF has no name that Tallow knows.
    """
    data = json.loads(text.tokenizer.to_json())
    model = data["model"]
    ids: dict[str, int] = model["vocab"] | {entry["content"]: entry["id"] for entry in data["added_tokens"]}
    tokens = [f"[PAD{id}]" for id in range(vocab)]
    types = [_UNUSED] * vocab
    for token, id in ids.items():
        tokens[id], types[id] = token, _NORMAL
    for entry in data["added_tokens"]:
        types[entry["id"]] = _CONTROL if entry["special"] else _USER_DEFINED
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    said: dict[str, Any] = {"tokens": tokens, "token_type": types}
    if model.get("byte_fallback"):
        said |= {"model": "llama", "scores": _scores(tokens, types, merges), "add_space_prefix": adds_space(data)}
        said["token_type"] = [_BYTE if t == _NORMAL and _is_byte(s) else t for s, t in zip(tokens, types, strict=True)]
    else:
        said |= {"model": "gpt2", "pre": _split_name(data, text.where), "merges": [" ".join(pair) for pair in merges]}
    said |= _special(text, ids)
    result = {f"tokenizer.ggml.{key}": value for key, value in said.items()}
    return result | _templates(text.templates.sources)


def _templates(sources: Mapping[str, str]) -> dict[str, Any]:
    """Chat templates, as ``gguf-py`` writes them: names of letters, digits and ``_``, which a list tells too."""
    named = {re.sub("[^A-Za-z0-9]", "_", name): text for name, text in sources.items() if name != "default"}
    result: dict[str, Any] = {f"tokenizer.chat_template.{name}": text for name, text in named.items()}
    if named:
        result["tokenizer.chat_templates"] = sorted(named)
    if "default" in sources:
        result["tokenizer.chat_template"] = sources["default"]
    return result


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _scores(tokens: Sequence[str], types: Sequence[int], merges: Sequence[Sequence[str]]) -> list[float]:
    """Scores that order tokens as the merges do: −1 for what the first one makes, and so on."""
    first: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        first.setdefault(left + right, rank)
    last = len(merges)
    return [-float(first.get(token, last) + 1) if t == _NORMAL else 0.0 for token, t in zip(tokens, types, strict=True)]


def _split_name(data: Mapping[str, Any], where: str) -> str:
    """GGUF's name for how a ``tokenizer.json`` splits text."""
    steps = data.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    patterns = tuple(pattern for step in steps if (pattern := _pattern(step)) != "")
    composed = "NFC" in json.dumps(data.get("normalizer"))
    fitting = [name for name, split in SPLITS.items() if split.patterns == patterns]
    if fitting:
        wanted = bool(data["model"].get("ignore_merges")), composed
        return max(fitting, key=lambda name: _likeness(SPLITS[name], wanted))
    raise WeightsError(f"{where}: its tokenizer splits text in a way for which GGUF has no name that Tallow knows")


def _pattern(step: Mapping[str, Any]) -> str | None:
    """The pattern of a step of a ``pre_tokenizer``: nothing for one that only spells bytes, None if it has none."""
    match step.get("type"):
        case "Split":
            pattern = step["pattern"].get("Regex")
            return pattern if isinstance(pattern, str) else None
        case "Digits":
            return DIGIT if step.get("individual_digits") else DIGITS
        case "ByteLevel":
            return GPT2 if step.get("use_regex", True) else ""
    return None


def _likeness(split: Split, wanted: tuple[bool, bool]) -> tuple[bool, bool]:
    return split.ignore_merges == wanted[0], split.composed == wanted[1]


def _special(text: Text, ids: Mapping[str, int]) -> dict[str, Any]:
    """The ids of special tokens, and which of them go around a text."""
    said: dict[str, Any] = {}
    tokens = text.templates.tokens
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        if (id := ids.get(tokens.get(f"{key}_token", ""))) is not None:
            said[f"{name}_token_id"] = id
    if "eos_token_id" not in said and text.eos_token_ids:
        said["eos_token_id"] = min(text.eos_token_ids)
    before, after = text.tokenizer.before, text.tokenizer.after
    said |= {"add_bos_token": bool(before), "add_eos_token": bool(after)}
    if before:
        said["bos_token_id"] = before[0]
    if after:
        said["eos_token_id"] = after[0]
    return said
