"""From a process's start to its first printed token: `tallow generate` and a minimal llama-cpp-python script, in turn.

    python bench/cold_generate.py MODEL [--peer-python PYTHON] [--threads 2]

MODEL is a GGUF file, which both read. The prompt has about 20 tokens; decoding is greedy.
"""

from common import TALLOW, arguments, report, starts_in_turn, versions

PROMPT = "The capital of France is a city that many people visit in the spring, and its name is"
PEER = """
import sys
from llama_cpp import Llama
threads = int(sys.argv[3])
model = Llama(sys.argv[1], n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)
for piece in model(sys.argv[2], max_tokens=1, temperature=0, stream=True):
    print(piece["choices"][0]["text"], end="", flush=True)
"""


def main():
    args = arguments(__doc__, ("model", "a GGUF file"), peer="llama-cpp-python").parse_args()
    ours = [*TALLOW, "generate", "--model", args.model, "--max-tokens", "1", "--temperature", "0", PROMPT]
    peer = [args.peer_python, "-c", PEER, args.model, PROMPT, str(args.threads)]
    seconds, megabytes, texts = starts_in_turn({"tallow": ours, "llama.cpp": peer}, args.rounds, args.threads)
    ratio = seconds["llama.cpp"] / seconds["tallow"]
    verdict = (
        f"first token, {args.threads} threads: Tallow {seconds['tallow']:.3f} s, llama.cpp "
        f"{seconds['llama.cpp']:.3f} s: {ratio:.2f}×; peak {megabytes['tallow']:.0f} and "
        f"{megabytes['llama.cpp']:.0f} MB"
    )
    figures = {"seconds": seconds, "peak MB": megabytes, "ratio": ratio, "texts": texts, "threads": args.threads}
    report("cold_generate", figures, verdict, versions("llama-cpp-python", python=args.peer_python))


if __name__ == "__main__":
    main()
