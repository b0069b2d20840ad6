"""How fast do DINOv3 ViT-L/16, CLAP's HTSAT and Whisper large-v3-turbo run on an NVIDIA GPU?

    python bench/cuda_encoders.py

Random weights of the published sizes. Pictures and spectrograms lie on the card already. Whisper: one or 16 windows
of 30 seconds, the encoder and 100 tokens each, fed with fixed tokens, of which each depends on the step before.
"""

import numpy as np
from cuda_common import builder, limits, milliseconds, report, seconds

from tallow import ops
from tallow.models.clap import Clap, ClapConfig
from tallow.models.dinov3.vit import DINOv3ViT, DINOv3ViTConfig
from tallow.models.whisper import Whisper, WhisperConfig
from tallow.runtime.encoding import encode
from tallow.runtime.step import RecordedStep
from tallow.tensor import Tensor

TURBO = {
    "vocab_size": 51866, "num_mel_bins": 128, "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120, "decoder_layers": 4, "decoder_attention_heads": 20, "decoder_ffn_dim": 5120,
    "max_target_positions": 448,
}  # fmt: skip
LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "patch_size": 16, "image_size": 224, "num_register_tokens": 4,
}  # fmt: skip


def numbers(*shape, dtype="bfloat16"):
    return Tensor(np.random.default_rng(0).standard_normal(shape, np.float32)).to("cuda").to(dtype)


def encoder_operations(b, n, dim, hidden, layers):
    return 2 * b * n * layers * (4 * dim * dim + 2 * dim * hidden + 2 * n * dim)


def vision(rate):
    model = DINOv3ViT(DINOv3ViTConfig.from_dict(LARGE), builder())
    pixels = numbers(64, 3, 224, 224)
    took = milliseconds(lambda: encode(model, pixels))
    share = encoder_operations(64, 201, 1024, 4096, 24) / took * 1e3 / rate
    verdict = f"DINOv3 ViT-L/16 bfloat16, batch 64: {64e3 / took:.0f} img/s ({share:.0%} of the product's rate)"
    report("cuda_encoders", verdict, {"milliseconds": took, "share": share})


def sound(rate):
    from clap import operations

    model = Clap(ClapConfig.from_dict({}), builder())
    for batch in (32, 128):
        mel = numbers(batch, 1, 1001, 64)
        took = milliseconds(lambda mel=mel: model.audio_projection(encode(model.audio_encoder, mel)))
        share = batch * operations() / took * 1e3 / rate
        verdict = (
            f"CLAP HTSAT bfloat16, batch {batch}: {batch * 1e3 / took:.0f} clips/s ({share:.0%} of the product's rate)"
        )
        report("cuda_encoders", verdict, {"milliseconds": took, "share": share})


def speech(rate):
    model = Whisper(WhisperConfig.from_dict(TURBO), builder())
    for windows in (1, 16):
        mel = numbers(windows, 128, 3000)

        def window(mel=mel, windows=windows):
            heard = encode(model.encoder, mel)
            memories = [layer.cross.remember(heard) for layer in model.decoder.layers]
            text = model.decoder.new_caches(windows)
            for cache in text:
                cache.select([0] * windows)
            step = RecordedStep(
                lambda ids: ops.argmax(model.decoder.logits(model.decoder(ids, text, memories)), axis=-1), text
            )
            for token in range(100):
                chosen = step([token] * windows).numpy()
            return chosen

        took, encoder = seconds(window) * 1e3, milliseconds(lambda mel=mel: encode(model.encoder, mel))
        share = encoder_operations(windows, 1500, 1280, 5120, 32) / encoder * 1e3 / rate
        verdict = (
            f"Whisper large-v3-turbo bfloat16, {windows} windows and 100 tokens each: {took:.0f} ms, {encoder:.1f} of "
            f"them the encoder ({share:.0%} of the product's rate)"
        )
        report("cuda_encoders", verdict, {"milliseconds": took, "encoder_ms": encoder, "share": share})


def main():
    _, rate = limits()
    for part in (vision, sound, speech):
        part(rate)


if __name__ == "__main__":
    main()
