"""What Tallow knows of Whisper beside its modules: its files' names, its sizes, and which models were published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallow.models.spec import CTranslate2Names, Spec
from tallow.models.whisper.whisper import Whisper
from tallow.runtime.sizes import Sizes
from tallow.weights.adapters import whisper as adapter

# name: d_model, encoder layers, decoder layers, vocabulary, mel bins; from openai/whisper, "Available models".
# large and large-v2 have the sizes of large-v1, so their sizes name none of them.
_PUBLISHED: dict[str, tuple[int, int, int, int, int]] = {
    "openai/whisper-tiny.en": (384, 4, 4, 51864, 80),
    "openai/whisper-tiny": (384, 4, 4, 51865, 80),
    "openai/whisper-base.en": (512, 6, 6, 51864, 80),
    "openai/whisper-base": (512, 6, 6, 51865, 80),
    "openai/whisper-small.en": (768, 12, 12, 51864, 80),
    "openai/whisper-small": (768, 12, 12, 51865, 80),
    "openai/whisper-medium.en": (1024, 24, 24, 51864, 80),
    "openai/whisper-medium": (1024, 24, 24, 51865, 80),
    "openai/whisper-large-v3": (1280, 32, 32, 51866, 128),
    "openai/whisper-large-v3-turbo": (1280, 32, 4, 51866, 128),
}
_PUBLISHED_KEYS = ("d_model", "encoder_layers", "decoder_layers", "vocab_size", "num_mel_bins")


def whisper_sizes(config: Mapping[str, Any]) -> Sizes:
    """Whisper: convolutions, an encoder over 1,500 positions, a decoder that attends to itself and to the encoder."""
    d, enc, dec = config["d_model"], config["encoder_layers"], config["decoder_layers"]
    f_enc, f_dec = config["encoder_ffn_dim"], config["decoder_ffn_dim"]
    mels, vocab = config.get("num_mel_bins", 80), config["vocab_size"]
    sound, text = config.get("max_source_positions", 1500), config.get("max_target_positions", 448)
    convolutions = 3 * d * (mels + d) + 2 * d
    encoder_layer = 4 * d + (f_enc + d) + 4 * d  # biases of attention (k's is zero) and MLP, two norms
    decoder_layer = 8 * d + (f_dec + d) + 6 * d
    return Sizes(
        matrices=enc * (4 * d * d + 2 * d * f_enc) + dec * (8 * d * d + 2 * d * f_dec) + vocab * d,
        tables=vocab * d,
        scales=enc * (5 * d + f_enc) + dec * (9 * d + f_dec) + vocab,
        tensors=convolutions + (sound + text) * d + enc * encoder_layer + dec * decoder_layer + 4 * d,
        cache_per_row=2 * dec * sound * d,
        cache_per_token=2 * dec * d,
        context=text,
        results=sound * (f_enc + 3 * d + 9 * d),  # inside the MLP; q, k and v; and nine more, four of them around conv1
        live=sound * f_enc,
        fixed=42_000_000,  # tokenizer 14, PyAV and decoding 22, modules 6
    )


def published_name(config: Mapping[str, Any]) -> str | None:
    """The published model that alone has these sizes, or None."""
    sizes = tuple(config.get(key) for key in _PUBLISHED_KEYS)
    return next((name for name, published in _PUBLISHED.items() if published == sizes), None)


SPEC = Spec(
    Whisper,
    model_types=("whisper",),
    sizes=whisper_sizes,
    unread={r"proj_out\.weight": "the embedding's table under another name"},
    names=adapter.from_huggingface,
    ctranslate2=CTranslate2Names("WhisperSpec", adapter.ctranslate2_config, adapter.from_ctranslate2),
    published=published_name,
)
