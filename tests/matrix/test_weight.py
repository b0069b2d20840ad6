"""Weights that move between devices; to cards and back in tests/backends/cuda."""

import numpy as np
import pytest

from tallow.matrix.blocks.encode import quantize
from tallow.matrix.fp8 import quantize_fp8
from tallow.matrix.quantize import quantize_int8
from tallow.matrix.weight import BLOCKS_MADE, Weight, make_weight

MATRIX = np.random.default_rng(0).normal(size=(24, 256)).astype(np.float32)


@pytest.mark.parametrize("group", [None, 16, 64, 7])
def test_int8_knows_its_groups(group):
    matrix = MATRIX if group != 7 else MATRIX[:, :252]
    for array in (matrix, quantize_int8(matrix, group)):
        weight = make_weight(array, "int8", group=group)
        assert weight.packed.group == group
        assert weight.to("cpu") is weight.to(dtype="float16") is weight


@pytest.mark.parametrize("storage", BLOCKS_MADE)
def test_blocks_made_once_more_are_the_same(storage):
    """So that weights which a device has packed may move."""
    once = quantize(MATRIX, storage)
    again = quantize(once.dequantize(), storage)
    error = np.linalg.norm(again.dequantize() - once.dequantize()) / np.linalg.norm(MATRIX)
    assert error < (1e-3 if storage.endswith("_0") else 1e-2)


def test_fp8_stays_on_the_cpu_as_it_is():
    weight = Weight(quantize_fp8(MATRIX))
    assert weight.to("cpu") is weight.to(dtype="float16") is weight


def test_plain_weights_change_their_type():
    weight = make_weight(MATRIX, "float32").to(dtype="float16")
    assert weight.storage == "float16"
    assert np.array_equal(weight.dequantize().numpy(), MATRIX.astype(np.float16))
