"""How fast does DINOv3 turn pixels into vectors? Tallow against Transformers on PyTorch and ONNX Runtime, in turn.

    python bench/dinov3.py {vits16,vitb16} {1,8} [--peer-python PYTHON] [--threads 2]

Pixels are 224 × 224 and normalised, 1 or 8 pictures at once; weights are random and written by the peer. It also says
what share of the machine's multiply-add loop, measured before and after, Tallow's float32 reaches, and how near the
vectors of int8 are to PyTorch's. Needs PyTorch, Transformers, ONNX Runtime, onnx and onnxscript on the peer's side.

What a machine with AVX2 alone would do is measured with these set, which keep Tallow and PyTorch to it, but not ONNX
Runtime: TALLOW_CPU=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from common import Worker, arguments, in_turn, limits, report, versions
from dinov3_sides import MAKE, ONNX, OURS, TORCH, operations

MODELS = {"vits16": (384, 6, 12), "vitb16": (768, 12, 12)}
PICTURES = {"size": {"height": 224, "width": 224}}


def main():
    parser = arguments(__doc__, rounds=9, peer="transformers")
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("batch", type=int, choices=(1, 8))
    args = parser.parse_args()
    sizes = MODELS[args.model]
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run([args.peer_python, "-c", MAKE, folder, *map(str, sizes)], capture_output=True, text=True)
        if made.returncode:
            sys.exit(made.stderr)
        with open(os.path.join(folder, "preprocessor_config.json"), "w") as file:
            json.dump(PICTURES, file)
        seconds, results, speed = measure(args, folder)
    exact = np.array(results["torch"])
    cosines = {name: float((np.array(results[name]) * exact).sum(1).min()) for name in ("tallow", "int8", "onnx")}
    work = args.batch * operations(sizes[0], sizes[2])
    figures = {
        "milliseconds": {name: 1000 * value for name, value in seconds.items()}, "threads": args.threads,
        "share of multiply-adds": work / speed / seconds["tallow"], "multiply-adds": speed, "cosines": cosines,
        **{f"{peer} / {our}": seconds[peer] / seconds[our] for our in ("tallow", "int8") for peer in ("torch", "onnx")},
    }  # fmt: skip
    verdict = (
        "{0} batch {1}, {2} threads: Tallow {tallow:.1f} ms, PyTorch {torch:.1f}, ONNX Runtime {onnx:.1f}: "
        "{3:.2f}× and {4:.2f}×, {5:.0%} of the multiply-add loop; int8 {int8:.1f} ms, {6:.2f}× PyTorch, cosine {7:.5f}"
    ).format(
        args.model, args.batch, args.threads, figures["torch / tallow"], figures["onnx / tallow"],
        figures["share of multiply-adds"], figures["torch / int8"], cosines["int8"], **figures["milliseconds"],
    )  # fmt: skip
    report("dinov3", {"model": args.model, "batch": args.batch, **figures}, verdict,
           versions("torch", "transformers", "onnxruntime", python=args.peer_python))  # fmt: skip


def measure(args, folder):
    """Median seconds and results of every side, and the speed of the multiply-add loop."""
    argv = (folder, args.batch, args.threads)
    workers = {
        "tallow": Worker(sys.executable, OURS, (*argv, "float32"), args.threads),
        "int8": Worker(sys.executable, OURS, (*argv, "int8"), args.threads),
        "torch": Worker(args.peer_python, TORCH, argv, args.threads),
        "onnx": Worker(args.peer_python, ONNX, argv, args.threads),
    }
    before = limits(args.threads)[0]
    seconds, results = in_turn(workers, args.rounds, rest=0.3)
    speed = (before + limits(args.threads)[0]) / 2
    for worker in workers.values():
        worker.close()
    return seconds, results, speed


if __name__ == "__main__":
    main()
