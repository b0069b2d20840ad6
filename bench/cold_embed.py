"""From a process's start to its first printed vector: `tallow embed` with a ViT-S and a Transformers script, in turn.

    python bench/cold_embed.py [--peer-python PYTHON] [--threads 2]

The picture is a JPEG of 12 megapixels; the weights are random, in float32, and the same for both.
"""

import os
import tempfile

from common import TALLOW, arguments, report, starts_in_turn, versions
from pictures import photo, publish

PEER = """
import sys, numpy as np, torch
from PIL import Image
from transformers import DINOv3ViTModel
torch.set_num_threads(int(sys.argv[3]))
model = DINOv3ViTModel.from_pretrained(sys.argv[1]).eval()
picture = np.asarray(Image.open(sys.argv[2]).convert("RGB").resize((224, 224)), np.float32) / 255
picture = (picture - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
with torch.no_grad():
    vector = model(torch.from_numpy(picture.transpose(2, 0, 1)[None])).pooler_output[0]
print((vector / vector.norm()).tolist(), flush=True)
"""


def main():
    args = arguments(__doc__, rounds=7, peer="transformers").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        publish(folder, "vits16")
        picture = os.path.join(folder, "photo.jpg")
        photo(0).save(picture, quality=90)
        ours = [*TALLOW, "embed", picture, "--model", folder]
        peer = [args.peer_python, "-c", PEER, folder, picture, str(args.threads)]
        commands = {"tallow": ours, "transformers": peer}
        seconds, _, _ = starts_in_turn(commands, args.rounds, args.threads)
    ratio = seconds["transformers"] / seconds["tallow"]
    verdict = (
        f"first vector, ViT-S, {args.threads} threads: Tallow {seconds['tallow']:.3f} s, Transformers "
        f"{seconds['transformers']:.3f} s: {ratio:.1f}×"
    )
    figures = {"seconds": seconds, "ratio": ratio, "threads": args.threads}
    report("cold_embed", figures, verdict, versions("torch", "transformers", python=args.peer_python))


if __name__ == "__main__":
    main()
