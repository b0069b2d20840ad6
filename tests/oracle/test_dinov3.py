"""DINOv3 against Transformers, on the same random weights and pixels."""

import numpy as np
import pytest

from tallow.models.checkpoint import open_checkpoint
from tallow.models.registry import find_class
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder
from tests.models import tiny_dino

torch = pytest.importorskip("torch", reason="needs the extra oracle")
transformers = pytest.importorskip("transformers", reason="needs the extra oracle")
pytestmark = pytest.mark.oracle

TOLERANCE = 2e-5


def vit(dim, heads, layers, hidden, **rest):
    return {
        "model_type": "dinov3_vit", "hidden_size": dim, "num_attention_heads": heads, "num_hidden_layers": layers,
        "intermediate_size": hidden, "num_register_tokens": 4, "rope_theta": 100.0, **rest,
    }  # fmt: skip


def convnext(dim, depth):
    return {
        "model_type": "dinov3_convnext", "hidden_sizes": [dim, 2 * dim, 4 * dim, 8 * dim], "depths": [3, 3, depth, 3],
    }  # fmt: skip


GATED = {"use_gated_mlp": True, "hidden_act": "silu"}
PUBLISHED = {
    "vits16": vit(384, 6, 12, 1536),
    "vits16plus": vit(384, 6, 12, 1536, **GATED),
    "vitb16": vit(768, 12, 12, 3072),
    "vitl16": vit(1024, 16, 24, 4096),
    "vith16plus": vit(1280, 20, 32, 5120, **GATED),
    "vit7b16": vit(4096, 32, 4, 8192, query_bias=False, value_bias=False, **GATED),  # of 40 layers
}
CONVNEXTS = {
    "convnext-tiny": convnext(96, 9),
    "convnext-small": convnext(96, 27),
    "convnext-base": convnext(128, 27),
    "convnext-large": convnext(192, 27),
}
CONFIGS = [
    *(pytest.param(config, id=name) for name, config in tiny_dino.CONFIGS.items()),
    *(pytest.param(config, id=name, marks=pytest.mark.slow) for name, config in (PUBLISHED | CONVNEXTS).items()),
]


def randomised(config):
    """Transformers' model, every tensor of which is random: zeros and ones would hide mistakes."""
    said = dict(config)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(said.pop("model_type"), **said)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.normal_(0 if name.endswith("bias") else 1, 0.1, generator=generator)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """Transformers' model, and ours made from what it saves."""
    folder = tmp_path_factory.mktemp("dino")
    theirs = randomised(request.param)
    theirs.save_pretrained(folder)
    checkpoint = open_checkpoint(folder)
    model_class = find_class(checkpoint.architecture)
    ours = model_class(model_class.Config.from_dict(checkpoint.config), VarBuilder(checkpoint.source))
    return theirs, ours


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("grid", [(14, 14), (3, 9), (7, 1)])
def test_tokens(pair, grid):
    theirs, ours = pair
    unit = ours.unit
    pixels = np.random.default_rng(0).standard_normal((2, 3, grid[0] * unit, grid[1] * unit)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pixels))
    found = ours(Tensor(pixels)).numpy()
    assert relative_error(found, expected.last_hidden_state.numpy()) < TOLERANCE
    assert relative_error(found[:, 0], expected.pooler_output.numpy()) < TOLERANCE
