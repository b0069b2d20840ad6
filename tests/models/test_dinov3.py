"""DINOv3 from a checkpoint folder to vectors and features, with random weights: everything but their sense."""

import dataclasses
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

import tallow as tl
from tallow.errors import ArgumentError, MediaError, ModelNotFoundError, ShapeError, WeightsError
from tallow.models.dinov3 import DINOv3ConvNextConfig, DINOv3ViT, DINOv3ViTConfig, PictureConfig
from tallow.models.estimate import estimate_memory
from tallow.models.registry import find_class
from tallow.runtime.threads import get_num_threads, set_num_threads
from tallow.weights.safetensors import open_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.hub.test_hub import fill_cache
from tests.models import tiny_dino
from tests.models.tiny_dino import photo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_dino.write(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def convnext(tmp_path_factory):
    yield tl.load(tiny_dino.write(tmp_path_factory.mktemp("dino"), "convnext"), device="cpu")
    tl.unload()


@pytest.fixture(scope="module")
def model(folder):
    yield tl.load(folder, device="cpu")
    tl.unload()


def encoded(pixels, format="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def test_vectors_have_length_one(model, tmp_path):
    pixels = photo(50, 70)
    (tmp_path / "a.png").write_bytes(encoded(pixels))
    vectors = model.embed([pixels, tmp_path / "a.png", str(tmp_path / "a.png"), encoded(pixels), photo(9, 300)])
    assert vectors.shape == (5, 48)
    assert vectors.dtype == tl.float32
    assert np.linalg.norm(vectors.numpy(), axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert all(np.array_equal(row, vectors.numpy()[0]) for row in vectors.numpy()[:4])
    assert np.array_equal(model.embed(Image.fromarray(pixels)).numpy(), vectors.numpy()[0])
    with open(tmp_path / "a.png", "rb") as file:
        assert np.array_equal(model.embed(file).numpy(), vectors.numpy()[0])


def test_no_pictures(model):
    assert model.embed([]).shape == (0, 48)


def test_any_iterable_and_a_batch_in_one_array(model):
    pixels = np.stack([photo(32, 32, seed) for seed in range(3)])
    expected = model.embed(list(pixels)).numpy()
    assert np.array_equal(model.embed(pixels).numpy(), expected)
    assert np.array_equal(model.embed(iter(pixels)).numpy(), expected)


def test_a_vector_depends_on_nothing_beside_it(model):
    """Pictures of many sizes, in batches of any size, with any number of threads."""
    pictures = [photo(40 + 30 * (i % 3), 64, i) for i in range(11)]
    alone = np.stack([model.embed(picture, proportional=True).numpy() for picture in pictures])
    threads = get_num_threads()
    try:
        for batch_size, count in [(1, 1), (3, 2), (8, 2), (100, 3)]:
            set_num_threads(count)
            found = model.embed(pictures, proportional=True, batch_size=batch_size)
            assert np.array_equal(found.numpy(), alone)
    finally:
        set_num_threads(threads)


def test_sizes(model):
    picture = photo(60, 90)
    assert model.features(picture).grid == (4, 4)
    assert model.features(picture, size=64).grid == (8, 8)
    assert model.features(picture, size=(16, 40)).grid == (2, 5)
    assert model.features(picture, proportional=True).grid == (3, 5)  # 3:2, about 16 patches
    assert model.features(photo(1, 1), proportional=True).grid == (4, 4)
    assert model.features(photo(1, 900), proportional=True).grid == (1, 16)


@pytest.mark.parametrize("size", [0, 30, (32, 33), -8])
def test_sizes_that_there_are_not(model, size):
    with pytest.raises(ArgumentError, match="multiples of 8"):
        model.embed(photo(9, 9), size=size)


def test_features(model):
    picture = photo(40, 40)
    found = model.features(picture)
    assert (found.class_token.shape, found.registers.shape, found.patches.shape) == ((48,), (4, 48), (4, 4, 48))
    token = found.class_token.numpy()
    assert model.embed(picture).numpy() == pytest.approx(token / np.linalg.norm(token), abs=1e-6)


def test_pixels_in_their_own_sizes(model):
    """Tensors are taken as they are, and those of one size together."""
    generator = np.random.default_rng(0)
    pixels = [tl.asarray(generator.standard_normal((3, *s)).astype(np.float32)) for s in [(32, 32), (16, 48), (32, 32)]]
    vectors = model.embed(pixels).numpy()
    for i in range(3):
        assert np.array_equal(model.embed(pixels[i]).numpy(), vectors[i])
    tokens = model(pixels[1].unsqueeze(0))
    assert tokens.shape == (1, 1 + 4 + 2 * 6, 48)
    for wrong in (tl.ones((3, 30, 32)), tl.ones((1, 32, 32)), tl.ones((3, 0, 8)), tl.ones((32, 32))):
        with pytest.raises(ShapeError, match=r"multiples of 8|\(3, height, width\)"):
            model.embed(wrong)
    with pytest.raises(ShapeError, match="multiples of 8"):
        model(tl.ones((1, 3, 30, 32)))


def test_a_convnext(convnext):
    """Its class token stands for the mean of the patches, before the norm of both."""
    pictures = [photo(40 + 30 * (i % 3), 64, i) for i in range(5)]
    vectors = convnext.embed(pictures, proportional=True).numpy()
    assert vectors.shape == (5, 40)
    for picture, vector in zip(pictures, vectors, strict=True):
        assert np.array_equal(convnext.embed(picture, proportional=True).numpy(), vector)
    found = convnext.features(pictures[0], size=(48, 80))
    assert (found.class_token.shape, found.registers.shape, found.patches.shape) == ((40,), (0, 40), (3, 5, 40))
    with pytest.raises(ArgumentError, match="multiples of 16"):
        convnext.embed(pictures[0], size=40)
    with pytest.raises(ShapeError, match="multiples of 16"):
        convnext(tl.ones((1, 3, 24, 32)))


def test_attention(model):
    picture = photo(32, 48)
    maps = model.attention(picture, size=(32, 48))
    assert maps.weights.shape == (3, 29, 29)
    assert maps.class_token.shape == (3, 4, 6)
    assert maps.weights.sum(-1).numpy() == pytest.approx(np.ones((3, 29)), abs=1e-5)
    head = model.attention(picture, 2, size=(32, 48), layer=-1)
    assert np.array_equal(head.weights.numpy(), maps.weights.numpy()[2])
    assert np.array_equal(head.class_token.numpy(), maps.weights.numpy()[2, 0, 5:].reshape(4, 6))
    first = model.attention(picture, size=(32, 48), layer=0)
    assert np.array_equal(model.attention(picture, size=(32, 48), layer=-3).weights.numpy(), first.weights.numpy())
    for wrong in ({"head": 3}, {"head": -1}, {"layer": 3}, {"layer": -4}):
        with pytest.raises(ArgumentError, match="3 heads and 3 layers"):
            model.attention(picture, **wrong)


def test_a_picture_that_cannot_be_read(model, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(encoded(photo(99, 99), "JPEG")[:700])
    pictures = [photo(20, 20), broken, tmp_path / "missing.png", photo(20, 20)]
    with pytest.raises(MediaError, match=r"broken\.jpg"):
        model.embed(pictures)
    found = dict(model.stream(pictures))
    assert sorted(found) == [0, 1, 2, 3]
    assert "broken.jpg" in str(found[1])
    assert "missing.png: no such file" in str(found[2])
    assert np.array_equal(found[0], found[3])
    with pytest.raises(MediaError, match="no such file"):
        model.embed(tmp_path / "missing.png")


def test_a_stream_that_is_left_lying_ends_its_threads(model):
    stream = model.stream(photo(20, 20, i) for i in range(1000))
    next(stream)
    stream.close()
    for thread in threading.enumerate():
        if thread.name.startswith("tallow-pictures"):
            thread.join(5)
            assert not thread.is_alive()


def test_progress(model):
    seen = []
    model.embed([photo(20, 20), photo(30, 30), photo(40, 40)], batch_size=2, progress=seen.append)
    assert sorted(seen) == [0, 1, 2]


def test_fast_decode(model):
    data = encoded(photo(512, 512), "JPEG")
    exact, fast = model.embed(data).numpy(), model.embed(data, fast_decode=True).numpy()
    assert not np.array_equal(exact, fast)
    assert exact @ fast > 0.99
    lossless = encoded(photo(512, 512))
    assert np.array_equal(model.embed(lossless, fast_decode=True).numpy(), model.embed(lossless).numpy())


def test_arrays_that_are_no_pictures(model):
    for wrong in (np.zeros((3, 3), np.float32), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 5), np.uint8)):
        with pytest.raises(MediaError, match="a picture is uint8"):
            model.embed(wrong)


@pytest.mark.parametrize("options", [{"quantize": "int8"}, {"dtype": "float16"}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("kind", tiny_dino.CONFIGS)
def test_smaller_weights(kind, options, tmp_path):
    exact = tl.load(tiny_dino.write(tmp_path, kind), device="cpu")
    smaller = tl.load(tmp_path, device="cpu", **options)
    pictures = [photo(40, 40, seed) for seed in range(4)]
    cosines = (exact.embed(pictures) * smaller.embed(pictures)).sum(-1).numpy()
    assert cosines.min() > 0.999


def test_by_name_from_the_hub_cache(folder, model, tmp_path):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    fill_cache(tmp_path, "facebook/dinov3-vits16-pretrain-lvd1689m", files)
    named = tl.load("facebook/dinov3-vits16-pretrain-lvd1689m", device="cpu", cache_dir=tmp_path)
    assert np.array_equal(named.embed(photo(9, 9)).numpy(), model.embed(photo(9, 9)).numpy())


def test_settings_of_pictures(folder):
    said = tiny_dino.PICTURES | {"size": {"height": 16, "width": 48}, "image_mean": [0.1, 0.2, 0.3], "resample": 3}
    config = PictureConfig.from_dict(said)
    assert config == PictureConfig((16, 48), (0.1, 0.2, 0.3), (0.229, 0.224, 0.225), 3)
    vit = DINOv3ViT(DINOv3ViTConfig.from_dict(tiny_dino.VIT), VarBuilder(open_safetensors(folder)), config)
    assert vit.features(photo(20, 20)).grid == (2, 6)


@pytest.mark.parametrize(
    "change",
    [
        {"do_resize": False},
        {"do_center_crop": True},
        {"rescale_factor": 1 / 127},
        {"resample": 1},
        {"resample": [2]},
        {"size": {"shortest_edge": 9}},
        {"size": {"height": 0, "width": 1}},
        {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 41},
        {"size": {"shortest_edge": 32}, "image_processor_type": "ConvNextImageProcessor", "crop_pct": 2.0},
        {"image_mean": [0.5]},
        {"image_std": [0, 1, 1]},
        {"image_std": "abc"},
    ],
)
def test_settings_of_pictures_that_do_not_fit(change):
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json"):
        PictureConfig.from_dict(tiny_dino.PICTURES | change)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 50},
        {"num_attention_heads": 5},
        {"hidden_act": "silu"},
        {"use_gated_mlp": True},
        {"num_channels": 4},
        {"patch_size": [16, 16]},
        {"num_register_tokens": -1},
        {"rope_theta": 0},
    ],
)
def test_configs_that_do_not_fit(change):
    with pytest.raises(WeightsError, match=r"config\.json of a DINOv3"):
        DINOv3ViTConfig.from_dict(tiny_dino.VIT | change)


def test_a_checkpoint_that_is_not_whole(tmp_path):
    folder = tiny_dino.write(tmp_path)
    (folder / "config.json").write_text(json.dumps(tiny_dino.VIT | {"num_hidden_layers": 2}))
    with pytest.raises(WeightsError, match="the config has no layer for"):
        tl.load(folder, device="cpu")
    (folder / "config.json").write_text(json.dumps(tiny_dino.VIT))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"preprocessor_config\.json"):
        tl.load(folder, device="cpu")


def test_a_model_without_settings_for_pictures():
    model = DINOv3ViT(DINOv3ViTConfig.from_dict(tiny_dino.VIT), VarBuilder.random())
    assert model(tl.ones((1, 3, 16, 16))).shape == (1, 9, 48)
    with pytest.raises(WeightsError, match="without settings"):
        model.embed(photo(9, 9))


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("dinov3_vit", DINOv3ViTConfig(num_hidden_layers=2, num_register_tokens=4)),
        ("dinov3_vit", DINOv3ViTConfig(num_hidden_layers=2, num_register_tokens=4, use_gated_mlp=True)),
        ("dinov3_convnext", DINOv3ConvNextConfig(depths=(1, 1, 2, 1))),
    ],
)
def test_weights_are_estimated_from_the_config(family, config):
    model = find_class(family)(config, VarBuilder.random())
    assert estimate_memory(config).weights == pytest.approx(model.nbytes, rel=0.02)
    assert estimate_memory(dataclasses.asdict(config) | {"model_type": family}) == estimate_memory(config)


@pytest.mark.parametrize(
    "change", [{"depths": [1, 2]}, {"hidden_sizes": [8, 0, 8]}, {"hidden_act": "relu"}, {"layer_norm_eps": -1}]
)
def test_configs_of_convnexts_that_do_not_fit(change):
    with pytest.raises(WeightsError, match=r"config\.json of a DINOv3"):
        DINOv3ConvNextConfig.from_dict(tiny_dino.CONFIGS["convnext"] | change)
