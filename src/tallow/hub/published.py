"""The models that were published, by their sizes: what a checkpoint must agree with to answer to a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# name: d_model, encoder layers, decoder layers, vocabulary, mel bins; from openai/whisper, "Available models".
# large and large-v2 have the sizes of large-v1, so their sizes name none of them.
_WHISPER: dict[str, tuple[int, int, int, int, int]] = {
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
_WHISPER_KEYS = ("d_model", "encoder_layers", "decoder_layers", "vocab_size", "num_mel_bins")


def published_name(architecture: str, config: Mapping[str, Any]) -> str | None:
    """The published model that alone has these sizes, or None.

    Args:
        architecture: Hugging Face's ``model_type``.
        config: what its ``config.json`` says.
    """
    if architecture != "whisper":
        return None
    sizes = tuple(config.get(key) for key in _WHISPER_KEYS)
    return next((name for name, published in _WHISPER.items() if published == sizes), None)
