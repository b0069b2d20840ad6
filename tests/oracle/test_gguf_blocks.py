"""Block types against the `gguf` package, bit for bit."""

import numpy as np
import pytest

from tallow.matrix.blocks import REFUSED, TYPES, dequantize
from tallow.matrix.blocks.encode import ENCODERS, quantize

gguf = pytest.importorskip("gguf", reason="needs the package gguf")
pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_every_bit_pattern_means_the_same(kind):
    theirs = gguf.GGMLQuantizationType[kind.name.upper()]
    assert int(theirs) == kind.id
    assert gguf.GGML_QUANT_SIZES[theirs] == (kind.elements, kind.nbytes)
    raw = np.random.default_rng(kind.id).integers(0, 256, (500, 6 * kind.nbytes), np.uint8)
    ours = dequantize(raw, kind, (500, 6 * kind.elements))
    with np.errstate(all="ignore"):
        try:
            expected = gguf.dequantize(raw, theirs)
        except NotImplementedError:
            expected = raw.view(kind.layout).astype(np.float32)
            assert kind.is_plain
    same = (ours.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(ours) & np.isnan(expected))
    assert same.all()
    assert (~np.isnan(expected)).mean() > 0.5


def test_every_type_that_the_package_knows_is_read_or_refused_by_name():
    known = {kind.id for kind in TYPES} | REFUSED.keys()
    assert {int(kind) for kind in gguf.GGMLQuantizationType} <= known


@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_are_made_as_the_package_makes_them(name):
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((300, 256)) * np.exp(3 * rng.standard_normal((300, 1)))).astype(np.float32)
    values[3], values[4, :32] = 0, 5
    expected = gguf.quantize(values, gguf.GGMLQuantizationType[name.upper()])
    np.testing.assert_array_equal(quantize(values, name).raw, expected)
