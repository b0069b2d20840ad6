"""What do log-probabilities cost? Plain decoding, and with those of the token and of the k likeliest, in turn.

    python bench/logprobs.py MODEL.gguf [--threads 2] [--rounds 5]
    python bench/logprobs.py cuda [--rounds 5]

With ``cuda`` it is Qwen3-0.6B of random bfloat16 weights on an NVIDIA GPU. Greedy and drawn at random (on the CPU by
NumPy, which asks for the logits), 128 tokens each.
"""

import statistics

from common import arguments, report_of

TOKENS, ASKED = 128, (None, 0, 1, 5, 20)
WAYS = {"greedy": {"temperature": 0}, "sampled": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "seed": 1}}


def load(name, threads):
    import tallow as tl

    if name == "cuda":
        from cuda_language_models import make

        return make("0.6B"), list(range(1, 129))
    tl.set_num_threads(threads)
    return tl.load(name), "Once upon a time"


def main():
    args = arguments(__doc__, ("model", "a GGUF file or a folder; or cuda"), rounds=5, peer=None).parse_args()
    model, prompt = load(args.model, args.threads)
    figures, told = {}, []
    for way, options in WAYS.items():
        speeds = {k: [] for k in ASKED}
        for _ in range(args.rounds):
            for k in ASKED:
                for _ in range(2):  # the first records the step
                    result = model.generate(prompt, max_tokens=TOKENS, ignore_eos=True, logprobs=k, **options)
                speeds[k].append(result.tokens_per_second)
        medians = {k: statistics.median(found) for k, found in speeds.items()}
        plain = medians.pop(None)
        figures[way] = {"plain": plain} | {str(k): speed for k, speed in medians.items()}
        parts = (f"{k}: {speed:.0f} ({speed / plain:.1%})" for k, speed in medians.items())
        told.append(f"{way} {plain:.0f} tokens/s, with logprobs {', '.join(parts)}")
    verdict = f"{args.model.rsplit('/', 1)[-1]}: {'; '.join(told)}"
    report_of(args.model, "logprobs", figures, verdict, args.threads)


if __name__ == "__main__":
    main()
