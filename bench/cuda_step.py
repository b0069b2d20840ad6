"""How long do the parts of a decoder's step take on an NVIDIA GPU: as kernels one by one, and as kernels of which some
do the work of others on their way?

    python bench/cuda_step.py

Layers of Qwen3-0.6B's sizes, random bfloat16 weights, one row. The limit of a part is the bytes of its weights over
what the card copies.
"""

from unittest.mock import patch

import cupy
import numpy as np
from cuda_common import arguments, copied, milliseconds, report

import tallow as tl
from tallow import ops
from tallow.backends.cuda import fusion
from tallow.ops import KVCache
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor

LAYERS, WIDTH, HIDDEN, HEADS, KV_HEADS, D, VOCAB = 28, 1024, 3072, 16, 8, 128, 151936


def numbers(*shape, scale=0.02):
    drawn = np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(scale)
    return Tensor(drawn).to("bfloat16").to("cuda")


class Parts:
    """The parts of a step: name -> (function, bytes of weights that it reads)."""

    def __init__(self):
        self.x, self.gain, self.head_gain = numbers(1, WIDTH), numbers(WIDTH), numbers(D)
        rows = (HEADS + 2 * KV_HEADS) * D
        self.qkv, self.out = self.layers(rows, WIDTH), self.layers(WIDTH, HEADS * D)
        self.gate_up, self.down = self.layers(2 * HIDDEN, WIDTH), self.layers(WIDTH, HIDDEN)
        self.head = numbers(VOCAB, WIDTH)
        self.q, self.k, self.v = (numbers(1, 1, heads, D) for heads in (HEADS, KV_HEADS, KV_HEADS))
        self.angles = [Tensor(np.ones((1, 1, D // 2), np.float32)).to("cuda") for _ in range(2)]
        self.caches = [KVCache(1, KV_HEADS, D, 1000, "bfloat16", "cuda") for _ in range(LAYERS)]
        for cache in self.caches:
            cache.append(numbers(1, 256, KV_HEADS, D), numbers(1, 256, KV_HEADS, D))

    @staticmethod
    def layers(rows, columns):
        return [numbers(rows, columns) for _ in range(LAYERS)]

    def attention_products(self):
        y = self.x
        for qkv, out in zip(self.qkv, self.out, strict=True):
            q = ops.linear(ops.rms_norm(y, self.gain), qkv).narrow(-1, 0, HEADS * D).reshape(1, HEADS * D)
            y = ops.linear(q, out, residual=y)
        return y

    def mlp_products(self):
        y = self.x
        for gate_up, down in zip(self.gate_up, self.down, strict=True):
            y = ops.linear(ops.linear_glu(ops.rms_norm(y, self.gain), gate_up), down, residual=y)
        return y

    def attend(self):
        for cache in self.caches:
            q = ops.rope_append(
                self.q, self.k, self.v, cache, *self.angles, q_norm=self.head_gain, k_norm=self.head_gain
            )
            y = ops.attention(q, cache, causal=True)
        return ops.linear(y.reshape(1, HEADS * D), self.out[0])

    def logits(self):
        return ops.linear(ops.rms_norm(self.x, self.gain), self.head)


def main():
    args = arguments(__doc__, ("attention_products", "mlp_products", "attend", "logits"))
    moved, parts = copied(), Parts()
    sizes = {
        "attention_products": [*parts.qkv, *parts.out], "mlp_products": [*parts.gate_up, *parts.down], "attend": [],
        "logits": [parts.head],
    }  # fmt: skip
    for name in args.parts:
        times = {}
        for way in ("kernels", "fewer kernels"):
            with patch.object(fusion, "wait", (lambda what: False) if way == "kernels" else fusion.wait):
                recording = Recording(getattr(parts, name), parts.x.device)
            times[way] = milliseconds(recording.replay) * 1e3
            tl.synchronize()
        limit = sum(weight.storage.nbytes for weight in sizes[name]) / moved * 1e6
        told = ", ".join(f"as {way} {took:.0f} µs" for way, took in times.items())
        report("cuda_step", f"{name}, {LAYERS} layers: {told}; limit {limit:.0f} µs", times | {"limit": limit}, args)
        cupy.get_default_memory_pool().free_all_blocks()


if __name__ == "__main__":
    main()
