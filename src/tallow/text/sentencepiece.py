"""Vocabularies made by SentencePiece, as Llama 2 and Mistral have them: spaces are ``▁``, missing characters bytes.

Source: Kudo and Richardson 2018, "SentencePiece".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tallow.errors import WeightsError
from tallow.text.tokenizer import Tokenizer

_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class SentencePieceTokenizer(Tokenizer):
    """A BPE vocabulary over characters, with ``<0x0A>`` and its like for bytes. Arguments as of ``Tokenizer``."""

    spaced = True

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an id stands for; none for one of no token."""
        token = self._token(id)
        byte = _BYTE.fullmatch(token)
        if byte is not None:
            return bytes.fromhex(byte[1])
        return self._added_text.get(id, token.replace(_SPACE, " ")).encode()


def encoder_from_scores(
    tokens: Sequence[str], scores: Sequence[float], unknown: str | None, *, spaced: bool, where: str
) -> Any:
    """The ``tokenizers.Tokenizer`` of a vocabulary that has scores instead of merges.

    SentencePiece joins the pair whose result has the highest score: the same as merges in the order of their results.

    Args:
        tokens: the vocabulary, by id.
        scores: of each.
        unknown: the token for what has no other.
        spaced: whether a space goes before every text.
        where: what errors name.

    Raises:
        WeightsError: if the vocabulary is inconsistent.
    """
    from tokenizers import Tokenizer as Encoder
    from tokenizers import decoders, normalizers
    from tokenizers.models import BPE

    vocab = {token: id for id, token in enumerate(tokens)}
    try:
        model = BPE(vocab, merges_of(vocab, scores), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"{where}: the vocabulary is inconsistent ({error})") from None
    encoder = Encoder(model)
    steps: list[Any] = [normalizers.Prepend(_SPACE)] if spaced else []
    encoder.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    undo: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    encoder.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)] if spaced else undo)
    return encoder


def merges_of(vocab: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to make a token out of two others, the token with the highest score first."""
    merges = []
    for token, id in vocab.items():
        if not _BYTE.fullmatch(token):
            pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
            known = [(a, b) for a, b in pairs if a in vocab and b in vocab]
            merges += [(-scores[id], vocab[a], vocab[b], a, b) for a, b in known]
    return [(a, b) for _, _, _, a, b in sorted(merges)]
