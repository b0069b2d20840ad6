"""Real weights in few bits: what that costs in perplexity."""

import pytest

from tests.models.perplexity import load, perplexity
from tests.models.real_weights import smollm2


@pytest.fixture(scope="module")
def whole():
    return perplexity(load(smollm2()))


def test_int8(whole):
    """Groups of 16 inputs, where a scale for each row would cost 4 %."""
    model = load(smollm2(), quantize="int8")
    assert {module.weight.storage for module in (model.embed_tokens, model.blocks[0].attention.out)} == {"int8"}
    assert perplexity(model) / whole - 1 < 0.005


def test_int4(whole):
    """The file's weights are Q4_1's own, so what is left is the rounding of activations."""
    model = load(smollm2(), quantize="int4")
    assert [m.weight.storage for m in (model.embed_tokens, model.blocks[0].attention.out)] == ["q8_0", "q4_1"]
    assert perplexity(model) / whole - 1 < 0.005


def test_the_files_own_blocks(whole):
    model = load(smollm2(), widened=False)
    assert [m.weight.storage for m in (model.embed_tokens, model.blocks[0].attention.out)] == ["q8_0", "q4_1"]
    assert perplexity(model) / whole - 1 < 0.005
