"""Pictures of features."""

import numpy as np
from PIL import Image

from tallow.models.dinov3 import maps
from tallow.tensor import Tensor


def patches(kinds, dim=20, noise=0.01, seed=0):
    """Features of patches, those of one kind alike."""
    generator = np.random.default_rng(seed)
    directions = generator.standard_normal((max(map(max, kinds)) + 1, dim))
    found = directions[np.array(kinds)] + noise * generator.standard_normal((*np.shape(kinds), dim))
    return Tensor(found.astype(np.float32))


KINDS = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]


def test_patches_of_a_kind_have_a_colour():
    colours = maps.principal_colours(patches(KINDS)).astype(int)
    assert colours.shape == (3, 4, 3)
    flat, kinds = colours.reshape(-1, 3), np.ravel(KINDS)
    distance = np.abs(flat[:, None] - flat[None]).max(-1)
    alike = kinds[:, None] == kinds[None]
    assert distance[alike].max() < 20
    assert distance[~alike].min() > 100


def test_patches_that_do_not_differ_are_grey():
    assert (maps.principal_colours(Tensor(np.ones((2, 3, 8), np.float32))) == 128).all()
    assert (maps.principal_colours(Tensor(np.ones((1, 1, 8), np.float32))) == 128).all()
    two = maps.principal_colours(patches([[0, 1]]))
    assert np.abs(two[0, 0, 0].astype(int) - two[0, 1, 0]) == 255
    assert (two[..., 1:] == 128).all()


def test_similarities():
    found = maps.similarities(patches(KINDS), 2, 3)
    assert np.isclose(found[2, 3], 1)
    assert found[2, 2] > 0.99
    assert found[:2].max() < 0.9
    assert np.isfinite(maps.similarities(Tensor(np.zeros((1, 2, 3), np.float32)), 0, 0)).all()


def test_heat_goes_from_dark_to_light():
    colours = maps.heat(np.linspace(-0.3, 0.9, 50)).astype(int)
    assert (np.diff(colours.sum(-1)) > 0).all()
    assert maps.heat(np.ones((2, 2))).shape == (2, 2, 3)


def test_side_by_side():
    photo = Image.new("RGB", (70, 31), "red")
    joined = maps.side_by_side(photo, [maps.principal_colours(patches(KINDS)), maps.heat(np.ones((3, 4)))], 8)
    assert joined.size == (96, 24)
    assert joined.getpixel((5, 5)) == (255, 0, 0)
