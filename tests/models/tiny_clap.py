"""A whole CLAP checkpoint of a few hundred kilobytes, with random weights, in Hugging Face's layout."""

import json

import numpy as np
from tokenizers import AddedToken, processors

from tallow.models.clap import Clap, ClapConfig
from tallow.weights.safetensors import save_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.engine.published import Recording
from tests.text.vocabularies import byte_level

AUDIO = {
    "model_type": "clap_audio_model", "num_mel_bins": 64, "spec_size": 128, "patch_size": 4, "patch_stride": [4, 4],
    "window_size": 4, "patch_embeds_hidden_size": 16, "depths": [2, 3, 1], "num_attention_heads": [2, 4, 8],
    "hidden_size": 64,
}  # fmt: skip
TEXT = {
    "model_type": "clap_text_model", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 80, "max_position_embeddings": 66, "vocab_size": 340,
}  # fmt: skip
FEATURES = {
    "feature_extractor_type": "ClapFeatureExtractor", "feature_size": 64, "sampling_rate": 48000, "hop_length": 480,
    "fft_window_size": 1024, "max_length_s": 2, "frequency_min": 50, "frequency_max": 14000, "padding": "repeatpad",
}  # fmt: skip
CLIP = 96_000  # samples


def config(fusion=False):
    """What ``config.json`` says."""
    return {
        "model_type": "clap", "audio_config": AUDIO | {"enable_fusion": fusion}, "text_config": TEXT,
        "projection_dim": 24,
    }  # fmt: skip


def features(fusion=False):
    """What ``preprocessor_config.json`` says."""
    return FEATURES | {"truncation": "fusion" if fusion else "rand_trunc"}


def weights(fusion=False, seed=0):
    """Tensors by Hugging Face's names."""
    source = Recording(seed)
    Clap(ClapConfig.from_dict(config(fusion)), VarBuilder(source))
    norm = "audio_model.audio_encoder.batch_norm.running_"
    source.drawn[norm + "mean"] -= 40  # decibels
    source.drawn[norm + "var"] *= 600
    source.drawn["logit_scale_t"] = source.drawn["logit_scale_a"]
    return source.drawn


def tokenizer():
    """Ids 0, 1 and 2 are ``<s>``, ``<pad>`` and ``</s>``, as RoBERTa's are."""
    special = ["<s>", "<pad>", "</s>"]
    data = json.loads(byte_level(320).to_str())
    vocab = data["model"]["vocab"]
    data["model"]["vocab"] = {token: id for id, token in enumerate([*special, *sorted(vocab, key=vocab.get)])}
    data["added_tokens"] = []
    encoder = type(byte_level()).from_str(json.dumps(data))
    encoder.add_special_tokens([AddedToken(token, special=True) for token in special])
    encoder.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return encoder


def write(folder, fusion=False, dtype=np.float32, **changes):
    """Write ``config.json``, ``preprocessor_config.json``, ``model.safetensors`` and ``tokenizer.json``; the folder."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text(json.dumps(config(fusion)))
    (folder / "preprocessor_config.json").write_text(json.dumps(features(fusion) | changes))
    tensors = {name: value.astype(dtype) for name, value in weights(fusion).items()}
    save_safetensors(tensors, folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def sound(seconds, seed=0):
    """A falling tone under noise, at 48,000 Hz."""
    t = np.arange(round(seconds * 48_000))
    noise = np.random.default_rng(seed).normal(0, 0.05, len(t))
    return (0.5 * np.sin(t * (0.3 - 1e-7 * t)) + noise).astype(np.float32)
