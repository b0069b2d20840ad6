"""Byte-level BPE over the lists of tokens and merges of a mapped GGUF file, which nothing copies.

Text is cut into words by the ``tokenizers`` library; joining a word's characters to tokens is native
(``csrc/text/byte_pairs.h``), since the library takes a tenth of a second to read vocabulary and merges.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tallow import _cpu
from tallow.errors import WeightsError
from tallow.text.splits import Split, normalizer, pre_tokenizer
from tallow.text.tokenizer import Encoder, Tokenizer

if TYPE_CHECKING:
    from tallow.weights.gguf_header import StringArray


class BytePairTokenizer(Tokenizer):
    """A GGUF file's byte-level BPE vocabulary.

    Args:
        tokens: by id, in GPT-2's byte-level alphabet.
        merges: pairs of tokens with a space between, in the order in which they are joined.
        split: how text is cut into words.
        added: token -> id of the tokens that stand for themselves.
        special: ids of the added tokens that are no text.
        around: the tokens that go before and after a text; None for none.
        encoder: makes the ``tokenizers.Tokenizer`` that encodes in the same way.
        where: what errors name.
    """

    def __init__(
        self,
        tokens: StringArray,
        merges: StringArray,
        split: Split,
        added: Mapping[str, int],
        special: Iterable[int],
        around: Sequence[str | None],
        encoder: Encoder,
        where: str,
    ) -> None:
        super().__init__({}, added, special, encoder)
        self._table = tokens
        self._split = split
        self._around_text = around
        self._where = where
        self._native = _cpu.PairEncoder(tokens.native, merges.native, split.ignore_merges)

    def __len__(self) -> int:
        return len(self._table)

    def id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it, or None."""
        found = self.added.get(token)
        if found is None:
            found = self._call(self._native.find, token)
        return found if found >= 0 else None

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = []
        for place, piece in enumerate(self._added_pattern.split(text)):
            if place % 2:
                ids.append(self.added[piece])
            elif piece:
                ids += self._call(self._native.encode, self._words(piece))
        return ids

    def _ids_of_mere_text(self, text: str) -> list[int]:
        return self._call(self._native.encode, self._words(text))  # type: ignore[no-any-return]

    @functools.cached_property
    def _added_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(filter(None, self.added), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")

    def _words(self, text: str) -> list[str]:
        if self._normalizer is not None and not text.isascii():
            text = self._normalizer.normalize_str(text)
        return [word for word, _ in self._pre_tokenizer.pre_tokenize_str(text)]

    @functools.cached_property
    def _normalizer(self) -> Any:
        return normalizer(self._split)

    @functools.cached_property
    def _pre_tokenizer(self) -> Any:
        return pre_tokenizer(self._split)

    def _call(self, function: Any, argument: Any) -> Any:
        try:
            return function(argument)
        except ValueError as error:
            raise WeightsError(f"{self._where}: vocabulary and merges do not fit ({error})") from None

    def _token(self, id: int) -> str:
        return self._table[id] if 0 <= id < len(self._table) else ""

    @functools.cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        before, after = ([] if token is None else [self.id(token)] for token in self._around_text)
        return before, after  # type: ignore[return-value]
