"""How long does a step of decoding take where layers see a window, beside one that sees all?

    python bench/windows.py [--device cuda] [--context 1000] [--window 256] [--rounds 30]

Models of Qwen3-0.6B's sizes with random weights take steps in turn behind a context of so many tokens.
"""

import argparse
import statistics
import time

import numpy as np

import tallow as tl
from tallow.models.qwen3 import Qwen3, Qwen3Config
from tallow.runtime.step import DecodeStep
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder

SIZES = {
    "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}  # fmt: skip
WARM = 5


def behind_a_context(config, args):
    """A step of a model that has read so many tokens; it is recorded, or not, when it is first taken."""
    model = Qwen3(config, VarBuilder.random(0, "bfloat16" if args.device == "cuda" else None, args.device))
    cache = model.new_cache(1, args.context + args.rounds + WARM)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (1, args.context))
    for begin in range(0, args.context, 500):
        model.hidden(Tensor(ids[:, begin : begin + 500]), cache)
    return model, DecodeStep(model, cache)  # the step does not keep the model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--context", type=int, default=1000)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    tl.Device(args.device)
    windows = {"use_sliding_window": True, "sliding_window": args.window, "max_window_layers": 0}
    configs = {"all": SIZES, f"a window of {args.window}": SIZES | windows}
    sides = {name: behind_a_context(Qwen3Config.from_dict(sizes), args) for name, sizes in configs.items()}
    seconds = {name: [] for name in sides}
    for turn in range(WARM + args.rounds):
        for name, (_, step) in sides.items():
            begun = time.perf_counter()
            step([turn], [[]])  # its logits, on the CPU
            if turn >= WARM:
                seconds[name].append(time.perf_counter() - begun)
    medians = [statistics.median(each) for each in seconds.values()]
    for name, median in zip(sides, medians, strict=True):
        recorded = "recorded" if sides[name][1].recordable else "not recorded"
        print(f"{name}: {median * 1e3:.2f} ms a step, {1 / median:.0f} tokens/s, {recorded}")
    print(f"a step in a window takes {medians[1] / medians[0]:.2f} of one that sees all")


if __name__ == "__main__":
    main()
