import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tallow.errors import ArgumentError, MediaError
from tallow.media import load_image
from tallow.media.image import IMAGENET_MEAN, IMAGENET_STD, open_rgb

MEAN, STD = (np.array(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def levels(tensor):
    """(1, 3, h, w) normalised -> (3, h, w) of 0 to 255."""
    return (tensor.numpy()[0] * STD + MEAN) * 255


@pytest.fixture
def photo():
    y, x = np.mgrid[0:60, 0:80]
    return Image.fromarray(np.stack([x * 3, y * 4, (x + y) % 256], axis=-1).astype(np.uint8))


def test_same_size_is_normalised_only(photo):
    tensor = load_image(encode(photo), (60, 80))
    assert tensor.shape == (1, 3, 60, 80)
    assert tensor.numpy().dtype == np.float32
    expected = (np.asarray(photo).transpose(2, 0, 1) / 255 - MEAN) / STD
    assert np.abs(tensor.numpy()[0] - expected).max() < 1e-6


def test_resized_exactly(photo):
    assert load_image(encode(photo), 32).shape == (1, 3, 32, 32)
    tall = load_image(encode(photo), (50, 20))
    assert tall.shape == (1, 3, 50, 20)
    assert levels(tall)[0].mean() == pytest.approx(np.asarray(photo)[..., 0].mean(), abs=1)


def test_fine_patterns_become_grey():
    checks = Image.fromarray((np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8))
    assert np.abs(levels(load_image(encode(checks), 16)) - 127.5).max() < 2


def test_path_file_and_bytes_give_the_same(photo, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photo))
    expected = load_image(path.read_bytes(), 20).numpy()
    assert np.array_equal(load_image(path, 20).numpy(), expected)
    assert np.array_equal(load_image(str(path), 20).numpy(), expected)
    with open(path, "rb") as file:
        assert np.array_equal(load_image(file, 20).numpy(), expected)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_formats(photo, format):
    decoded = np.asarray(open_rgb(encode(photo, format))).astype(int)
    assert np.abs(decoded - np.asarray(photo)).mean() < 12


def test_the_right_way_up(photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = open_rgb(encode(photo, "PNG", exif=exif))
    assert turned.size == (60, 80)
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(photo), -1))


def test_transparency_lies_over_white():
    grey = np.full((4, 4, 4), 100, np.uint8)
    grey[..., 3] = [0, 51, 204, 255]
    assert np.asarray(open_rgb(encode(Image.fromarray(grey))))[0, :, 0].tolist() == [255, 224, 131, 100]


def test_transparent_colour_of_a_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    pixels = np.asarray(open_rgb(encode(image, "PNG", transparency=0)))
    assert pixels.tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize(("format", "dtype"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32)])
def test_16_bits_are_scaled(format, dtype):
    image = Image.fromarray(np.array([[0, 257, 30_000, 65_535]], dtype))
    assert np.asarray(open_rgb(encode(image, format)))[0, :, 1].tolist() == [0, 1, 117, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "YCbCr"])
def test_other_modes(photo, mode):
    format = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    assert open_rgb(encode(photo.convert(mode), format)).mode == "RGB"


def test_first_picture_of_an_animation():
    red, blue = (Image.new("RGB", (5, 5), colour) for colour in ("red", "blue"))
    assert open_rgb(encode(red, "GIF", save_all=True, append_images=[blue])).getpixel((0, 0)) == (255, 0, 0)


def test_one_pixel():
    assert load_image(encode(Image.new("RGB", (1, 1), "red")), 4).shape == (1, 3, 4, 4)


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("limit", [None, "Pillow's"])
def test_a_huge_picture_is_refused_before_it_is_decoded(monkeypatch, limit):
    if limit is None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(MediaError, match=r"too large.*178,956,970"):
        load_image(png_header(40_000, 40_000), 224)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        bytes(500),
    ],
)
def test_files_that_are_no_pictures(content, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"photo\.jpg: not a picture.*JPEG, PNG"):
        load_image(path, 224)


def test_an_animation_without_frames():
    with pytest.raises(MediaError, match="picture of 14 bytes"):
        open_rgb(b"GIF89a" + struct.pack("<HHBBB", 5, 5, 0, 0, 0) + b";")


@pytest.mark.parametrize("side", [8, 100, 400])
def test_a_jpeg_at_a_part_of_its_size(side):
    y, x = np.mgrid[0:800, 0:600] / 50
    waves = Image.fromarray((np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) * 100 + 128).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    data = encode(waves, "JPEG", exif=exif, quality=95)
    whole, part = open_rgb(data), open_rgb(data, at_least=side)
    assert whole.size == (800, 600)
    assert part.size == (800 // (8 if side == 8 else 4 if side == 100 else 1), part.width * 3 // 4)
    smaller = np.asarray(whole.resize(part.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(part) - smaller).mean() < 3


def test_pictures_in_memory(photo):
    pixels = np.asarray(photo)
    assert np.array_equal(np.asarray(open_rgb(pixels)), pixels)
    assert np.array_equal(np.asarray(open_rgb(photo.convert("L"))), np.asarray(photo.convert("L").convert("RGB")))
    assert np.array_equal(np.asarray(open_rgb(pixels[..., 0]))[..., 1], pixels[..., 0])
    clear = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    assert (np.asarray(open_rgb(clear)) == 255).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
@pytest.mark.parametrize("part", [0.3, 0.8])
def test_cut_off_in_the_middle(photo, format, part):
    data = encode(photo, format)
    with pytest.raises(MediaError, match="picture"):
        load_image(data[: int(len(data) * part)], 224)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(MediaError, match=r"nothing\.png: no such file"):
        load_image(tmp_path / "nothing.png", 224)
    with pytest.raises(MediaError, match="is a folder"):
        load_image(tmp_path, 224)


def test_floating_point_pixels():
    with pytest.raises(MediaError, match="floating-point"):
        load_image(encode(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"), 224)


@pytest.mark.parametrize("size", [0, -1, (0, 5), (100_000, 100_000)])
def test_sizes_that_there_are_not(photo, size):
    with pytest.raises(ArgumentError, match="size"):
        load_image(encode(photo), size)
