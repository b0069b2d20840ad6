"""How fast is the exact search? tl.search.top_k against faiss-cpu's IndexFlatIP, in turn.

    python bench/top_k.py [--peer-python PYTHON] [--threads 2]

The 10 best of 1 million random vectors of 384 dimensions in float32, for 1 query and for 64 at once, and of the same
vectors in float16 and int8. One query is bound by reading the vectors, so it is given as a share of the machine's
memory bandwidth; 64 queries by arithmetic, as a share of a loop of multiply-adds.

Left to itself, faiss 1.15 computes 64 queries with loops of its own, at a sixth of the speed that it has with its BLAS;
it is told to take the BLAS for 20 queries or more, as earlier versions did.
"""

import sys

from common import Worker, arguments, in_turn, limits, report, versions

ROWS, DIM, K = 1_000_000, 384, 10
DATA = f"""
import sys, numpy as np
from common import serve
queries, threads = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
vectors = np.empty(({ROWS}, {DIM}), np.float32)
for rows in np.split(vectors, 100):
    rows[:] = rng.standard_normal(rows.shape, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
asked = rng.standard_normal((queries, {DIM}), np.float32)
"""
OURS = f"""{DATA}
import tallow as tl
tl.set_num_threads(threads)
kind = sys.argv[3]
vectors = np.round(vectors * 127).astype(np.int8) if kind == "int8" else vectors.astype(kind, copy=False)
serve(lambda: tl.search.top_k(asked, vectors, {K})[1].tolist())
"""
PEER = f"""{DATA}
import faiss
faiss.omp_set_num_threads(threads)
faiss.cvar.distance_compute_blas_threshold = 20
index = faiss.IndexFlatIP({DIM})
index.add(vectors)
del vectors
serve(lambda: index.search(asked, {K})[1].tolist())
"""


def main():
    args = arguments(__doc__, peer="faiss-cpu").parse_args()
    for queries in (1, 64):
        argv = queries, args.threads
        workers = {"faiss": Worker(args.peer_python, PEER, argv, args.threads)}
        for kind in ("float32", "float16", "int8"):
            workers[kind] = Worker(sys.executable, OURS, (*argv, kind), args.threads)
        seconds, results = in_turn(workers, args.rounds)
        for worker in workers.values():
            worker.close()
        operations, read = limits(args.threads)
        bandwidth = ROWS * DIM * 4 / read / seconds["float32"]
        arithmetic = 2 * ROWS * DIM * queries / operations / seconds["float32"]
        ratio = seconds["faiss"] / seconds["float32"]
        share = f"{bandwidth:.0%} of memory bandwidth" if queries == 1 else f"{arithmetic:.0%} of the multiply-add loop"
        same = results["float32"] == results["faiss"]
        verdict = (
            f"top {K} of {ROWS:,} × {DIM}, {queries} quer{'y' if queries == 1 else 'ies'}, {args.threads} threads: "
            f"float32 {seconds['float32'] * 1e3:.1f} ms ({share}), float16 {seconds['float16'] * 1e3:.1f}, int8 "
            f"{seconds['int8'] * 1e3:.1f}; faiss {seconds['faiss'] * 1e3:.1f} ms: {ratio:.2f}×; "
            f"{'the same vectors' if same else 'OTHER VECTORS'}"
        )
        figures = {"seconds": seconds, "ratio": ratio, "queries": queries, "threads": args.threads, "same": same,
                   "bandwidth": bandwidth, "arithmetic": arithmetic, "read": read,
                   "multiply-add loop": operations}  # fmt: skip
        report("top_k", figures, verdict, versions("faiss-cpu", python=args.peer_python))


if __name__ == "__main__":
    main()
