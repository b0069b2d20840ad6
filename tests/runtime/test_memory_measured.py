"""The estimate against what a process really grows by: its peak from before the load to after the first work."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tallow import hub
from tallow.models.checkpoint import open_checkpoint
from tallow.models.estimate import estimate_checkpoint
from tallow.models.registry import find_class
from tallow.models.whisper import WhisperConfig
from tallow.weights.random import RandomSource
from tallow.weights.safetensors import save_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.engine.published import Recording
from tests.models import real_weights, tiny_clap, tiny_dino
from tests.recordings import ROOT

CLEAR = "/proc/self/clear_refs"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.access(CLEAR, os.W_OK), reason="this system does not let a process reset its peak memory"
    ),
]

MEASURE = """
import sys
import tallow as tl
from tallow import Tensor

def resident(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

open("/proc/self/clear_refs", "w").write("5")
begin = resident("VmRSS")
"""

TRANSCRIBE = """
model = tl.load(sys.argv[1], device="cpu", **eval(sys.argv[2]))
model.transcribe(sys.argv[3], temperature=0.0)
print(resident("VmHWM") - begin)
"""

WORK = """
import numpy as np
from tallow.models.whisper import Whisper, WhisperConfig
from tallow.models.checkpoint import open_checkpoint
from tallow.weights.var_builder import VarBuilder
checkpoint = open_checkpoint(sys.argv[1])
config = WhisperConfig.from_dict(checkpoint.config)
model = Whisper(config, VarBuilder(checkpoint.source, **eval(sys.argv[2])))
sound = model.encode(np.zeros((config.num_mel_bins, 2 * config.max_source_positions), np.float32))
print(resident("VmHWM") - begin)
"""


def grown(code, *arguments):
    source = os.path.dirname(os.path.dirname(os.path.dirname(hub.__file__)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", MEASURE + code, *map(str, arguments)]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(result.stdout)


@pytest.mark.real
@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"dtype": "float32"}])
@pytest.mark.parametrize("size", ["tiny.en", "base"])
def test_real_weights(size, options, tmp_path):
    folder = real_weights.tiny_en() if size == "tiny.en" else real_weights.base(tmp_path)
    estimate = estimate_checkpoint(open_checkpoint(folder), options.get("dtype"), quantize=options.get("quantize"))
    assert grown(TRANSCRIBE, folder, options, ROOT / "examples" / "harbour.flac") == pytest.approx(
        estimate.total, rel=0.15
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights in float16 with a published vocabulary; wider than tiny, and of fewer layers."""
    width, layers = 640, 2
    config = WhisperConfig(
        d_model=width, vocab_size=51865, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=10,
        decoder_attention_heads=10, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width,
    )  # fmt: skip
    source, tensors = RandomSource(0), {}
    for name, shape in parameters(config).items():
        tensors[name] = source.draw(name, shape).astype(np.float16)
    folder = tmp_path_factory.mktemp("random")
    save_safetensors(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config) | {"model_type": "whisper"}))
    return folder


def parameters(config):
    """Names and shapes of a Whisper's parameters."""
    d, shapes = config.d_model, {}
    for conv, channels in (("conv1", config.num_mel_bins), ("conv2", d)):
        shapes |= {f"model.encoder.{conv}.weight": (d, channels, 3), f"model.encoder.{conv}.bias": (d,)}
    shapes["model.encoder.embed_positions.weight"] = (config.max_source_positions, d)
    shapes["model.decoder.embed_positions.weight"] = (config.max_target_positions, d)
    shapes["model.decoder.embed_tokens.weight"] = (config.vocab_size, d)
    for side, layers, hidden in (
        ("encoder", config.encoder_layers, config.encoder_ffn_dim),
        ("decoder", config.decoder_layers, config.decoder_ffn_dim),
    ):
        norms = [f"model.{side}.layer_norm"]
        for layer in range(layers):
            at = f"model.{side}.layers.{layer}"
            attentions = ["self_attn"] if side == "encoder" else ["self_attn", "encoder_attn"]
            norms += [f"{at}.{attention}_layer_norm" for attention in attentions] + [f"{at}.final_layer_norm"]
            for attention in attentions:
                for letter in ("q", "k", "v", "out"):
                    shapes[f"{at}.{attention}.{letter}_proj.weight"] = (d, d)
                    if letter != "k":
                        shapes[f"{at}.{attention}.{letter}_proj.bias"] = (d,)
            shapes |= {f"{at}.fc1.weight": (hidden, d), f"{at}.fc1.bias": (hidden,)}
            shapes |= {f"{at}.fc2.weight": (d, hidden), f"{at}.fc2.bias": (d,)}
        shapes |= {f"{norm}.{part}": (d,) for norm in norms for part in ("weight", "bias")}
    return shapes


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"dtype": "float32"}])
def test_random_weights(options, checkpoint):
    """Without audio and text, whose libraries are the estimate's fixed part."""
    estimate = estimate_checkpoint(open_checkpoint(checkpoint), options.get("dtype"), quantize=options.get("quantize"))
    modules = 6_000_000
    measured = grown(WORK, checkpoint, options)
    assert measured == pytest.approx(estimate.total - estimate.fixed + modules, rel=0.15)


EMBED = """
model = tl.load(sys.argv[1], device="cpu", **eval(sys.argv[2]))
model.embed(sys.argv[3])
print(resident("VmHWM") - begin)
"""


@pytest.fixture(scope="module", params=["dinov3_vit", "dinov3_convnext"])
def vision(request, tmp_path_factory):
    """A vision model of random weights in float32, of a published width."""
    config = {
        "dinov3_vit": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                       "num_hidden_layers": 6, "num_register_tokens": 4},
        "dinov3_convnext": {"hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 9, 3]},
    }[request.param] | {"model_type": request.param}  # fmt: skip
    folder = tmp_path_factory.mktemp("vision")
    source, model_class = Recording(0), find_class(request.param)
    model_class(model_class.Config.from_dict(config), VarBuilder(source))
    save_safetensors(source.drawn, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 224, "width": 224}}))
    Image.fromarray(tiny_dino.photo(600, 800)).save(folder / "photo.jpg")
    return folder


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"dtype": "bfloat16"}])
def test_vision(options, vision):
    estimate = estimate_checkpoint(open_checkpoint(vision), options.get("dtype"), quantize=options.get("quantize"))
    assert grown(EMBED, vision, options, vision / "photo.jpg") == pytest.approx(estimate.total, rel=0.15)


GENERATE = """
model = tl.load(sys.argv[1], device="cpu", **eval(sys.argv[2]))
model.generate([7] * 1500, max_tokens=24, temperature=0, ignore_eos=True)
print(resident("VmHWM") - begin)
"""


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A Qwen3 of random weights in float16, without a tokenizer."""
    config = {"model_type": "qwen3", "vocab_size": 8000, "hidden_size": 768, "intermediate_size": 2304,
              "num_hidden_layers": 9, "num_attention_heads": 12, "num_key_value_heads": 6, "head_dim": 64,
              "max_position_embeddings": 4096, "tie_word_embeddings": True}  # fmt: skip
    folder, source = tmp_path_factory.mktemp("language"), Recording(0)
    model_class = find_class("qwen3")
    model_class(model_class.Config.from_dict(config), VarBuilder(source))
    tensors = {name: tensor.astype(np.float16) for name, tensor in source.drawn.items() if "lm_head" not in name}
    save_safetensors(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"quantize": "int4"}, {"dtype": "float32"}])
def test_language_model(options, language_model):
    checkpoint = open_checkpoint(language_model)
    estimate = estimate_checkpoint(checkpoint, options.get("dtype"), quantize=options.get("quantize"), context=1524)
    modules = 15_000_000
    measured = grown(GENERATE, language_model, options)
    # Of the mapped file more or less counts as resident, by how much of it a system maps at a time: 131 MB for int4 on
    # most, 144 MB on one, where 121 MB are estimated.
    assert measured == pytest.approx(estimate.total - estimate.fixed + modules, rel=0.2)


LISTEN = """
import numpy as np
model = tl.load(sys.argv[1], device="cpu", **eval(sys.argv[2]))
model.embed_audio(np.zeros(480_000, np.float32), sampling_rate=48_000)
print(resident("VmHWM") - begin)
"""


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    """A CLAP of random weights in float32 and its published sizes, but for fewer words and layers of text."""
    config = {"model_type": "clap", "text_config": {"vocab_size": 4000, "num_hidden_layers": 2}}
    folder, source = tmp_path_factory.mktemp("clap"), Recording(0)
    model_class = find_class("clap")
    model_class(model_class.Config.from_dict(config), VarBuilder(source))
    save_safetensors(source.drawn, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(tiny_clap.features() | {"max_length_s": 10}))
    tiny_clap.tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"dtype": "bfloat16"}])
def test_clap(options, clap):
    """Without decoding and text, whose libraries are most of the estimate's fixed part."""
    estimate = estimate_checkpoint(open_checkpoint(clap), options.get("dtype"), quantize=options.get("quantize"))
    modules = 15_000_000
    measured = grown(LISTEN, clap, options)
    assert measured == pytest.approx(estimate.total - estimate.fixed + modules, rel=0.15)
