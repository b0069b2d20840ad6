"""Does `tallow embed` keep the cores busy? 500 JPEGs of 12 megapixels, ViT-B, beside what the parts take alone.

    python bench/embed_photos.py FOLDER [--threads 2] [--photos 500]

FOLDER is where the photos lie, or will: they are made if they are not there. The parts are the model, on batches of the
same size, and decoding and resizing, one photo after another in one thread. Were the cores never idle and nothing else
to do, the command would take the model's time and that of decoding and resizing over the cores.
"""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from common import TALLOW, arguments, report, versions
from pictures import publish, take_photos

BATCH = 8  # what the command computes at once


def main():
    parser = arguments(__doc__, ("folder", "of photos"), rounds=6, peer=None)
    parser.add_argument("--photos", type=int, default=500, help="how many (%(default)s)")
    args = parser.parse_args()
    names = take_photos(args.folder, args.photos)
    megabytes = sum(map(os.path.getsize, names)) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        publish(folder, "vitb16")
        before = parts(folder, names, args)
        total = command(folder, args)
        after = parts(folder, names, args)
    model, decoding = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    alone = model + decoding / args.threads
    verdict = (
        f"{args.photos} JPEGs of 12 megapixels, ViT-B, {args.threads} threads: {total:.1f} s; the model alone "
        f"{model:.1f} s, decoding and resizing {decoding:.1f} s in one thread: {total / alone:.2f} × what they would "
        f"take at best; {args.photos / total:.1f} photos a second"
    )
    figures = {
        "seconds": {"command": total, "model": model, "decode and resize": decoding}, "threads": args.threads,
        "photos": args.photos, "megabytes": megabytes, "command / (model + decode / threads)": total / alone,
    }  # fmt: skip
    report("embed_photos", figures, verdict, versions("pillow", "numpy"))


def parts(folder, names, args):
    """Seconds that the model, and decoding and resizing in one thread, take for all photos: from a sample of them."""
    import tallow as tl
    from tallow.media.image import load_image

    tl.set_num_threads(args.threads)
    vit = tl.load(folder, device="cpu")
    pixels = tl.asarray(np.random.default_rng(0).standard_normal((BATCH, 3, 224, 224), np.float32))
    vit.embed(pixels)
    begun = time.perf_counter()
    for _ in range(args.rounds):
        vit.embed(pixels)
    model = (time.perf_counter() - begun) / args.rounds / BATCH * len(names)
    sample = names[:20]
    begun = time.perf_counter()
    for name in sample:
        load_image(name, 224)
    return model, (time.perf_counter() - begun) / len(sample) * len(names)


def command(folder, args):
    """Seconds that the command takes, from the process's start to its end."""
    with tempfile.TemporaryDirectory() as place:
        out = os.path.join(place, "vectors.npy")
        environment = {**os.environ, "TALLOW_NUM_THREADS": str(args.threads)}
        begun = time.perf_counter()
        ours = [*TALLOW, "embed", args.folder, "--model", folder, "--out", out]
        status = subprocess.run(ours, env=environment, check=False).returncode
        seconds = time.perf_counter() - begun
        if status or len(np.load(out)) != args.photos:
            sys.exit(f"tallow embed ended with status {status}")
    return seconds


if __name__ == "__main__":
    main()
