"""A whole Whisper checkpoint of a few hundred kilobytes, with random weights, in Hugging Face's layout."""

import json

import numpy as np
from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE

from tallow.models.whisper import Whisper, WhisperConfig
from tallow.models.whisper.languages import LANGUAGES
from tallow.weights.random import RandomSource
from tallow.weights.safetensors import save_safetensors
from tallow.weights.var_builder import VarBuilder

SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{code}|>" for code in list(LANGUAGES)[:9]),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]
VOCABULARY = 256 + len(SPECIAL) + 1501
SIZES = {
    "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_layers": 2,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "vocab_size": VOCABULARY, "num_mel_bins": 80,
}  # fmt: skip


class _Recorded(RandomSource):
    """Random weights that remembers what was asked for."""

    def __init__(self, seed):
        super().__init__(seed)
        self.tensors = {}

    def draw(self, name, shape):
        self.tensors[name] = super().draw(name, shape)
        return self.tensors[name]


def weights(seed=0):
    """Tensors by Hugging Face's names."""
    source = _Recorded(seed)
    Whisper(WhisperConfig.from_dict(SIZES), VarBuilder(source))
    # a position says more than a token, or random text would be one token over and over
    source.tensors["model.decoder.embed_positions.weight"] *= 20
    return source.tensors


def tokenizer():
    """One token for each byte, then the special tokens."""
    vocab = {character: id for id, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    encoder = Encoder(BPE(vocab, []))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    encoder.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return encoder


def write(folder, *, multilingual=True, generation=None, seed=0, dtype=np.float32, **sizes):
    """Write ``config.json``, ``model.safetensors``, ``tokenizer.json`` and ``generation_config.json``."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper", **SIZES, **sizes}))
    save_safetensors({name: value.astype(dtype) for name, value in weights(seed).items()}, folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    generation = {"is_multilingual": multilingual, **(generation or {})}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
