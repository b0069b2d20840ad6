"""A small decoder's steps: python -m tests.backends.cuda.emulator.decoder ROWS HELD CAPACITY STEPS"""

import sys
from types import SimpleNamespace

import numpy as np

from tests.backends.cuda.emulator.harness import (
    BF16,
    array,
    empty,
    error,
    flush,
    launched,
    numbers,
    program,
    rounded,
    wide,
)  # fmt: skip

from tallow.backends.cuda.fusion import Append, Norm  # isort: skip
from tallow.ops.pages import PAGE  # isort: skip

WIDTH, HIDDEN, HEADS, KV_HEADS, D, LAYERS = 256, 328, 4, 2, 64, 2
Q, KV = HEADS * D, KV_HEADS * D


def never():
    raise AssertionError("a phase is launched on its own")


class Layer:
    """One layer's weights, cache and results."""

    def __init__(self, generator, rows, held, capacity):
        self.rows = rows
        self.qkv, self.out = numbers(generator, Q + 2 * KV, WIDTH), numbers(generator, WIDTH, Q)
        self.gate_up, self.down = numbers(generator, 2 * HIDDEN, WIDTH), numbers(generator, WIDTH, HIDDEN)
        self.gain1, self.gain2, self.q_gain, self.k_gain = (numbers(generator, n) for n in (WIDTH, WIDTH, D, D))
        pages = -(-capacity // PAGE)
        table = array(generator.permutation(rows * pages).reshape(rows, pages), np.int32)
        keys, values = (numbers(generator, rows * pages, KV_HEADS, PAGE, D) for _ in range(2))
        self.cache = SimpleNamespace(
            dtype=SimpleNamespace(numpy=BF16), kv_heads=KV_HEADS, batch=rows, capacity=capacity,
            keys=SimpleNamespace(storage=keys), values=SimpleNamespace(storage=values, shape=values.shape),
            table=SimpleNamespace(held=SimpleNamespace(storage=table)),
            held=SimpleNamespace(storage=array(np.full(rows, held, np.int64))),
        )  # fmt: skip

    def kept(self, pages):
        """What the cache's rows hold: (rows, KV_HEADS, positions, D)."""
        lots = wide(pages.storage)[self.cache.table.held.storage]
        return lots.transpose(0, 2, 1, 3, 4).reshape(self.rows, KV_HEADS, -1, D)

    def add(self, x, angles):
        """Add its phases to the program. Returns what the next layer reads."""
        rows = self.rows
        self.x, self.normed1, self.stacked, self.turned = x, self.new(WIDTH), self.new(Q + 2 * KV), self.heads()
        self.attended, self.middle, self.normed2 = self.heads(), self.new(WIDTH), self.new(WIDTH)
        self.gated, self.result = self.new(HIDDEN), self.new(WIDTH)
        q, k, v = (
            self.stacked[:, begin:end].reshape(rows, 1, -1, D) for begin, end in ((0, Q), (Q, Q + KV), (Q + KV, None))
        )
        gains = self.q_gain, self.k_gain
        new = Append(self.cache, k, v, never, q, angles, gains, 1e-6, False, self.turned)
        assert program.norm(Norm(self.normed1, x, self.gain1, None, 1e-6, never))
        assert program.linear(self.stacked, self.normed1, self.qkv, None, 0, None, None)
        assert program.append(new)
        assert program.attention(self.attended, self.turned, self.cache, D**-0.5, True)
        assert program.linear(self.middle, self.attended.reshape(rows, Q), self.out, None, 0, None, x)
        assert program.norm(Norm(self.normed2, self.middle, self.gain2, None, 1e-6, never))
        assert program.linear(self.gated, self.normed2, self.gate_up, None, 0, None, None, gated=True)
        assert program.linear(self.result, self.gated, self.down, None, 0, None, self.middle)
        return self.result

    def new(self, width):
        return empty((self.rows, width), BF16)

    def heads(self):
        return empty((self.rows, 1, HEADS, D), BF16)

    def spoil(self):
        for result in (self.normed1, self.stacked, self.turned, self.attended, self.middle, self.normed2, self.gated,
                       self.result):  # fmt: skip
            result[...] = np.nan

    def check(self, angles, held, capacity):
        """Each result against the same computed in float32 from what it is made of."""
        rows, stacked = self.rows, wide(self.stacked)
        near(self.normed1, normalised(self.x, self.gain1))
        near(self.stacked, wide(self.normed1) @ wide(self.qkv).T)
        q = turned(normalised(stacked[:, :Q].reshape(rows, HEADS, D), self.q_gain), angles)
        k = turned(normalised(stacked[:, Q : Q + KV].reshape(rows, KV_HEADS, D), self.k_gain), angles)
        v = stacked[:, Q + KV :].reshape(rows, KV_HEADS, D)
        near(self.turned.reshape(q.shape), q)
        keys, values = self.kept(self.cache.keys), self.kept(self.cache.values)
        if held < capacity:
            near(keys[:, :, held], k)
            near(values[:, :, held], v)
        before = min(held, capacity)
        all_keys = np.concatenate([keys[:, :, :before], k[:, :, None]], axis=2).repeat(HEADS // KV_HEADS, axis=1)
        all_values = np.concatenate([values[:, :, :before], v[:, :, None]], axis=2).repeat(HEADS // KV_HEADS, axis=1)
        scores = np.einsum("bhd,bhmd->bhm", q, all_keys) * D**-0.5
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        near(self.attended.reshape(q.shape), np.einsum("bhm,bhmd->bhd", weights, all_values))
        near(self.middle, wide(self.attended).reshape(rows, Q) @ wide(self.out).T + wide(self.x))
        near(self.normed2, normalised(self.middle, self.gain2))
        gate, up = np.split(rounded(wide(self.normed2) @ wide(self.gate_up).T), 2, axis=1)
        near(self.gated, gate / (1 + np.exp(-gate)) * up)
        near(self.result, wide(self.gated) @ wide(self.down).T + wide(self.middle))
        assert self.cache.held.storage.tolist() == [held + 1] * rows


def near(found, expected):
    assert error(found, expected) <= 4e-3


def normalised(x, gain):
    x = wide(x)
    return rounded(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * wide(gain))


def turned(x, angles):
    cosines, sines, _ = map(wide, angles)
    first, second = np.split(x, 2, axis=-1)
    return rounded(np.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1))


def main(rows, held, capacity, steps):
    generator = np.random.default_rng(0)
    layers = [Layer(generator, rows, held, capacity) for _ in range(LAYERS)]
    places = generator.standard_normal((rows, 1, D // 2))
    angles = array(np.cos(places), np.float32), array(np.sin(places), np.float32), D // 2
    x = numbers(generator, rows, WIDTH)
    for layer in layers:
        x = layer.add(x, angles)
    flush()
    for step in range(steps):
        if step:
            for layer in layers:
                layer.spoil()
            launched[0].again()
        for layer in layers:
            layer.check(angles, held + step, capacity)
    assert len(launched) == 1


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
