"""How fast is a product of matrices? Tallow's packed product against NumPy's, and against a loop of multiply-adds.

    python bench/matmul.py [--threads 2]

1500×512 by 512×2048 in float32: a layer of Whisper base's encoder. NumPy runs without the OPENBLAS_* variables. With
more than one thread it also says how many times faster that is than one.
"""

import sys

from common import Worker, arguments, in_turn, limits, report, versions

SHAPE = M, K, N = 1500, 512, 2048
OURS = """
import sys, numpy as np, tallow as tl
from common import serve
from tallow import ops
from tallow.matrix.weight import make_weight
tl.set_num_threads(int(sys.argv[1]))
m, k, n = map(int, sys.argv[2:])
x, weight = (np.random.randn(*s).astype(np.float32) for s in ((m, k), (n, k)))
x, weight = tl.asarray(x), make_weight(weight, "float32")
def work():
    for _ in range(20):
        ops.linear(x, weight)
serve(work)
"""
NUMPY = """
import sys, numpy as np
from common import serve
m, k, n = map(int, sys.argv[2:])
x, weight, out = (np.random.randn(*s).astype(np.float32) for s in ((m, k), (n, k), (m, n)))
def work():
    for _ in range(20):
        np.matmul(x, weight.T, out=out)
serve(work)
"""


def main():
    args = arguments(__doc__, peer=None).parse_args()
    threads = args.threads
    workers = {"tallow": Worker(sys.executable, OURS, (threads, *SHAPE), threads)}
    workers["numpy"] = Worker(sys.executable, NUMPY, (threads, *SHAPE), threads)
    if threads > 1:
        workers["tallow, 1 thread"] = Worker(sys.executable, OURS, (1, *SHAPE), 1)
    seconds, _ = in_turn(workers, args.rounds)
    for worker in workers.values():
        worker.close()
    limit, _ = limits(threads)
    speed = {name: 20 * 2 * M * K * N / value for name, value in seconds.items()}
    verdict = (
        f"{M}×{K}×{N} float32, {threads} threads: Tallow {speed['tallow'] / 1e9:.0f} GFLOP/s, NumPy "
        f"{speed['numpy'] / 1e9:.0f} ({speed['tallow'] / speed['numpy']:.2f}×), multiply-add loop {limit / 1e9:.0f} "
        f"({speed['tallow'] / limit:.0%} of it)"
    )
    if threads > 1:
        verdict += f"; {speed['tallow'] / speed['tallow, 1 thread']:.1f}× one thread"
    report("matmul", {**speed, "multiply-add loop": limit, "threads": threads}, verdict, versions("numpy"))


if __name__ == "__main__":
    main()
