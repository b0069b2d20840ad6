"""A small byte-level vocabulary, as a file and as GGUF's metadata."""

import struct

import numpy as np
from tokenizers import AddedToken, decoders, pre_tokenizers, trainers
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE

from tallow.weights.gguf_header import StringArray

TEXT = ["the cat sat on the mat, the cat ran", "naïve café — 東京は晴れ, 東京は雨", "don't stop; 12345 can't\n\nstop"]
SPECIAL = ["<|im_start|>", "<|im_end|>"]
PLAIN = ["<think>", "</think>"]


def strings(texts):
    """What a file has, and its reader gives, for a list of strings."""
    data = b"".join(struct.pack("<Q", len(text.encode())) + text.encode() for text in texts)
    return StringArray(data, 0, len(texts), "x")


def byte_level(size=330):
    """A trained ``tokenizers.Tokenizer`` with two special and two plain added tokens."""
    encoder = Encoder(BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    encoder.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    encoder.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    encoder.add_tokens([AddedToken(token, special=False) for token in PLAIN])
    return encoder


def as_gguf(encoder, pre="gpt-2", **changes):
    """The same vocabulary as a GGUF file's metadata has it."""
    import json

    vocab = encoder.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    types = [3 if token in SPECIAL else 4 if token in PLAIN else 1 for token in tokens]
    merges = [" ".join(merge) for merge in json.loads(encoder.to_str())["model"]["merges"]]
    said = {"model": "gpt2", "pre": pre, "tokens": strings(tokens), "merges": strings(merges),
            "token_type": np.int32(types), "eos_token_id": vocab["<|im_end|>"]}  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in (said | changes).items() if value is not None}
