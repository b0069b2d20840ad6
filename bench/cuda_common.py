"""What the benchmarks of an NVIDIA GPU share: random weights, times by the card's own clock, Transformers working in
turn with Tallow, and the records."""

import argparse
import datetime
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cupy
import ml_dtypes
import numpy as np
from common import Worker, versions

import tallow as tl
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.blocks import BY_NAME
from tallow.weights.random import RandomSource

RESULTS = Path(__file__).parent / "results"
POOL = 1 << 26  # numbers of which all large matrices are made


class Repeated(RandomSource):
    """Random weights of the published sizes in bfloat16 without waiting for them: matrices are cut out of one pool."""

    def __init__(self):
        super().__init__(0)
        pool = np.random.default_rng(0).standard_normal(POOL, np.float32)
        self.pool = (pool * np.float32(0.02)).astype(ml_dtypes.bfloat16)

    def draw(self, name, shape):
        size = math.prod(shape)
        if len(shape) < 2:
            return super().draw(name, shape)
        begin = hash(name) % (POOL // 2)
        return np.resize(self.pool[begin:], size).reshape(shape)


class RepeatedBlocks(Repeated):
    """Likewise, but matrices are Q4_1 blocks, as ``quantize="int4"`` makes them."""

    kind = BY_NAME["q4_1"]

    def __init__(self):
        super().__init__()
        generator = np.random.default_rng(0)
        blocks = np.zeros(POOL // self.kind.elements, self.kind.layout)
        blocks["qs"] = generator.integers(0, 256, blocks["qs"].shape, np.uint8)
        blocks["d"] = generator.uniform(0.003, 0.005, len(blocks))
        blocks["m"] = blocks["d"] * np.float16(-7.5)
        self.blocks = blocks.view(np.uint8)

    def draw(self, name, shape):
        if len(shape) != 2:
            return super().draw(name, shape)
        width = shape[1] // self.kind.elements * self.kind.nbytes
        return BlockMatrix([np.resize(self.blocks, shape[0] * width).reshape(shape[0], width)], self.kind)


def builder(dtype="bfloat16", quantize=None):
    """Random weights on the card."""
    return tl.VarBuilder(
        RepeatedBlocks() if quantize == "int4" else Repeated(), dtype=dtype, device="cuda", quantize=quantize
    )


def milliseconds(call, runs=10, warm=3):
    """The median time of a call on the card's clock, launches included."""
    for _ in range(warm):
        call()
    found = []
    for _ in range(runs):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        call()
        end.record()
        end.synchronize()
        found.append(cupy.cuda.get_elapsed_time(begin, end))
    return statistics.median(found)


def seconds(call, runs=3):
    """The median time of a call that waits for its own result."""
    call()
    found = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def limits():
    """(bytes a second of a copy, counted twice; operations a second of a bfloat16 product), measured now."""
    from tallow import ops

    n = 8192
    numbers = np.random.default_rng(0).standard_normal((2, n, n), np.float32)
    a, b = (tl.asarray(matrix, dtype="bfloat16", device="cuda") for matrix in numbers)
    return copied(), 2 * n**3 / milliseconds(lambda: ops.linear(a, b)) * 1e3


def copied(count=128):
    """Bytes a second that a copy of 2 GiB moves, counted twice."""
    x = cupy.tile(cupy.asarray(np.random.default_rng(0).integers(0, 255, 1 << 24, np.uint8)), count)
    y = cupy.empty_like(x)
    return 2 * x.nbytes / milliseconds(lambda: cupy.copyto(y, x)) * 1e3


def arguments(description, parts, rounds=3):
    """Parse a benchmark's command line: which of its parts, --peer-python and --rounds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)} (all)")
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each side (%(default)s)")
    help = "an interpreter that has torch and transformers (this one; without them Tallow is measured alone)"
    parser.add_argument("--peer-python", default=sys.executable, help=help)
    args = parser.parse_args()
    args.parts = args.parts or list(parts)
    unknown = set(args.parts) - set(parts)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return args


def has_peer(python):
    """Whether an interpreter has Transformers."""
    code = "import importlib.util as u, sys; sys.exit(not (u.find_spec('torch') and u.find_spec('transformers')))"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def beside_peer(part, ours, args):
    """Let Tallow, in this process, and Transformers work in turn.

    Args:
        part: of ``cuda_peers``.
        ours: gives milliseconds by name, as the peer does.
        args: from `arguments`.

    Returns:
        Two dicts of medians, Tallow's and Transformers'; the latter empty where there is none.
    """
    peer = None
    if has_peer(args.peer_python):
        peer = Worker(args.peer_python, "import cuda_peers; cuda_peers.main()", [part], 8)
    ours()  # warm, as the peer is when it says that it is ready
    mine, theirs = [], []
    for _ in range(args.rounds):
        mine.append(ours())
        if peer is not None:
            theirs.append(peer.run()[1])
    if peer is not None:
        peer.close()
    return tuple({name: statistics.median(turn[name] for turn in turns) for name in mine[0]} if turns else {}
                 for turns in (mine, theirs))  # fmt: skip


def ratios(mine, theirs):
    """How many times as long Transformers takes, by name; and the same in words, to end a verdict with."""
    found = {name: theirs[name] / took for name, took in mine.items() if name in theirs}
    told = ", ".join(f"{name} {theirs[name]:.1f} ms: {ratio:.2f}×" for name, ratio in found.items())
    return found, f"; Transformers: {told}" if found else ""


def report(question, verdict, figures, args=None):
    """Print a line, and keep it in results/ with the card, its driver, versions and the date.

    Args:
        question: names the file.
        verdict: the line.
        figures: that it stands on.
        args: from `arguments`, where there is a peer.
    """
    print(verdict, flush=True)
    RESULTS.mkdir(exist_ok=True)
    shown = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True
    )
    card, driver = (part.strip() for part in shown.stdout.splitlines()[0].split(","))
    python = args.peer_python if args else sys.executable
    peers = ("torch", "transformers") if args and has_peer(python) else ()
    entry = {
        "date": datetime.date.today().isoformat(), "verdict": verdict, "figures": figures,
        "machine": {"card": card, "driver": driver},
        "versions": {"cupy": cupy.__version__, **versions(*peers, python=python)},
    }  # fmt: skip
    with open(RESULTS / f"{question}.jsonl", "a") as file:
        file.write(json.dumps(entry) + "\n")
