"""``tallow features`` as a process."""

import numpy as np
import pytest
from PIL import Image

from tests.models import tiny_dino


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_dino.write(tmp_path_factory.mktemp("cli") / "dino")


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(tiny_dino.photo(60, 90)).save(tmp_path / "photo.png")
    return "photo.png"


def test_a_map(command, model, photo, tmp_path):
    found = command("features", photo, "--out", "map.png", "--model", model, "--size", "64")
    assert (found.returncode, found.stdout, found.stderr) == (0, "map.png: 7 × 10 patches\n", "")
    drawn = Image.open(tmp_path / "map.png")
    assert drawn.size == (160, 56)
    left = np.asarray(drawn)[:, :80].astype(int)
    expected = np.asarray(Image.open(tmp_path / photo).resize((80, 56), Image.Resampling.BILINEAR)).astype(int)
    assert np.array_equal(left, expected)


def test_a_map_of_what_is_like_a_point(command, model, photo, tmp_path):
    found = command("features", photo, "--out", "map.png", "--model", model, "--size", "64", "--point", "89", "59")
    assert found.returncode == 0
    drawn = np.asarray(Image.open(tmp_path / "map.png"))
    assert drawn.shape == (56, 240, 3)
    assert drawn[-1, -1].tolist() == [252, 255, 164]  # the patch itself


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg"], "missing.jpg: no such file"),
        (["photo.png", "--point", "90", "0"], "the photo has 90 × 60 pixels"),
        (["photo.png", "--size", "30"], "multiples of 8"),
        (["photo.png", "--size", "-8"], "multiples of 8"),
    ],
)
def test_errors(command, model, photo, arguments, message):
    found = command("features", *arguments, "--out", "map.png", "--model", model)
    assert found.returncode == 1
    assert found.stderr.startswith("tallow: error: ")
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_wrong_usage(command, model, photo, checkpoint):
    assert command("features", photo, "--model", model).returncode == 2
    found = command("features", photo, "--model", model, "--out", "map.txt")
    assert found.returncode == 2
    assert ".png" in found.stderr
    found = command("features", photo, "--model", checkpoint, "--out", "map.png")
    assert found.returncode == 1
    assert "Whisper; features are of models of pictures" in found.stderr
