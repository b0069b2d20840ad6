"""How much of a decoding step is not spent in the recorded kernels: Python, choosing a token, and turning it to text?

    python bench/decode_overhead.py MODEL [--threads 2] [--rounds 5]

A warm model writes 128 tokens, greedily. The time from token to token is held against the time inside the recording's
replay; the first tokens, in which the step is recorded, are left out.
"""

import statistics
import time

from common import arguments, report, versions

TOKENS, FIRST = 128, 8


def main():
    args = arguments(__doc__, ("model", "a GGUF file or a folder"), rounds=5, peer=None).parse_args()
    import tallow as tl
    from tallow.runtime.capture import Recording

    tl.set_num_threads(args.threads)
    model = tl.load(args.model)
    replay, inside = Recording.replay, []

    def timed(self):
        begun = time.perf_counter()
        result = replay(self)
        inside.append(time.perf_counter() - begun)
        return result

    Recording.replay = timed
    shares, steps = [], []
    for _ in range(args.rounds + 1):
        inside.clear()
        ticks = []
        for _ in model.generate("Once upon a time", max_tokens=TOKENS, temperature=0, ignore_eos=True, stream=True):
            ticks.append(time.perf_counter())
        between = [later - earlier for earlier, later in zip(ticks[FIRST:-1], ticks[FIRST + 1 :], strict=True)]
        kernels = inside[-len(between) :]
        shares.append(1 - sum(kernels) / sum(between))
        steps.append(statistics.median(between))
    share, step = statistics.median(shares[1:]), statistics.median(steps[1:])
    verdict = f"{args.threads} threads: {100 * share:.1f} % of a step of {1e3 * step:.2f} ms lies outside the kernels"
    report("decode_overhead", {"share": share, "step": step, "threads": args.threads}, verdict, versions("numpy"))


if __name__ == "__main__":
    main()
