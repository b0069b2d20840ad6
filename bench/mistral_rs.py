"""How fast does a small language model read and write? Tallow against mistral.rs (Candle), warm, in turn.

    python bench/mistral_rs.py SMOLLM2.gguf [--peer-python PYTHON] [--threads 2] [--rounds 5]

Each side reads a text of about 512 tokens and goes on with 64 of its own, greedily, and tells how long either took;
mistral.rs keeps no prefix from turn to turn.
"""

import os
import statistics
import sys
from pathlib import Path

from common import Worker, arguments, report, versions

TOKENS = 64
OURS = f"""
import sys, tallow as tl
from common import serve
tl.set_num_threads(int(sys.argv[2]))
model, text = tl.load(sys.argv[1]), sys.argv[3]
def work():
    result = model.generate(text, max_tokens={TOKENS}, temperature=0, ignore_eos=True)
    return [result.prompt_tokens / result.timings.prefill, len(result.ids) / result.timings.decode]
serve(work)
"""
PEER = f"""
import os, sys
from common import serve
os.environ["RAYON_NUM_THREADS"] = sys.argv[2]
from mistralrs import CompletionRequest, Runner, Which
folder, file = os.path.split(sys.argv[1])
model = Runner(which=Which.GGUF(quantized_model_id=folder, quantized_filename=file), prefix_cache_n=0)
def work():
    request = CompletionRequest(model="default", prompt=sys.argv[3], max_tokens={TOKENS}, temperature=0.0)
    used = model.send_completion_request(request).usage
    return [used.prompt_tokens / used.total_prompt_time_sec, used.completion_tokens / used.total_completion_time_sec]
serve(work)
"""


def main():
    args = arguments(__doc__, ("model", "a GGUF file"), rounds=5, peer="mistralrs").parse_args()
    text = " ".join(Path(__file__).with_name("prose.txt").read_text().split()[:410])
    argv = (os.path.abspath(args.model), args.threads, text)
    workers = {
        "tallow": Worker(sys.executable, OURS, argv, args.threads),
        "mistral.rs": Worker(args.peer_python, PEER, argv, args.threads),
    }
    rates = {name: [] for name in workers}
    for _ in range(args.rounds):
        for name, worker in workers.items():
            rates[name].append(worker.run()[1])
    for worker in workers.values():
        worker.close()
    prefill, decode = (
        {name: statistics.median(pair[part] for pair in pairs) for name, pairs in rates.items()} for part in (0, 1)
    )
    verdict = f"{args.threads} threads, tokens a second of Tallow and mistral.rs: " + ", ".join(
        f"{what} {found['tallow']:.0f} and {found['mistral.rs']:.0f}: {found['tallow'] / found['mistral.rs']:.1f}×"
        for what, found in (("decode", decode), ("prefill", prefill))
    )
    figures = {"decode": decode, "prefill": prefill, "threads": args.threads}
    report("mistral_rs", figures, verdict, versions("mistralrs", python=args.peer_python))


if __name__ == "__main__":
    main()
