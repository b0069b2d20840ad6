"""Folders laid out as Transformers 5 writes them, without Transformers; and other spellings that it reads."""

import json

import numpy as np
import pytest
from PIL import Image

import tallow as tl
from tallow.convert import convert
from tallow.errors import MediaError, ModelNotFoundError, WeightsError
from tallow.media.image import MAX_PIXELS
from tallow.models.clap.config import ClapConfig, FeatureConfig
from tallow.models.dinov3 import PictureConfig
from tallow.models.dinov3.pictures import Preparation
from tallow.models.llama import LlamaConfig
from tallow.models.qwen3 import Qwen3Config
from tests.engine.published import SIZES, publish
from tests.models import tiny_clap, tiny_dino

SETTINGS = {"vocab_size": 10} | SIZES


def as_version_5(folder, part, old="preprocessor_config.json"):
    """The settings of a processor's part in the one file of the processor."""
    settings = json.loads((folder / old).read_text())
    (folder / old).unlink()
    (folder / "processor_config.json").write_text(json.dumps({part: settings, "processor_class": "ClapProcessor"}))
    return folder


def test_clap(tmp_path):
    sound = tiny_clap.sound(1.5)
    before = tl.load(tiny_clap.write(tmp_path / "old"), device="cpu").embed_audio([sound])
    folder = as_version_5(tiny_clap.write(tmp_path / "new"), "feature_extractor")
    assert np.array_equal(tl.load(folder, device="cpu").embed_audio([sound]).numpy(), before.numpy())


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_dinov3(tmp_path, kind):
    photo = tiny_dino.photo(50, 70)
    before = tl.load(tiny_dino.write(tmp_path / "old", kind), device="cpu").embed(photo)
    folder = as_version_5(tiny_dino.write(tmp_path / "new", kind), "image_processor")
    assert np.array_equal(tl.load(folder, device="cpu").embed(photo).numpy(), before.numpy())


def test_the_processor_goes_before_an_older_file(tmp_path):
    folder = tiny_dino.write(tmp_path)
    newer = tiny_dino.PICTURES | {"size": {"height": 48, "width": 64}}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": newer}))
    assert tl.load(folder, device="cpu").pictures.size == (48, 64)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Older"}))  # which has no parts
    tl.unload()
    assert tl.load(folder, device="cpu").pictures.size == (32, 32)


def test_faults_name_the_file(tmp_path):
    folder = as_version_5(tiny_dino.write(tmp_path / "a"), "image_processor")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": {"resample": 9}}))
    with pytest.raises(WeightsError, match=r"image_processor in processor_config\.json of a DINOv3: resample"):
        tl.load(folder, device="cpu")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": 9}))
    with pytest.raises(WeightsError, match=r"processor_config\.json: image_processor must be an object"):
        tl.load(folder, device="cpu")
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": {}}))
    with pytest.raises(ModelNotFoundError, match=r"processor_config\.json with image_processor"):
        tl.load(folder, device="cpu")


def test_a_writer(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = publish(tmp_path / "old", rope_theta=5e5, torch_dtype="float32")
    new = publish(tmp_path / "new")
    config = json.loads((new / "config.json").read_text())
    config |= {
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "dtype": "float32", "use_cache": True,
        "layer_types": ["full_attention"] * 2, "sliding_window": None, "use_sliding_window": False,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "transformers_version": "5.24.0",
    }  # fmt: skip
    (new / "config.json").write_text(json.dumps(config))
    settings = json.loads((new / "tokenizer_config.json").read_text())
    (new / "chat_template.jinja").write_text(settings.pop("chat_template"))
    settings |= {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<|x|>"],
                 "model_max_length": 1000000000000000019884624838656}  # fmt: skip
    (new / "tokenizer_config.json").write_text(json.dumps(settings))
    (new / "generation_config.json").write_text(json.dumps({"_from_model_config": True, "output_attentions": False}))
    convert(new, tmp_path / "again")
    answers = [tl.load(folder, device="cpu").chat("Hello", max_tokens=9, temperature=0)
               for folder in (old, new, tmp_path / "again")]  # fmt: skip
    assert answers[0].ids == answers[1].ids == answers[2].ids
    ends = [tl.load(folder, device="cpu").text.eos_token_ids for folder in (old, new, tmp_path / "again")]
    assert ends[0] == ends[1] == ends[2] != frozenset()


def test_a_type_under_its_older_key_does_not_outlive_a_conversion(tmp_path):
    (tmp_path / "old").mkdir()
    convert(publish(tmp_path / "old", torch_dtype="bfloat16"), tmp_path / "new", "float16")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["dtype"] == "float16"
    assert "torch_dtype" not in config


def test_a_mistral_without_a_window_has_none_when_it_is_converted(tmp_path):
    (tmp_path / "old").mkdir()
    convert(publish(tmp_path / "old", "mistral", sliding_window=None), tmp_path / "new")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["sliding_window"] is None
    assert LlamaConfig.from_dict(config).window is None


def test_null_is_a_setting_that_is_not_there():
    nulls = dict.fromkeys(("rms_norm_eps", "attention_bias", "hidden_act", "tie_word_embeddings", "layer_types",
                           "max_window_layers", "use_sliding_window", "rope_theta", "rope_parameters"))  # fmt: skip
    assert Qwen3Config.from_dict(SETTINGS | nulls) == Qwen3Config.from_dict(SETTINGS)
    assert PictureConfig.from_dict(dict.fromkeys(tiny_dino.PICTURES)) == PictureConfig()
    assert FeatureConfig.from_dict(dict.fromkeys(tiny_clap.features())) == FeatureConfig()
    assert ClapConfig.from_dict(dict.fromkeys(tiny_clap.config())) == ClapConfig()


LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("said", "theta", "scaling"),
    [
        ({"rope_parameters": LINEAR}, 5e5, LINEAR),
        (
            {"layer_types": ["full_attention"] * 2, "rope_parameters": {"full_attention": LINEAR}},
            5e5,
            LINEAR,
        ),
        ({"rope_theta": 7e5, "rope_scaling": YARN, "rope_parameters": LINEAR}, 7e5, YARN),
        (
            {"rope_scaling": YARN, "original_max_position_embeddings": 32},
            1e4,
            YARN | {"original_max_position_embeddings": 32},
        ),
        ({"rope_parameters": {}, "rope_theta": 7e5}, 7e5, None),
    ],
)
def test_rotary_positions_as_version_5_reads_them(said, theta, scaling):
    config = Qwen3Config.from_dict(SETTINGS | said)
    assert (config.rope_theta, config.rope_scaling) == (theta, scaling)


@pytest.mark.parametrize(
    "said",
    [
        {
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {"full_attention": LINEAR, "sliding_attention": YARN},
        },
        {"layer_types": ["full_attention", "sliding_attention"], "rope_parameters": {"full_attention": LINEAR}},
        {"layer_types": ["full_attention"] * 2, "rope_parameters": {"full_attention": 3}},
        {"partial_rotary_factor": 0.5},
    ],
)
def test_rotary_positions_that_are_not_computed(said):
    with pytest.raises(WeightsError, match=r"rope_parameters|partial_rotary_factor"):
        Qwen3Config.from_dict(SETTINGS | said)


def test_what_a_mistral_does_not_say():
    said = {key: value for key, value in SETTINGS.items() if key != "num_key_value_heads"}
    config = LlamaConfig.from_dict(said | {"model_type": "mistral", "num_attention_heads": 8})
    assert (config.window, config.num_key_value_heads) == (4096, 8)
    assert LlamaConfig.from_dict(SETTINGS | {"model_type": "mistral", "sliding_window": None}).window is None
    assert LlamaConfig.from_dict(SETTINGS | {"model_type": "llama"}).window is None


@pytest.mark.parametrize(
    ("said", "size", "shortest_edge"),
    [
        ({"size": {"height": 16, "width": 48}}, (16, 48), None),
        ({"size": 64}, (64, 64), None),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, (224, 224), 256),
        (
            {"size": {"shortest_edge": 9, "height": None}, "do_center_crop": True,
             "crop_size": {"height": 8, "width": 6}},
            (8, 6), 9,
        ),
        ({"size": {"shortest_edge": 224}, "image_processor_type": "ConvNextImageProcessorFast"}, (224, 224), 256),
        ({"size": {"shortest_edge": 384}, "image_processor_type": "ConvNextImageProcessor"}, (384, 384), None),
        ({"size": {"height": 8, "width": 8}, "do_center_crop": True, "crop_size": 8}, (8, 8), None),
    ],
)  # fmt: skip
def test_sizes_of_pictures(said, size, shortest_edge):
    config = PictureConfig.from_dict(said)
    assert (config.size, config.shortest_edge) == (size, shortest_edge)


def test_one_number_for_all_colours():
    config = PictureConfig.from_dict({"image_mean": 0.5, "image_std": [0.25] * 3})
    assert config == PictureConfig(image_mean=(0.5,) * 3, image_std=(0.25,) * 3)


@pytest.mark.parametrize(("height", "width", "top", "left"), [(40, 81, 4, 24), (61, 40, 14, 4), (40, 40, 4, 4)])
def test_the_middle_of_a_picture_is_shown(height, width, top, left):
    prepare = Preparation(PictureConfig(size=(32, 32), shortest_edge=40), 8, decoded=True)
    photo = tiny_dino.photo(height, width)
    assert np.array_equal(prepare(photo), photo[top : top + 32, left : left + 32])
    whole = Preparation(PictureConfig(size=(32, 32), shortest_edge=40), 8, size=32, decoded=True)
    assert np.array_equal(whole(photo), np.asarray(Image.fromarray(photo).resize((32, 32), Image.Resampling.BILINEAR)))


def test_a_strip_that_would_become_too_long():
    prepare = Preparation(PictureConfig(size=(32, 32), shortest_edge=1000), 8)
    with pytest.raises(MediaError, match="too long"):
        prepare(np.zeros((1, 1 + MAX_PIXELS // 1000_000, 3), np.uint8))
