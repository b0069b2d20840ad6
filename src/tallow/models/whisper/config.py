"""What a Whisper checkpoint says of itself: sizes, suppressed tokens, alignment heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from tallow.errors import WeightsError

_MAX = 1_000_000  # no size of a Whisper comes near; keeps a hostile config from asking for the whole memory


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes, under the names that Hugging Face's ``config.json`` has for them."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_layers: int
    decoder_attention_heads: int
    decoder_ffn_dim: int
    vocab_size: int
    num_mel_bins: int = 80
    max_source_positions: int = 1500
    max_target_positions: int = 448

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> WhisperConfig:
        """Take the sizes out of a ``config.json``.

        Raises:
            WeightsError: if one is missing or senseless, or the model computes something else than Whisper does.
        """
        known = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        missing = [field.name for field in fields(cls) if field.name not in known and field.default is MISSING]
        if missing:
            raise WeightsError(f"config.json of a Whisper lacks {', '.join(missing)}")
        for name, value in known.items():
            if type(value) is not int or not 0 < value <= _MAX:
                raise WeightsError(f"config.json of a Whisper: {name} must be from 1 to {_MAX}, found {value!r}")
        for heads in ("encoder_attention_heads", "decoder_attention_heads"):
            if known["d_model"] % known[heads]:
                raise WeightsError(
                    f"config.json of a Whisper: {heads} {known[heads]} does not divide {known['d_model']}"
                )
        if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding", False):
            raise WeightsError("config.json: a Whisper has activation_function 'gelu' and scale_embedding false")
        return cls(**known)


@dataclass(frozen=True)
class GenerationConfig:
    """What Hugging Face's ``generation_config.json`` says.

    Attributes:
        multilingual: whether the model knows languages other than English, and how to translate.
        suppress_tokens: ids never to be written; None if the checkpoint has no list.
        begin_suppress_tokens: ids not to be written first; None likewise.
        alignment_heads: (layer, head) pairs of the decoder's heads that look where the text is spoken.
    """

    multilingual: bool
    suppress_tokens: tuple[int, ...] | None
    begin_suppress_tokens: tuple[int, ...] | None
    alignment_heads: tuple[tuple[int, int], ...]

    @classmethod
    def from_dict(cls, generation: Mapping[str, Any], config: WhisperConfig) -> GenerationConfig:
        """Read a ``generation_config.json``; without alignment heads all heads of the last half of the layers count.

        Raises:
            WeightsError: for ids or heads that the model does not have.
        """
        suppress = _ids(generation, "suppress_tokens", config)
        first = _ids(generation, "begin_suppress_tokens", config)
        layers, heads = config.decoder_layers, config.decoder_attention_heads
        pairs = generation.get("alignment_heads")
        if pairs is None:
            pairs = [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
        if not isinstance(pairs, list) or not pairs or not all(_is_head(pair, layers, heads) for pair in pairs):
            raise WeightsError(f"alignment_heads must be pairs of one of {layers} layers and one of {heads} heads")
        multilingual = generation.get("is_multilingual")
        # The multilingual vocabularies have 51,865 tokens or more, the English one 51,864.
        known = bool(multilingual) if multilingual is not None else config.vocab_size >= 51865
        return cls(known, suppress, first, tuple((layer, head) for layer, head in pairs))


def _ids(generation: Mapping[str, Any], name: str, config: WhisperConfig) -> tuple[int, ...] | None:
    ids = generation.get(name)
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(type(id) is int and 0 <= id < config.vocab_size for id in ids):
        raise WeightsError(f"{name} must be a list of ids from 0 to {config.vocab_size - 1}")
    return tuple(ids)


def _is_head(pair: Any, layers: int, heads: int) -> bool:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(type(index) is int for index in pair):
        return False
    return bool(0 <= pair[0] < layers and 0 <= pair[1] < heads)
