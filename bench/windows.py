"""How fast does a model write whose layers see a window of 256 tokens, beside one whose layers see all? In turn.

    python bench/windows.py cpu|cuda [--threads 2] [--rounds 5]

Models of Qwen3-0.6B's sizes with random weights write 128 tokens, greedily, after a prompt of 1,000.
"""

import statistics

from common import arguments, report_of
from qwen3_sizes import SHARED, SIZES

PROMPT, TOKENS, WINDOW = list(range(1, 1001)), 128, 256


def model(device, **options):
    from tallow.models.qwen3 import Qwen3, Qwen3Config
    from tallow.weights.var_builder import VarBuilder

    config = Qwen3Config.from_dict(SIZES["0.6B"] | SHARED | options)
    return Qwen3(config, VarBuilder.random(0, "bfloat16" if device == "cuda" else None, device))


def main():
    args = arguments(__doc__, ("device", "cpu or cuda"), rounds=5, peer=None).parse_args()
    import tallow as tl

    tl.set_num_threads(args.threads)
    window = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 0}
    sides = {"all": model(args.device), "window": model(args.device, **window)}
    speeds = {name: [] for name in sides}
    for turn in range(1 + args.rounds):  # the first records the step
        for name, side in sides.items():
            result = side.generate(PROMPT, max_tokens=TOKENS, temperature=0, ignore_eos=True)
            if turn:
                speeds[name].append(result.tokens_per_second)
    figures = {name: statistics.median(found) for name, found in speeds.items()}
    ratio = figures["window"] / figures["all"]
    verdict = f"{args.device}: all {figures['all']:.0f} tokens/s, window {figures['window']:.0f} ({ratio:.2f} x)"
    report_of(args.device, "windows", figures, verdict, args.threads)


if __name__ == "__main__":
    main()
