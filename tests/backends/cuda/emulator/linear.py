"""One affine map on a weight of some storage: python -m tests.backends.cuda.emulator.linear STORAGE ROWS OUT IN"""

import sys

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

from tallow.backends.cuda import tiles  # isort: skip
from tallow.backends.cuda.blocks import CudaBlocks  # isort: skip
from tallow.backends.cuda.fusion import Norm  # isort: skip
from tests.backends.cuda.test_blocks import stored  # isort: skip


def weight_of(storage, outputs, inputs):
    """A weight as it lies on a card, and the numbers that it stands for."""
    if storage == "bfloat16":
        weight = numbers(np.random.default_rng(1), outputs, inputs)
        return weight, wide(weight)
    matrix, plain = stored(storage, outputs, inputs)
    if storage == "int8":
        planes = tiles.int8_planes(np, matrix.values, matrix.scales)
    else:
        planes = tiles.block_planes(np, matrix.raw, matrix)
    lying = tiles.Planes(*(None if plane is None else array(plane) for plane in planes))
    return CudaBlocks(matrix.shape, storage, tiles.layout_of(matrix), lying, BF16), plain


def main(storage, rows, outputs, inputs):
    generator = np.random.default_rng(0)
    weight, plain = weight_of(storage, outputs, inputs)
    x, gain, shift = numbers(generator, rows, inputs), numbers(generator, inputs), numbers(generator, inputs)
    bias, factor, residual = (numbers(generator, *shape) for shape in ((outputs,), (outputs,), (rows, outputs)))
    normed, out, gated = (empty((rows, width), BF16) for width in (inputs, outputs, outputs // 2))
    assert program.norm(Norm(normed, x, gain, shift, 1e-5, None))
    assert program.linear(out, normed, weight, bias, 3, factor, residual)  # 3: SiLU
    halves = storage == "bfloat16" or outputs % 32 == 0
    assert program.linear(gated, normed, weight, None, 0, None, None, gated=True) == halves
    flush()
    for _ in range(2):
        centred = wide(x) - wide(x).mean(axis=-1, keepdims=True)
        expected = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * wide(gain) + wide(shift)
        assert error(normed, expected) <= 4e-3
        y = wide(normed) @ plain.T + wide(bias)
        assert error(out, y / (1 + np.exp(-y)) * wide(factor) + wide(residual)) <= 4e-3
        if halves:
            gate, up = np.split(rounded(wide(normed) @ plain.T), 2, axis=1)
            assert error(gated, gate / (1 + np.exp(-gate)) * up) <= 1e-2
        for result in (normed, out, gated):
            result[...] = np.nan
        launched[0].again()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
