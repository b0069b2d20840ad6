"""Tokenizers out of GGUF files, which hold vocabulary and merges, and the *name* of how text is split before that.

Source: github.com/ggml-org/llama.cpp, ``src/llama-vocab.cpp`` (names and what they mean) and ``gguf-py`` (keys).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from tallow.errors import WeightsError
from tallow.text.byte_pairs import SPLITS, WHOLE_WORDS, BytePairTokenizer, normalizer, pre_tokenizer
from tallow.text.sentencepiece import SentencePieceTokenizer, encoder_from_scores
from tallow.text.tokenizer import Tokenizer
from tallow.weights.gguf_header import StringArray
from tallow.weights.source import short

_CONTROL, _USER_DEFINED = 3, 4  # types of tokens: no text; text that is never split


def gguf_tokenizer(metadata: Mapping[str, Any], where: str) -> Tokenizer | None:
    """The tokenizer that a GGUF file holds.

    Args:
        metadata: of the file.
        where: what errors name.

    Returns:
        The tokenizer; None if the file has none.

    Raises:
        WeightsError: for a kind that Tallow has not, or a damaged one.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None or kind in ("none", "no_vocab"):
        return None
    if kind not in ("gpt2", "llama"):
        raise WeightsError(
            f"{where}: tokenizer of kind {short(kind)}; Tallow reads gpt2 (BPE) and llama (SentencePiece)"
        )
    said = _Vocabulary(metadata, where)
    added = {
        said.tokens[id]: id for id in np.flatnonzero((said.types == _CONTROL) | (said.types == _USER_DEFINED)).tolist()
    }
    special = np.flatnonzero(said.types == _CONTROL).tolist()
    if kind == "llama":
        vocab = {token: id for id, token in enumerate(said.tokens)}
        return SentencePieceTokenizer(vocab, added, special, functools.partial(_sentencepiece, said, added))
    around = [said.around("bos", False), said.around("eos", False)]
    encoder = functools.partial(_byte_level, said, added)
    return BytePairTokenizer(said.tokens, said.array("merges"), said.split(), added, special, around, encoder, where)


def _byte_level(said: _Vocabulary, added: dict[str, int]) -> Any:
    from tokenizers import Tokenizer as Encoder
    from tokenizers import decoders
    from tokenizers.models import BPE

    name = said.split()
    vocab = {token: id for id, token in enumerate(said.tokens)}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in said.array("merges"))]
    encoder = Encoder(BPE(vocab, merges, ignore_merges=name in WHOLE_WORDS))
    encoder.normalizer = normalizer(name)
    encoder.pre_tokenizer = pre_tokenizer(name)
    encoder.decoder = decoders.ByteLevel()
    return _finished(encoder, said, added, begins=False)


def _sentencepiece(said: _Vocabulary, added: dict[str, int]) -> Any:
    scores = said.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or len(scores) != len(said.tokens) or scores.dtype.kind != "f":
        raise WeightsError(
            f"{said.where}: tokenizer.ggml.scores must be a number for each of {len(said.tokens)} tokens"
        )
    spaced = said.metadata.get("tokenizer.ggml.add_space_prefix", True)
    encoder = encoder_from_scores(
        said.tokens.tolist(), scores.tolist(), said.token("unknown"), spaced=bool(spaced), where=said.where
    )
    return _finished(encoder, said, added, begins=True)


def _finished(encoder: Any, said: _Vocabulary, added: dict[str, int], begins: bool) -> Any:
    """An encoder with its special tokens, and with what it puts around a text."""
    from tokenizers import AddedToken, processors

    special = {token for token, id in added.items() if said.types[id] == _CONTROL}
    tokens = [AddedToken(token, special=token in special, normalized=False) for token in added]
    encoder.add_special_tokens([token for token in tokens if token.special])
    encoder.add_tokens([token for token in tokens if not token.special])
    begin, end = said.around("bos", begins), said.around("eos", False)
    if begin or end:
        around = {token: encoder.token_to_id(token) for token in (begin, end) if token}
        encoder.post_processor = processors.TemplateProcessing(
            single=[*([begin] if begin else []), "$A", *([end] if end else [])], special_tokens=list(around.items())
        )
    return encoder


class _Vocabulary:
    """A file's vocabulary, checked."""

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self.metadata = metadata
        self.where = where
        self.tokens = self.array("tokens")
        types = metadata.get("tokenizer.ggml.token_type")
        if types is None:
            types = np.ones(len(self.tokens), np.int32)
        if not isinstance(types, np.ndarray) or len(types) != len(self.tokens):
            raise WeightsError(f"{where}: tokenizer.ggml.token_type must be a number for each token")
        self.types = types

    def array(self, key: str) -> StringArray:
        """A list of strings."""
        values: Any = self.metadata.get(f"tokenizer.ggml.{key}")
        if not isinstance(values, StringArray):
            raise WeightsError(f"{self.where}: lacks tokenizer.ggml.{key}, a list of strings")
        return values

    def token(self, name: str) -> str | None:
        """The text of a special token, ``"bos"`` and so on; None if there is none."""
        id = self.metadata.get(f"tokenizer.ggml.{name}_token_id")
        return self.tokens[id] if type(id) is int and 0 <= id < len(self.tokens) else None

    def around(self, name: str, default: bool) -> str | None:
        """The special token that goes before (``"bos"``) or after (``"eos"``) a text, if one does."""
        return self.token(name) if self.metadata.get(f"tokenizer.ggml.add_{name}_token", default) else None

    def split(self) -> str:
        """The name of how text is split into words."""
        name = self.metadata.get("tokenizer.ggml.pre", "default")
        if not isinstance(name, str) or name not in SPLITS:
            raise WeightsError(f"{self.where}: text is split as {short(name)} says; Tallow knows {', '.join(SPLITS)}")
        return name
