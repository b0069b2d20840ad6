"""Does an NVIDIA GPU wait when pictures and sounds are embedded?

    python bench/cuda_embed.py [--photos 2048]

JPEGs of 500 x 375 pixels, a hundred of which differ, by DINOv3 of three sizes; clips of ten seconds in memory by CLAP's
HTSAT. Random weights of the published sizes in bfloat16. Beside the whole: the rate of the threads that decode and
resize (or make spectrograms) alone, and that of the model alone, on the card's own clock.
"""

import argparse
import io
import os
import tempfile
import time

import numpy as np
from cuda_common import builder, milliseconds, report
from cuda_encoders import LARGE, numbers

import tallow as tl
from tallow.media.prefetch import side_by_side
from tallow.models.clap import Clap, ClapConfig
from tallow.models.clap.config import FeatureConfig
from tallow.models.dinov3 import DINOv3ViT, DINOv3ViTConfig, PictureConfig
from tallow.models.dinov3.pictures import Preparation, prepared
from tallow.runtime.encoding import encode

SIZES = {
    "ViT-S/16": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536},
    "ViT-B/16": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "ViT-L/16": {},
}
DIFFERENT, BATCH, CLIPS = 100, 64, 32


def take_photos(folder, count):
    """Names of JPEGs with details of several sizes."""
    from PIL import Image

    random, files = np.random.default_rng(0), []
    for _ in range(DIFFERENT):
        parts = [random.integers(0, 256, (375 >> i, 500 >> i, 3), np.uint8) for i in (0, 2, 4, 6)]
        layers = [np.asarray(Image.fromarray(part).resize((500, 375)), np.float32) for part in parts]
        picture = sum(weight * layer for weight, layer in zip((0.1, 0.2, 0.3, 0.4), layers, strict=True))
        buffer = io.BytesIO()
        Image.fromarray(picture.astype(np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    names = [os.path.join(folder, f"{i}.jpg") for i in range(count)]
    for i, name in enumerate(names):
        with open(name, "wb") as file:
            file.write(files[i % DIFFERENT])
    return names


def rate(count, call, runs=2):
    """Items a second, the best of some runs after a first that warms up."""
    took = []
    for _ in range(runs + 1):
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    return count / min(took[1:])


def tell(name, what, whole, threads, model):
    verdict = (
        f"{name}: {whole:.0f} {what}/s; threads alone {threads:.0f} ({tl.get_num_threads()} of them), the model alone "
        f"{model:.0f}: {whole / min(threads, model):.2f} of the slower"
    )
    report("cuda_embed", verdict, {"whole": whole, "threads": threads, "model": model})


def photos(count):
    with tempfile.TemporaryDirectory() as folder:
        names = take_photos(folder, count)
        for fast in (False, True):
            prepare = Preparation(PictureConfig(), 16, fast_decode=fast, decoded=True)
            threads = rate(count, lambda prepare=prepare: sum(1 for _ in prepared(names, prepare, 2 * BATCH)))
            for name, sizes in SIZES.items():
                vit = DINOv3ViT(DINOv3ViTConfig.from_dict(LARGE | sizes), builder(), PictureConfig())
                pixels = numbers(BATCH, 3, 224, 224)
                model = BATCH * 1e3 / milliseconds(lambda vit=vit, pixels=pixels: encode(vit, pixels))
                whole = rate(count, lambda vit=vit, fast=fast: vit.embed(names, fast_decode=fast))
                tell(f"DINOv3 {name}, JPEGs{' at half size' if fast else ''}", "pictures", whole, threads, model)


def sounds(count=256):
    clap = Clap(ClapConfig.from_dict({}), builder(), FeatureConfig(truncation="rand_trunc"))
    recordings = [np.random.default_rng(i % 8).standard_normal(480_000, np.float32) * 0.1 for i in range(count)]
    mel = numbers(CLIPS, 1, 1001, 64)
    model = CLIPS * 1e3 / milliseconds(lambda: clap.audio_projection(encode(clap.audio_encoder, mel)))

    def spectrograms():
        works = (clap._clips(i, sound, "mean", None, None) for i, sound in enumerate(recordings))
        for clips in side_by_side(works, tl.get_num_threads(), 8):
            for _ in clips:
                pass

    threads = rate(count, spectrograms)
    whole = rate(count, lambda: clap.embed_audio(recordings))
    tell("CLAP HTSAT, clips in memory", "clips", whole, threads, model)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2048, help="how many (%(default)s)")
    photos(parser.parse_args().photos)
    sounds()


if __name__ == "__main__":
    main()
