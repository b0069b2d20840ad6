"""Tokenizers out of GGUF files, which hold vocabulary and merges, and the *name* of how text is split before that.

Source: github.com/ggml-org/llama.cpp, ``src/llama-vocab.cpp`` (names and what they mean) and ``gguf-py`` (keys).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from tallow.errors import WeightsError
from tallow.text.byte_pairs import BytePairTokenizer
from tallow.text.end_tokens import END_TOKENS, end_token_ids
from tallow.text.sentencepiece import SentencePieceTokenizer, encoder_from_scores
from tallow.text.splits import SPLITS, Split, normalizer, pre_tokenizer
from tallow.text.tokenizer import Tokenizer
from tallow.weights.gguf_header import StringArray
from tallow.weights.source import short

logger = logging.getLogger(__name__)

_CONTROL, _USER_DEFINED = 3, 4  # types of tokens: no text; text that is never split
# What a file means that does not say: ids by the kind of tokenizer. Falcon's 11 is a comma elsewhere, and counts only
# where it is a control token.
_DEFAULT_IDS = {"llama": {"bos": 1, "eos": 2, "unknown": 0}, "gpt2": {"bos": 11, "eos": 11}}
_NAMED = ("bos", "eos", "unknown", "padding", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")


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
    added, special = said.added, said.control
    tokenizer: Tokenizer
    if kind == "llama":
        vocab = {token: id for id, token in enumerate(said.tokens)}
        encoder = functools.partial(_sentencepiece, said)
        tokenizer = SentencePieceTokenizer(vocab, added, special, encoder, spaced=said.add_space_prefix)
    else:
        split = said.split()
        around = [said.around("bos", split.add_bos), said.around("eos", False)]
        encoder = functools.partial(_byte_level, said, split)
        tokenizer = BytePairTokenizer(said.tokens, said.array("merges"), split, added, special, around, encoder, where)
    return tokenizer


def special_token_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    """The ids of special tokens by GGUF's names (``"bos"``, ``"eos"``, ``"unknown"``, …): those that a file names, and
    those that its kind of tokenizer has if it names none."""
    said = _Vocabulary(metadata, "the file")
    return {name: id for name in _NAMED if (id := said.id(name)) is not None}


def end_ids(tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> frozenset[int]:
    """The ids that end an answer."""
    found = {text: id for text in END_TOKENS if (id := tokenizer.id(text)) is not None}
    return end_token_ids(found, special_token_ids(metadata))


def _byte_level(said: _Vocabulary, split: Split) -> Any:
    from tokenizers import Tokenizer as Encoder
    from tokenizers import decoders
    from tokenizers.models import BPE

    vocab = {token: id for id, token in enumerate(said.tokens)}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in said.array("merges"))]
    encoder = Encoder(BPE(vocab, merges, ignore_merges=split.ignore_merges))
    encoder.normalizer = normalizer(split)
    encoder.pre_tokenizer = pre_tokenizer(split)
    encoder.decoder = decoders.ByteLevel()
    return _finished(encoder, said, begins=split.add_bos)


def _sentencepiece(said: _Vocabulary) -> Any:
    scores = said.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or len(scores) != len(said.tokens) or scores.dtype.kind != "f":
        raise WeightsError(
            f"{said.where}: tokenizer.ggml.scores must be a number for each of {len(said.tokens)} tokens"
        )
    encoder = encoder_from_scores(
        said.tokens.tolist(),
        scores.tolist(),
        said.token("unknown"),
        spaced=said.add_space_prefix,
        control=said.control,
        where=said.where,
    )
    return _finished(encoder, said, begins=True)


def _finished(encoder: Any, said: _Vocabulary, begins: bool) -> Any:
    """An encoder with its special tokens, and with what it puts around a text."""
    from tokenizers import AddedToken, processors

    special = set(said.control)
    tokens = [AddedToken(token, special=id in special, normalized=False) for token, id in said.added.items()]
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

    @property
    def control(self) -> list[int]:
        """The ids of tokens that are no text."""
        return np.flatnonzero(self.types == _CONTROL).tolist()

    @property
    def added(self) -> dict[str, int]:
        """Token -> id of those that stand for themselves."""
        ids = np.flatnonzero((self.types == _CONTROL) | (self.types == _USER_DEFINED)).tolist()
        return {self.tokens[id]: id for id in ids}

    def id(self, name: str) -> int | None:
        """The id of a special token, ``"bos"`` and so on; None if there is none."""
        kind = self.metadata.get("tokenizer.ggml.model")
        default = _DEFAULT_IDS.get(kind, {}).get(name, -1) if isinstance(kind, str) else -1
        if kind == "gpt2" and default < len(self.types) and self.types[default] != _CONTROL:
            default = -1
        for id in (self.metadata.get(f"tokenizer.ggml.{name}_token_id"), default):
            if type(id) is int and 0 <= id < len(self.tokens):
                return id
        return None

    def token(self, name: str) -> str | None:
        """Its text."""
        id = self.id(name)
        return None if id is None else self.tokens[id]

    @property
    def add_space_prefix(self) -> bool:
        """Whether a space goes before every text."""
        return bool(self.metadata.get("tokenizer.ggml.add_space_prefix", True))

    def around(self, name: str, default: bool) -> str | None:
        """The special token that goes before (``"bos"``) or after (``"eos"``) a text, if one does."""
        return self.token(name) if self.metadata.get(f"tokenizer.ggml.add_{name}_token", default) else None

    def split(self) -> Split:
        """How text is cut into words."""
        name = self.metadata.get("tokenizer.ggml.pre")
        if name is None or name == "":
            logger.warning(
                "%s: does not say how its vocabulary splits text (tokenizer.ggml.pre); it is split as llama.cpp's "
                '"default", which may differ from what the model was trained on: convert the model again',
                self.where,
            )
            name = "default"
        if not isinstance(name, str) or name not in SPLITS:
            raise WeightsError(f"{self.where}: text is split as {short(name)} says; Tallow knows {', '.join(SPLITS)}")
        return SPLITS[name]
