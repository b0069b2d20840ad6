"""Answers that must follow a JSON schema, a regular expression or a grammar, through ``llguidance``."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from tallow.errors import ArgumentError
from tallow.text.language import Text

Array = np.ndarray[Any, Any]
_WHITESPACE = r" |\n {0,40}"  # between the parts of a JSON text; without a bound a model might write it for ever


class Grammar:
    """What an answer must look like.

    Args:
        schema: a JSON schema, as a dictionary or as text.
        regex: a regular expression that the whole answer matches.
        grammar: a grammar in Lark's notation, as llguidance reads it.

    Raises:
        ArgumentError: unless exactly one is given, or if llguidance is not installed.
    """

    def __init__(
        self, schema: Mapping[str, Any] | str | None = None, regex: str | None = None, grammar: str | None = None
    ) -> None:
        if sum(given is not None for given in (schema, regex, grammar)) != 1:
            raise ArgumentError("an answer can follow one of schema, regex and grammar, not several")
        library = _library()
        try:
            if schema is not None:
                text = schema if isinstance(schema, str) else json.dumps(schema)
                if not isinstance(json.loads(text), dict):
                    raise ValueError("a schema is an object")
                self.source: str = library.LLMatcher.grammar_from_json_schema(text, {"whitespace_pattern": _WHITESPACE})
            elif regex is not None:
                self.source = library.LLMatcher.grammar_from_regex(regex)
            else:
                self.source = library.LLMatcher.grammar_from_lark(grammar)
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"not a JSON schema: {error}") from None

    def matcher(self, text: Text, vocab: int) -> Matcher:
        """Follow one answer.

        Args:
            text: the model's tokenizer and the ids that end an answer.
            vocab: how many logits the model gives.

        Raises:
            ArgumentError: if the schema or grammar is not one.
        """
        library = _library()
        native = library.LLMatcher(_tokenizer(text, vocab), self.source, log_level=0)
        if native.is_error():
            raise ArgumentError(f"schema or grammar: {native.get_error().strip()}")
        return Matcher(native, vocab, text.eos_token_ids)


class Matcher:
    """Follows one answer and says what may come next."""

    def __init__(self, native: Any, vocab: int, ends: frozenset[int]) -> None:
        self._native = native
        self._mask = np.zeros((vocab + 31) // 32, np.int32)
        self._vocab = vocab
        self._ends = np.array(sorted(ends), np.int64)

    def allowed(self, logits: Array) -> Array:
        """Logits (vocab,) float32 with −inf for what may not come: a copy."""
        if self._native.is_stopped():
            allowed = np.zeros(self._vocab, bool)
            allowed[self._ends] = True
        else:
            self._native.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
            allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: self._vocab].astype(bool)
        return np.where(allowed, logits, np.float32(-np.inf))

    def accept(self, id: int) -> None:
        """Say what has come."""
        if not self._native.is_stopped():
            self._native.consume_token(id)

    @property
    def finished(self) -> bool:
        """Whether nothing more may come."""
        return bool(self._native.is_stopped())


class _Wrapped:
    """A ``Tokenizer`` as llguidance wants one."""

    def __init__(self, text: Text, vocab: int) -> None:
        tokenizer = text.tokenizer
        self._tokenizer = tokenizer
        self.eos_token_id = min(text.eos_token_ids, default=0)
        self.bos_token_id = None
        self.special_token_ids = sorted(tokenizer.special | text.eos_token_ids)
        self.tokens = [tokenizer.decode_bytes([id], skip_special=False) for id in range(vocab)]

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode())


_made: weakref.WeakKeyDictionary[Text, Any] = weakref.WeakKeyDictionary()


def _tokenizer(text: Text, vocab: int) -> Any:
    """llguidance's form of a vocabulary, made once for each model: it takes a good part of a second."""
    made = _made.get(text)
    if made is None or made.vocab_size != vocab:
        library = _library()
        wrapped = library.TokenizerWrapper(_Wrapped(text, vocab))
        made = _made[text] = library.LLTokenizer(wrapped, eos_token=sorted(text.eos_token_ids) or None)
    return made


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise ArgumentError(
            "answers that follow a schema or a grammar need llguidance: pip install 'tallow[grammar]'"
        ) from None
    return llguidance
