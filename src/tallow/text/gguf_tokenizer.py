"""Tokenizers out of GGUF files, which hold vocabulary and merges, and the *name* of how text is split before that.

Source: github.com/ggml-org/llama.cpp, ``src/llama-vocab.cpp`` (names and what they mean) and ``gguf-py`` (keys).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow.errors import WeightsError
from tallow.text.sentencepiece import SentencePieceTokenizer, encoder_from_scores
from tallow.text.tokenizer import Tokenizer
from tallow.weights.source import short

if TYPE_CHECKING:
    from tallow.weights.gguf_header import StringArray

_CONTROL, _USER_DEFINED = 3, 4  # types of tokens: no text; text that is never split

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# name of the split -> the pattern of a word (None: GPT-2's; "digits": GPT-2's, each digit on its own)
SPLITS: dict[str, str | None] = {
    "default": None,
    "gpt-2": None,
    "smollm": "digits",
    "llama-bpe": _WORDS % "{1,3}",
    "llama3": _WORDS % "{1,3}",
    "qwen2": _WORDS % "",
    "deepseek-r1-qwen": _WORDS % "",
    "tekken": _TEKKEN,
}
_WHOLE_WORDS = ("llama-bpe", "llama3", "tekken")  # a word that is a token is not made by merges
_COMPOSED = ("qwen2",)  # text is put in Unicode's form NFC first


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
    vocab = {token: id for id, token in enumerate(said.tokens)}
    added = {said.tokens[id]: id for id in np.flatnonzero(np.isin(said.types, (_CONTROL, _USER_DEFINED))).tolist()}
    special = np.flatnonzero(said.types == _CONTROL).tolist()
    if kind == "llama":
        return SentencePieceTokenizer(vocab, added, special, functools.partial(_sentencepiece, said, added))
    said.split()  # now, and not when text first comes
    return Tokenizer(vocab, added, special, functools.partial(_byte_level, said, vocab, added))


def _byte_level(said: _Vocabulary, vocab: dict[str, int], added: dict[str, int]) -> Any:
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Encoder
    from tokenizers.models import BPE

    name = said.split()
    merges = said.array("merges").pairs()
    try:
        encoder = Encoder(BPE(vocab, merges, ignore_merges=name in _WHOLE_WORDS))
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"{said.where}: vocabulary and merges do not fit ({error})") from None
    pattern = SPLITS[name]
    if pattern is None or pattern == "digits":
        last = pre_tokenizers.ByteLevel(add_prefix_space=False)
        first: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if pattern else []
    else:
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        first = [pre_tokenizers.Split(Regex(pattern), "isolated")]
    encoder.pre_tokenizer = pre_tokenizers.Sequence([*first, last])
    encoder.decoder = decoders.ByteLevel()
    if name in _COMPOSED:
        encoder.normalizer = normalizers.NFC()
    return _finished(encoder, said, added, begins=False)


def _sentencepiece(said: _Vocabulary, added: dict[str, int]) -> Any:
    scores = said.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or len(scores) != len(said.tokens) or scores.dtype.kind != "f":
        raise WeightsError(
            f"{said.where}: tokenizer.ggml.scores must be a number for each of {len(said.tokens)} tokens"
        )
    spaced = said.metadata.get("tokenizer.ggml.add_space_prefix", True)
    encoder = encoder_from_scores(
        said.tokens, scores.tolist(), said.token("unknown"), spaced=bool(spaced), where=said.where
    )
    return _finished(encoder, said, added, begins=True)


def _finished(encoder: Any, said: _Vocabulary, added: dict[str, int], begins: bool) -> Any:
    """An encoder with its special tokens, and with what it puts around a text."""
    from tokenizers import AddedToken, processors

    special = {token for token, id in added.items() if said.types[id] == _CONTROL}
    tokens = [AddedToken(token, special=token in special, normalized=False) for token in added]
    encoder.add_special_tokens([token for token in tokens if token.special])
    encoder.add_tokens([token for token in tokens if not token.special])
    begin = said.token("bos") if said.metadata.get("tokenizer.ggml.add_bos_token", begins) else None
    end = said.token("eos") if said.metadata.get("tokenizer.ggml.add_eos_token", False) else None
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
        self.tokens = self.array("tokens").tolist()
        types = metadata.get("tokenizer.ggml.token_type")
        if types is None:
            types = np.ones(len(self.tokens), np.int32)
        if not isinstance(types, np.ndarray) or len(types) != len(self.tokens):
            raise WeightsError(f"{where}: tokenizer.ggml.token_type must be a number for each token")
        self.types = types

    def array(self, key: str) -> StringArray:
        """A list of strings."""
        values: Any = self.metadata.get(f"tokenizer.ggml.{key}")
        if not hasattr(values, "pairs"):
            raise WeightsError(f"{self.where}: lacks tokenizer.ggml.{key}, a list of strings")
        return values  # type: ignore[no-any-return]

    def token(self, name: str) -> str | None:
        """The text of a special token, ``"bos"`` and so on; None if there is none."""
        id = self.metadata.get(f"tokenizer.ggml.{name}_token_id")
        return self.tokens[id] if type(id) is int and 0 <= id < len(self.tokens) else None

    def split(self) -> str:
        """The name of how text is split into words."""
        name = self.metadata.get("tokenizer.ggml.pre", "default")
        if not isinstance(name, str) or name not in SPLITS:
            raise WeightsError(f"{self.where}: text is split as {short(name)} says; Tallow knows {', '.join(SPLITS)}")
        return name
