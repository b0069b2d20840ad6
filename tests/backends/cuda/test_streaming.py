"""Batches of pictures and sounds on their way through a card."""

import numpy as np
import pytest

import tallow as tl
from tallow import ops
from tallow.ops.dispatch import OPERATIONS
from tallow.runtime.encoding import pipelined
from tallow.runtime.gpu import BatchUploader
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import TOLERANCE, error, needs_gpu
from tests.models import tiny_clap, tiny_dino

pytestmark = needs_gpu
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (3, 16, 16, 3), (2, 5, 7, 3), (5, 224, 224, 3), (0, 4, 4, 3)])
def test_pixels_are_normalised(dtype, shape):
    pixels = Tensor(random(*shape))
    expected = OPERATIONS["normalize_pixels"].reference(pixels, MEAN, DEVIATION)
    found = ops.normalize_pixels(pixels.to("cuda"), MEAN, DEVIATION, dtype)
    assert (found.shape, found.dtype.name) == (expected.shape, dtype)
    if found.size:
        assert error(found.float(), expected) <= TOLERANCE[dtype]
    if dtype == "float32":
        assert np.array_equal(found.numpy(), expected.numpy())


def test_pixels_that_lie_apart_and_other_types():
    pixels = Tensor(random(4, 9, 8, 3)).to("cuda")
    expected = ops.normalize_pixels(Tensor(pixels[::2, 1:].numpy().copy()), MEAN, DEVIATION)
    assert np.array_equal(ops.normalize_pixels(pixels[::2, 1:], MEAN, DEVIATION).numpy(), expected.numpy())
    with pytest.raises(tl.DTypeError):
        ops.normalize_pixels(pixels.float(), MEAN, DEVIATION)
    with pytest.raises(tl.ShapeError):
        ops.normalize_pixels(pixels[0], MEAN, DEVIATION)


def test_batches_arrive_whole_while_the_card_works():
    """Each is read by work that goes on long after the next has been brought."""
    feed, square = BatchUploader(tl.Device("cuda")), tl.ones((2048, 2048), device="cuda") / 2048
    batches = [[random(size, size, seed=size + i) for i in range(3)] for size in (64, 300, 2000, 64, 1000, 1000, 3)]

    def work(batch):
        x, busy = feed(batch), square
        for _ in range(20):
            busy = busy @ square  # stays what it is: ones / 2048
        return x.float().reshape(3, -1).sum(1) * (busy[0, 0] * 2048.0)

    found = [values for _, values in pipelined(work, batches)]
    for batch, values in zip(batches, found, strict=True):
        np.testing.assert_allclose(values, [part.astype(np.float64).sum() for part in batch], rtol=1e-4)


def test_pictures_of_all_kinds_have_the_same_vectors(tmp_path):
    folder = tiny_dino.write(tmp_path / "dino")
    pictures = [random(20 + i % 7, 40, 3, seed=i) for i in range(150)]
    pictures[3] = tl.asarray(np.random.default_rng(3).standard_normal((3, 32, 32)).astype(np.float32))
    vectors = [tl.load(folder, device=device).embed(pictures) for device in ("cpu", "cuda")]
    assert vectors[1].device is tl.Device("cpu")
    assert error(vectors[1], vectors[0]) <= 2e-5
    model = tl.load(folder, device="cuda")
    assert error(model.embed(pictures[5], proportional=True), tl.load(folder, device="cpu").embed(
        pictures[5], proportional=True)) <= 2e-5  # fmt: skip
    found = dict(model.stream([*pictures[:9], tmp_path / "none.jpg", *pictures[9:20]], batch_size=4))
    assert [i for i, row in found.items() if isinstance(row, tl.MediaError)] == [9]
    assert len(found) == 21
    assert np.array_equal(found[3], vectors[1].numpy()[3]) or np.abs(found[3] - vectors[1].numpy()[3]).max() < 1e-5


@pytest.mark.parametrize("fusion", [False, True])
def test_sounds_have_the_same_vectors(tmp_path, fusion):
    folder = tiny_clap.write(tmp_path / "clap", fusion=fusion)
    generator = np.random.default_rng(0)
    sounds = [generator.standard_normal(int(n)).astype(np.float32) * 0.1 for n in generator.integers(999, 300_000, 40)]
    told = []
    for long in ("mean", "crop"):
        sides = [tl.load(folder, device=device).embed_audio(sounds, long=long) for device in ("cpu", "cuda")]
        assert error(sides[1], sides[0]) <= 5e-5
    model = tl.load(folder, device="cuda")
    model.embed_audio(sounds, progress=told.append)
    assert told == list(range(40))
    with pytest.raises(tl.MediaError, match="no sound in it"):
        model.embed_audio([*sounds, np.zeros(0, np.float32), *sounds])
    assert error(model.embed_audio(sounds[1]), sides[0][1]) <= 5e-5 or sounds[1].size > tiny_clap.CLIP
