"""Vocabularies made by SentencePiece, as Llama 2 and Mistral have them: spaces are ``▁``, missing characters bytes.

Source: Kudo and Richardson 2018, "SentencePiece".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tallow.errors import WeightsError
from tallow.text.tokenizer import Encoder, Tokenizer

_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class SentencePieceTokenizer(Tokenizer):
    """A BPE vocabulary over characters, with ``<0x0A>`` and its like for bytes.

    Args:
        vocab, added, special, encoder: as of ``Tokenizer``.
        spaced: whether decoding takes away a space before the text.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        added: Mapping[str, int],
        special: Iterable[int],
        encoder: Encoder,
        *,
        spaced: bool,
    ) -> None:
        super().__init__(vocab, added, special, encoder)
        self.spaced = spaced

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an id stands for; none for one of no token."""
        token = self._token(id)
        byte = _BYTE.fullmatch(token)
        if byte is not None:
            return bytes.fromhex(byte[1])
        return self._added_text.get(id, token.replace(_SPACE, " ")).encode()


def drops_space(decoder: Mapping[str, Any]) -> bool:
    """Whether the decoder of a ``tokenizer.json`` takes away a space before the text."""
    for step in _steps(decoder, "decoders"):
        if step.get("type") == "Strip" and step.get("content") == " " and step.get("start"):
            return True
        if _prepends(step):
            return True
    return False


def adds_space(data: Mapping[str, Any]) -> bool:
    """Whether a ``tokenizer.json`` puts a space before a text that it encodes."""
    normalizers = _steps(data.get("normalizer"), "normalizers")
    prepended = any(step.get("type") == "Prepend" and step.get("prepend") == _SPACE for step in normalizers)
    return prepended or any(map(_prepends, _steps(data.get("pre_tokenizer"), "pretokenizers")))


def _steps(whole: Any, key: str) -> list[Mapping[str, Any]]:
    steps = whole.get(key, [whole]) if isinstance(whole, Mapping) else []
    return [step for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []


def _prepends(step: Mapping[str, Any]) -> bool:
    """Whether this is a Metaspace step with a space before the text; older files have a flag for it."""
    scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
    return step.get("type") == "Metaspace" and scheme != "never"


def encoder_from_scores(
    tokens: Sequence[str],
    scores: Sequence[float],
    unknown: str | None,
    *,
    spaced: bool,
    control: Iterable[int] = (),
    where: str,
) -> Any:
    """The ``tokenizers.Tokenizer`` of a vocabulary that has scores instead of merges.

    SentencePiece joins the pair whose result has the highest score: the same as merges in the order of their results.

    Args:
        tokens: the vocabulary, by id.
        scores: of each.
        unknown: the token for what has no other.
        spaced: whether a space goes before every text.
        control: ids of the tokens that no text becomes.
        where: what errors name.

    Raises:
        WeightsError: if the vocabulary is inconsistent.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, normalizers
    from tokenizers.models import BPE

    vocab = {token: id for id, token in enumerate(tokens)}
    try:
        model = BPE(vocab, merges_of(vocab, scores, control), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"{where}: the vocabulary is inconsistent ({error})") from None
    encoder = Library(model)
    steps: list[Any] = [normalizers.Prepend(_SPACE)] if spaced else []
    encoder.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    undo: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    encoder.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)] if spaced else undo)
    return encoder


def merges_of(vocab: Mapping[str, int], scores: Sequence[float], control: Iterable[int] = ()) -> list[tuple[str, str]]:
    """Every way to make a token, but those of ``control``, out of two others; that with the highest score first."""
    merges = []
    control = frozenset(control)
    for token, id in vocab.items():
        if id not in control and not _BYTE.fullmatch(token):
            pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
            known = [(a, b) for a, b in pairs if a in vocab and b in vocab]
            merges += [(-scores[id], vocab[a], vocab[b], a, b) for a, b in known]
    return [(a, b) for _, _, _, a, b in sorted(merges)]
