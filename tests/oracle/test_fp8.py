"""Checkpoints in fp8 against Transformers' own way to widen them."""

from types import SimpleNamespace

import numpy as np
import pytest

from tallow.models.checkpoint import open_checkpoint
from tallow.weights.safetensors import open_safetensors
from tests.matrix.test_fp8 import publish_fp8

torch = pytest.importorskip("torch", reason="needs the extra `oracle`")
fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8", reason="needs the extra `oracle`")
pytestmark = pytest.mark.oracle


def test_numbers_are_those_of_transformers(tmp_path):
    publish_fp8(tmp_path, intermediate_size=384, hidden_size=256)
    source, raw = open_checkpoint(tmp_path).source, open_safetensors(tmp_path)
    for name in ("model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.up_proj.weight"):
        codes = np.array(raw.read(name)).view(np.uint8)
        given = {
            "weight": [torch.from_numpy(codes).view(torch.float8_e4m3fn)],
            "weight_scale_inv": [torch.from_numpy(np.array(raw.read(name + "_scale_inv")))],
        }
        settings = SimpleNamespace(quantization_config=SimpleNamespace(weight_block_size=(128, 128)))
        (expected,) = fp8.Fp8Dequantize(settings).convert(given, full_layer_name=name).values()
        expected = expected[0] if isinstance(expected, list) else expected
        found = source.read(name).dequantize()
        np.testing.assert_array_equal(torch.from_numpy(found).to(expected.dtype).float(), expected.float())
