"""How fast do DINOv3 ViT-L/16, CLAP's HTSAT and Whisper large-v3-turbo run on an NVIDIA GPU, beside Transformers?

    python bench/cuda_encoders.py [dinov3] [clap] [whisper] [--peer-python PYTHON]

Random weights of the published sizes, bfloat16 (Transformers' CLAP and Whisper in float16). Pictures and spectrograms
lie on the card already. DINOv3 is compiled there. Whisper: one or 16 windows of 30 seconds, the encoder and 100 tokens
each; here fed with fixed tokens, of which each depends on the step before.
"""

import numpy as np
from cuda_common import arguments, beside_peer, builder, limits, milliseconds, ratios, report, seconds
from cuda_sizes import BATCH, LARGE, TOKENS, TURBO, WINDOWS

from tallow import ops
from tallow.engine.step import CapturedStep
from tallow.models.clap import Clap, ClapConfig
from tallow.models.dinov3.vit import DINOv3ViT, DINOv3ViTConfig
from tallow.models.whisper import Whisper, WhisperConfig
from tallow.runtime.encoding import encode
from tallow.tensor import Tensor


def numbers(*shape, dtype="bfloat16"):
    return Tensor(np.random.default_rng(0).standard_normal(shape, np.float32)).to("cuda").to(dtype)


def encoder_operations(b, n, dim, hidden, layers):
    return 2 * b * n * layers * (4 * dim * dim + 2 * dim * hidden + 2 * n * dim)


def vision(rate, args):
    model, batch = DINOv3ViT(DINOv3ViTConfig.from_dict(LARGE), builder()), BATCH["dinov3"]
    pixels = numbers(batch, 3, 224, 224)
    mine, theirs = beside_peer("dinov3", lambda: {"batch": milliseconds(lambda: encode(model, pixels))}, args)
    share = encoder_operations(batch, 201, 1024, 4096, 24) / mine["batch"] * 1e3 / rate
    found, told = ratios(mine, theirs)
    verdict = (
        f"DINOv3 ViT-L/16 bfloat16, batch {batch}: {batch * 1e3 / mine['batch']:.0f} img/s, {mine['batch']:.1f} ms "
        f"({share:.0%} of the product's rate){told}"
    )
    report("cuda_encoders", verdict, figures(mine, theirs, found, share), args)


def sound(rate, args):
    from clap import operations

    model, batch = Clap(ClapConfig.from_dict({}), builder()), BATCH["clap"]
    mel = numbers(batch, 1, 1001, 64)

    def ours():
        return {"batch": milliseconds(lambda: model.audio_projection(encode(model.audio_encoder, mel)))}

    mine, theirs = beside_peer("clap", ours, args)
    share = batch * operations() / mine["batch"] * 1e3 / rate
    found, told = ratios(mine, theirs)
    verdict = (
        f"CLAP HTSAT bfloat16, batch {batch}: {batch * 1e3 / mine['batch']:.0f} clips/s, {mine['batch']:.2f} ms "
        f"({share:.0%} of the product's rate){told}"
    )
    report("cuda_encoders", verdict, figures(mine, theirs, found, share), args)


def speech(rate, args):
    model = Whisper(WhisperConfig.from_dict(TURBO), builder())
    sounds = {windows: numbers(windows, 128, 3000) for windows in WINDOWS}

    def write(mel):
        windows = mel.shape[0]
        heard = encode(model.encoder, mel)
        memories = [layer.cross.project_kv(heard) for layer in model.decoder.layers]
        text = model.decoder.new_caches(windows)
        for cache in text:
            cache.select([0] * windows)
        step = CapturedStep(
            lambda ids: ops.argmax(model.decoder.logits(model.decoder(ids, text, memories)), axis=-1), text
        )
        for token in range(TOKENS):
            chosen = step([token] * windows).numpy()
        return chosen

    def ours():
        found = {}
        for windows, mel in sounds.items():
            found[f"window {windows}"] = seconds(lambda mel=mel: write(mel)) * 1e3
            found[f"encoder {windows}"] = milliseconds(lambda mel=mel: encode(model.encoder, mel))
        return found

    mine, theirs = beside_peer("whisper", ours, args)
    found, told = ratios(mine, theirs)
    shares = {
        windows: encoder_operations(windows, 1500, 1280, 5120, 32) / mine[f"encoder {windows}"] * 1e3 / rate
        for windows in WINDOWS
    }
    parts = [
        f"{windows} windows and {TOKENS} tokens each {mine[f'window {windows}']:.0f} ms, "
        f"{mine[f'encoder {windows}']:.1f} of them the encoder ({shares[windows]:.0%} of the product's rate)"
        for windows in WINDOWS
    ]
    verdict = f"Whisper large-v3-turbo bfloat16: {', '.join(parts)}{told}"
    report("cuda_encoders", verdict, figures(mine, theirs, found, shares), args)


def figures(mine, theirs, found, share):
    return {"milliseconds": mine, "transformers": theirs, "ratios": found, "share": share}


PARTS = {"dinov3": vision, "clap": sound, "whisper": speech}


def main():
    args = arguments(__doc__, PARTS)
    _, rate = limits()
    for part in args.parts:
        PARTS[part](rate, args)


if __name__ == "__main__":
    main()
