"""How fast is CLAP's sound encoder? Tallow against Transformers on PyTorch, in float32, and Tallow's int8.

    python bench/clap.py [--peer-python PYTHON] [--threads 2]

HTSAT in the size of laion/clap-htsat-unfused with random weights, the same on both sides, from spectrograms of one and
of two clips to their vectors. Operations are those of its matrix products, convolutions and attention.
"""

import sys
import tempfile

import numpy as np
from common import Worker, arguments, in_turn, limits, report, versions

OURS = """
import sys, numpy as np, tallow as tl
from common import serve
from tallow.models.clap import Clap
from tallow.models.checkpoint import open_checkpoint
folder, batch, threads, quantize = sys.argv[1:]
tl.set_num_threads(int(threads))
checkpoint = open_checkpoint(folder)
config = Clap.Config.from_dict(checkpoint.config)
model = Clap(config, tl.VarBuilder(checkpoint.source, quantize=quantize if quantize == "int8" else None))
mel = tl.asarray(np.random.default_rng(0).uniform(-80, 20, (int(batch), 1, 1001, 64)).astype(np.float32))
serve(lambda: model.audio_projection(model.audio_encoder(mel)).tolist(), 3)
"""
PEER = """
import os, sys, numpy as np, torch, transformers
from common import serve
folder, batch, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.set_grad_enabled(False)
torch.manual_seed(0)
small = {"num_hidden_layers": 1, "vocab_size": 1000}
model = transformers.ClapModel(transformers.ClapConfig(text_config=small)).eval()
for name, value in model.named_parameters():
    if value.dim() > 1:
        value.normal_(0, value[0].numel() ** -0.5)
if not os.listdir(folder):
    model.save_pretrained(folder)
mel = torch.from_numpy(np.random.default_rng(0).uniform(-80, 20, (int(batch), 1, 1001, 64)).astype(np.float32))
serve(lambda: model.get_audio_features(input_features=mel).pooler_output.tolist(), 3)
"""


def operations(width=96, depths=(2, 2, 6, 2), patches=64**2, window=64):
    """Floating-point operations for one clip: two for every multiply-add.

    With d the width of a stage and n its patches: a block 2n·12d² and, in windows of w patches, 4nwd; merging 2n·8d²
    of the next stage's n/4 rows; the patch embedding 2n·16d.
    """
    total = 2 * patches * 16 * width
    for stage, depth in enumerate(depths):
        n, d = patches >> 2 * stage, width << stage
        total += depth * (2 * n * 12 * d * d + 4 * n * window * d)
        if stage + 1 < len(depths):
            total += 2 * (n // 4) * 8 * d * d
    return total


def main():
    args = arguments(__doc__, peer="torch and transformers").parse_args()
    for batch in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            workers = {"transformers": Worker(args.peer_python, PEER, (folder, batch, args.threads), args.threads)}
            for kind in ("float32", "int8"):
                argv = (folder, batch, args.threads, kind)
                workers[f"tallow {kind}"] = Worker(sys.executable, OURS, argv, args.threads)
            seconds, results = in_turn(workers, args.rounds)
            for worker in workers.values():
                worker.close()
        found = {name: np.array(vectors) for name, vectors in results.items()}
        theirs, ours, small = found["transformers"], found["tallow float32"], found["tallow int8"]
        error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
        cosine = float((theirs * small).sum(-1).min())
        limit, _ = limits(args.threads)
        ratio, ratio8 = (seconds["transformers"] / seconds[f"tallow {kind}"] for kind in ("float32", "int8"))
        share = batch * operations() / seconds["tallow float32"] / limit
        verdict = (
            f"HTSAT, batch {batch}, {args.threads} threads: Tallow float32 {batch / seconds['tallow float32']:.1f} "
            f"clips/s ({share:.0%} of the multiply-add loop), int8 {batch / seconds['tallow int8']:.1f}, Transformers "
            f"{batch / seconds['transformers']:.1f}: {ratio:.2f}× and {ratio8:.2f}×; relative error {error:.1e}, "
            f"int8's least cosine {cosine:.5f}"
        )
        figures = {"seconds": seconds, "ratio": ratio, "int8 ratio": ratio8, "share": share, "error": error,
                   "int8 cosine": cosine, "batch": batch, "threads": args.threads,
                   "multiply-add loop": limit}  # fmt: skip
        report("clap", figures, verdict, versions("torch", "transformers", python=args.peer_python))


if __name__ == "__main__":
    main()
