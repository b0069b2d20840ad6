"""How fast does Qwen3 read and write on an NVIDIA GPU, beside Transformers, and how near is that to the card's limit?

    python bench/cuda_language_models.py [0.6B] [8B] [8B:fp8] [8B:int4] [--peer-python PYTHON]

Random bfloat16 weights of the published sizes (for ``8B:fp8`` and ``8B:int4`` Tallow alone). Writing: a prompt of 128
tokens and 256 more, greedy, through ``generate``; every token depends on the one before. Its limit is the bytes of the
weights over what the card copies. Beside Transformers, which compiles the step, it is 64 tokens. Reading: 2,048 tokens
and the logits of the last.
"""

import time

import numpy as np
from cuda_common import arguments, beside_peer, builder, limits, milliseconds, ratios, report, seconds
from cuda_sizes import PROMPT, READ, WRITTEN
from qwen3_sizes import SHARED, SIZES

import tallow as tl
from tallow.models.qwen3 import Qwen3, Qwen3Config
from tallow.tensor import Tensor


def make(name, **options):
    model = Qwen3(Qwen3Config.from_dict(SIZES[name] | SHARED), builder(**options))
    tl.synchronize()
    return model


def write(model, tokens=256):
    """(tokens a second of the whole call, of decoding alone)."""
    ids = np.random.default_rng(0).integers(0, 151936, PROMPT).tolist()
    took = seconds(lambda: model.generate(ids, max_tokens=tokens, temperature=0, ignore_eos=True))
    result = model.generate(ids, max_tokens=tokens, temperature=0, ignore_eos=True)
    return tokens / took, (tokens - 1) / result.timings.decode


def read(model, n=READ):
    """Milliseconds for a prompt."""
    ids = Tensor(np.random.default_rng(0).integers(0, 151936, (1, n))).to("cuda")
    cache = model.new_cache(1, n)

    def once():
        cache.truncate(0)
        return model.logits(model.forward(ids, cache)[:, -1:])

    return milliseconds(once)


def bytes_a_token(model):
    """Of the weights that a step reads."""
    return sum(tensor.nbytes for tensor in weights(model))


def weights(model):
    config = model.config
    found = [] if config.tie_word_embeddings else [model.head.weight]
    found += [model.embed_tokens.weight] if config.tie_word_embeddings else []
    for block in model.blocks:
        found += [*block.attention.qkv.weights, block.attention.out.weight, *block.mlp.gate_up.weights,
                  block.mlp.down.weight]  # fmt: skip
    return found


def main():
    args = arguments(__doc__, (*SIZES, "8B:fp8", "8B:int4"))
    moved, rate = limits()
    print(f"the card copies {moved / 1e12:.2f} TB/s and multiplies {rate / 1e12:.0f} TFLOP/s", flush=True)
    for what in args.parts:
        name, _, quantize = what.partition(":")
        begun = time.perf_counter()
        model = make(name, quantize=quantize or None)
        loaded = time.perf_counter() - begun
        measure(what, model, loaded, moved, rate, args)
        del model


def measure(what, model, loaded, moved, rate, args):
    """Both sides on one model, and the card's limit."""
    name, _, quantize = what.partition(":")

    def ours():
        return {"write": WRITTEN / write(model, WRITTEN)[0] * 1e3, "read": read(model)}

    mine, theirs = beside_peer(name, ours, args) if not quantize else (ours(), {})
    whole, steps = write(model)
    limit, prefill = moved / bytes_a_token(model), mine["read"]
    config = model.config
    products = 2 * READ * sum(w.shape[0] * w.shape[1] for w in weights(model)[1:])
    products += 2 * READ**2 * config.num_attention_heads * config.head_dim * config.num_hidden_layers  # causal
    found, told = ratios(mine, theirs)
    verdict = (
        f"Qwen3-{name} {quantize or 'bfloat16'}: writes {whole:.0f} tok/s ({steps:.0f} without the prompt; "
        f"{steps / limit:.0%} of {limit:.0f}), {WRITTEN} tokens in {mine['write']:.1f} ms, reads 2,048 in "
        f"{prefill:.1f} ms ({products / prefill * 1e3 / rate:.0%} of the product's rate); made in {loaded:.1f} s{told}"
    )
    figures = {"tokens_a_second": whole, "steps_a_second": steps, "limit": limit, "milliseconds": mine,
               "transformers": theirs, "ratios": found, "bytes_a_second": moved,
               "operations_a_second": rate}  # fmt: skip
    report("cuda_language_models", verdict, figures, args)


if __name__ == "__main__":
    main()
