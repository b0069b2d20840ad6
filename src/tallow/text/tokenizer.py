"""Text to token ids and back.

Ids become text through a table made from the vocabulary in a few milliseconds; the ``tokenizers`` library, which takes
a tenth of a second to build its own tables, is loaded when text is first encoded.
"""

from __future__ import annotations

import codecs
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tallow.errors import ArgumentError, ModelNotFoundError, WeightsError

Encoder = Callable[[], Any]


def _byte_alphabet() -> dict[int, int]:
    """GPT-2's byte-level alphabet, reversed: code point of a token's character -> the byte.

    Printable bytes stand for themselves; the other 68 are moved up to U+0100 and beyond, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: byte for byte in range(256)} | {0x100 + i: byte for i, byte in enumerate(hidden)}


class Tokenizer:
    """A byte-level BPE vocabulary. SentencePiece's (``sentencepiece.py``), and that of a GGUF file (``byte_pairs.py``),
    have the same methods.

    Args:
        vocab: token -> id, the tokens in GPT-2's byte-level alphabet.
        added: token -> id of the tokens that stand for themselves (``<|endoftext|>``, …).
        special: ids of the added tokens that are no text.
        encoder: makes the ``tokenizers.Tokenizer`` that encodes text; called once, when first needed.
    """

    def __init__(self, vocab: Mapping[str, int], added: Mapping[str, int], special: Iterable[int], encoder: Encoder):
        self.added = dict(added)
        self.special = frozenset(special)
        self._vocab = vocab
        self._added_text = {id: token for token, id in added.items()}
        self._make_encoder = encoder

    spaced = False
    """Whether decoding takes away a space that the vocabulary has put before the text."""

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read ``tokenizer.json``, or else ``vocab.json`` with ``merges.txt`` and ``added_tokens.json``.

        Raises:
            ModelNotFoundError: if the folder has neither.
            WeightsError: for a damaged file, or a tokenizer that is not byte-level BPE.
        """
        folder = Path(folder)
        if (folder / "tokenizer.json").is_file():
            return cls.from_file(folder / "tokenizer.json")
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return cls._from_vocabulary(folder)
        raise ModelNotFoundError(f"{folder}: no tokenizer.json there, nor vocab.json with merges.txt; add one of them")

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a ``tokenizer.json`` as the ``tokenizers`` library writes it. Raises as ``from_folder``."""
        path = Path(path)
        data = _read_without_merges(path)
        try:
            model, added = data["model"], data.get("added_tokens") or []
            kinds = model.get("type") or "BPE", (data.get("decoder") or {}).get("type")
            vocab = model["vocab"]
            added_ids = {entry["content"]: entry["id"] for entry in added}
            special = [entry["id"] for entry in added if entry.get("special")]
        except (TypeError, KeyError, AttributeError) as error:
            raise WeightsError(f"{path}: not a tokenizer ({type(error).__name__}: {error})") from None
        _check_vocabulary(vocab, path)
        _check_vocabulary(added_ids, path)
        make = functools.partial(_encoder_from_file, path)
        if model.get("byte_fallback") and kinds in (("BPE", "Sequence"), ("BPE", "Metaspace")):
            from tallow.text.sentencepiece import SentencePieceTokenizer, drops_space

            return SentencePieceTokenizer(vocab, added_ids, special, make, spaced=drops_space(data["decoder"]))
        if kinds != ("BPE", "ByteLevel"):
            raise WeightsError(f"{path}: expected byte-level BPE, found model {kinds[0]!r} with decoder {kinds[1]!r}")
        return cls(vocab, added_ids, special, make)

    @classmethod
    def _from_vocabulary(cls, folder: Path) -> Tokenizer:
        vocab = _read_json(folder / "vocab.json")
        added = _read_json(folder / "added_tokens.json") if (folder / "added_tokens.json").is_file() else {}
        _check_vocabulary(vocab, folder / "vocab.json")
        _check_vocabulary(added, folder / "added_tokens.json")
        added |= {token: id for token, id in vocab.items() if token.startswith("<|") and token.endswith("|>")}
        return cls(vocab, added, added.values(), functools.partial(_encoder_from_merges, folder, added))

    def __len__(self) -> int:
        return max(max(self._vocab.values(), default=-1), max(self.added.values(), default=-1)) + 1

    def __repr__(self) -> str:
        return f"Tokenizer({len(self)} tokens, {len(self.special)} special)"

    def id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it (``"<|endoftext|>"``, ``"Ġthe"``), or None."""
        found = self.added.get(token)
        return self._vocab.get(token) if found is None else found

    def encode(self, text: str, *, special: bool = False, around: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            text: any text.
            special: whether ``<|…|>`` in the text means the special token; by default it is mere text, so that what a
                user types cannot steer the model.
            around: whether to put around it what the model was trained to see there, such as a token that begins a
                text; nothing for many models.

        Raises:
            ArgumentError: for a text with half a surrogate pair, which no UTF-8 can hold.
        """
        if around:
            return [*self.before, *self.encode(text, special=special), *self.after]
        if not text.isascii() and _SURROGATE.search(text):
            raise ArgumentError("the text is not valid Unicode: it holds half of a surrogate pair (invalid UTF-8?)")
        if special or not any(token in text for token in self.added):
            return self._ids(text)
        ids = self._ids_of_mere_text(text)
        if self.special.isdisjoint(ids):
            return ids
        return [id for piece in _split_inside(text, self.added) for id in self._ids(piece)]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of some ids; bytes that are no UTF-8 become U+FFFD, ids of no token nothing."""
        data = self.decode_bytes(ids, skip_special=skip_special)
        return (data.removeprefix(b" ") if self.spaced else data).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        """The bytes that some ids stand for: a character may begin in one token and end in the next."""
        return b"".join([self.token_bytes(id) for id in ids if not (skip_special and id in self.special)])

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an id stands for; none for one of no token."""
        text = self._added_text.get(id)
        if text is not None:
            return text.encode()
        return codecs.charmap_encode(self._token(id), "replace", _BYTE_OF)[0]

    def to_json(self) -> str:
        """The text of a ``tokenizer.json``."""
        return self._encoder.to_str()  # type: ignore[no-any-return]

    def stream(self, prompt: Iterable[int] = (), keep_special: Iterable[str] = ()) -> TextStream:
        """Decode ids one by one into text, never half a character.

        Args:
            prompt: the ids that they follow. Together the pieces are what their text adds to that of the prompt.
            keep_special: special tokens that count as text; the others are left out.
        """
        return TextStream(self, prompt, keep_special)

    def _ids(self, text: str) -> list[int]:
        """The ids of a text in which every added token means itself."""
        return self._encoder.encode(text, add_special_tokens=False).ids  # type: ignore[no-any-return]

    def _ids_of_mere_text(self, text: str) -> list[int]:
        """The ids of a text in which no added token means itself."""
        return self._bare_encoder.encode(text, add_special_tokens=False).ids  # type: ignore[no-any-return]

    def _token(self, id: int) -> str:
        """A token as the vocabulary writes it; nothing for an id that is none."""
        return self._tokens.get(id, "")

    @functools.cached_property
    def _tokens(self) -> dict[int, str]:
        return {id: token for token, id in self._vocab.items()}

    @functools.cached_property
    def _encoder(self) -> Any:
        return self._make_encoder()

    @functools.cached_property
    def _bare_encoder(self) -> Any:
        """The encoder without added tokens."""
        from tokenizers import Tokenizer as Encoder

        bare = Encoder(self._encoder.model)
        if self._encoder.normalizer is not None:
            bare.normalizer = self._encoder.normalizer
        if self._encoder.pre_tokenizer is not None:
            bare.pre_tokenizer = self._encoder.pre_tokenizer
        return bare

    @property
    def before(self) -> list[int]:
        """What a model was trained to see before a text, such as a token that begins it; nothing for many."""
        return self._around[0]

    @property
    def after(self) -> list[int]:
        """What it was trained to see after a text; nothing for most."""
        return self._around[1]

    @functools.cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and after a text."""
        bare = self._encoder.encode("a", add_special_tokens=False).ids
        whole = self._encoder.encode("a", add_special_tokens=True).ids
        begin = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:begin], whole[begin + len(bare) :]


class TextStream:
    """Text from ids that arrive one by one. A character split over tokens comes when its last byte has come."""

    def __init__(self, tokenizer: Tokenizer, prompt: Iterable[int] = (), keep_special: Iterable[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special - {tokenizer.added.get(token) for token in keep_special}
        self._begun = not tokenizer.spaced or any(
            id not in tokenizer.special and tokenizer.token_bytes(id) for id in prompt
        )
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, id: int) -> str:
        """The text that this id completes, which may be empty."""
        if id in self._skipped:
            return ""
        data = self._tokenizer.token_bytes(id)
        if not self._begun and data:
            data, self._begun = data.removeprefix(b" "), True
        return self._decoder.decode(data)

    def end(self) -> str:
        """What is left: U+FFFD if the ids stopped inside a character, else nothing."""
        return self._decoder.decode(b"", final=True)


_BYTE_OF = _byte_alphabet()
_SURROGATE = re.compile("[\ud800-\udfff]")


def _split_inside(text: str, tokens: Iterable[str]) -> list[str]:
    """Cut a text after the first character of each special token in it, so that no piece holds a whole one."""
    cuts = {at + 1 for token in tokens for at in _occurrences(text, token)}
    edges = [0, *sorted(cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges) if a < b]


def _occurrences(text: str, token: str) -> Iterable[int]:
    at = text.find(token) if token else -1
    while at >= 0:
        yield at
        at = text.find(token, at + 1)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not valid JSON ({error})") from None


def _read_without_merges(path: Path) -> Any:
    """A ``tokenizer.json`` without its end, which is merges, half of the file, and which only encoding needs."""
    data = path.read_bytes()
    merges = re.search(rb'"merges"\s*:\s*\[', data)
    if merges is not None:
        try:
            found = json.loads(data[: merges.start()] + b'"merges": []}}')
            if {"added_tokens", "decoder"} <= found.keys():
                return found
        except (ValueError, RecursionError):
            pass
    return _read_json(path)  # the merges are not its end


def _check_vocabulary(vocab: Any, path: Path) -> None:
    ids = vocab.values() if isinstance(vocab, dict) else [None]
    if not set(map(type, ids)) <= {int} or not 0 <= min(ids, default=0) <= max(ids, default=0) < 2**31:
        raise WeightsError(f"{path}: expected a vocabulary that maps tokens to ids, found something else")


def _encoder_from_file(path: Path) -> Any:
    from tokenizers import Tokenizer as Encoder

    try:
        encoder = Encoder.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"{path}: the tokenizers library cannot read it ({error})") from None
    encoder.no_padding()
    encoder.no_truncation()
    return encoder


def _encoder_from_merges(folder: Path, added: Mapping[str, int]) -> Any:
    from tokenizers import AddedToken, pre_tokenizers
    from tokenizers import Tokenizer as Encoder
    from tokenizers.models import BPE

    try:
        encoder = Encoder(BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"{folder}: vocab.json and merges.txt do not fit ({error})") from None
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.add_special_tokens(
        [AddedToken(token, special=True) for token, _ in sorted(added.items(), key=lambda x: x[1])]
    )
    return encoder
