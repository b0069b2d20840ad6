"""Pictures whose samples are not 8-bit red, green and blue, in files that are written here byte by byte."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tallow.errors import MediaError
from tallow.media.image import open_rgb

STEPS = np.array([[0, 1000, 30000, 65535]])
AS_BYTES = [0, 4, 117, 255]


def tiff(samples, photometric=1, sample_format=1, order="<", bits=None, more=()):
    """A TIFF of grey: uncompressed, in one strip."""
    samples = samples.astype(samples.dtype.newbyteorder(order))
    height, width = samples.shape
    count = 10 + len(more)
    start = 8 + 2 + 12 * count + 4
    tags = [(256, width), (257, height), (258, bits or 8 * samples.itemsize), (259, 1), (262, photometric),
            (273, start), (277, 1), (278, height), (279, samples.nbytes), (339, sample_format), *more]  # fmt: skip
    fields = b"".join(
        struct.pack(order + "HHI", tag, 4 if tag in (273, 279) else 3, 1)
        + (struct.pack(order + "I", value) if tag in (273, 279) else struct.pack(order + "HH", value, 0))
        for tag, value in sorted(tags)
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, count)
    return head + fields + bytes(4) + samples.tobytes()


def png(width, bits, colour, row, transparent):
    """A PNG of one row with a transparent colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" + row))
    parts = [chunk(b"IHDR", header), chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)), data]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def grey(file):
    pixels = np.asarray(open_rgb(file))
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("samples", "sample_format", "orders"),
    [
        pytest.param(STEPS.astype(np.uint16), 1, "<>", id="unsigned-16"),
        pytest.param((STEPS - 32768).astype(np.int16), 2, "<>", id="signed-16"),
        pytest.param((STEPS.astype(np.uint64) * 65537).astype(np.uint32), 1, "<", id="unsigned-32"),
        pytest.param((STEPS * 65537 - 2**31).astype(np.int32), 2, "<>", id="signed-32"),
        pytest.param(STEPS.astype(np.int32), 2, "<>", id="16-bits-in-signed-32"),
    ],
)
def test_the_range_of_a_type_becomes_0_to_255(samples, sample_format, orders):
    for order in orders:
        assert grey(tiff(samples, 1, sample_format, order)) == AS_BYTES


def test_signed_bytes():
    assert grey(tiff(np.array([[-128, -1, 0, 127]], np.int8), 1, 2)) == [0, 127, 128, 255]


def test_12_bits():
    packed = np.array([[0x00, 0x07, 0xFF, 0xFF, 0xF8, 0x00]], np.uint8)  # 0, 2047, 4095, 2048: two in three bytes
    file = tiff(packed, bits=12)
    file = file.replace(struct.pack("<HHIHH", 256, 3, 1, 6, 0), struct.pack("<HHIHH", 256, 3, 1, 4, 0))
    assert grey(file) == [0, 127, 255, 128]


@pytest.mark.parametrize(("dtype", "expected"), [(np.uint8, [255, 252, 138, 0]), (np.uint16, [255, 251, 138, 0])])
def test_the_least_may_be_white(dtype, expected):
    samples = STEPS >> (16 - 8 * np.dtype(dtype).itemsize)
    assert grey(tiff(samples.astype(dtype), photometric=0)) == expected


def test_the_least_may_be_white_in_a_compressed_file():
    file = io.BytesIO()
    Image.fromarray(STEPS.astype(np.uint16)).save(file, "TIFF", compression="tiff_deflate", tiffinfo={262: 0})
    assert grey(file.getvalue()) == [255, 251, 138, 0]


def test_a_turned_picture_keeps_the_range_of_its_samples():
    turned = tiff((STEPS - 32768).astype(np.int16), 1, 2, more=[(274, 3)])  # by half a turn
    assert grey(turned) == AS_BYTES[::-1]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        pytest.param(png(2, 16, 0, struct.pack(">HH", 1000, 40000), (1000,)), [255, 156], id="16"),
        pytest.param(png(2, 8, 0, bytes([3, 9]), (3,)), [255, 9], id="8"),
        pytest.param(png(2, 4, 0, bytes([0x3A]), (3,)), [255, 170], id="4"),
        pytest.param(png(4, 2, 0, bytes([0b00011011]), (1,)), [0, 255, 170, 255], id="2"),
        pytest.param(png(2, 1, 0, bytes([0b10000000]), (0,)), [255, 255], id="1"),
    ],
)
def test_a_transparent_level_of_grey(file, expected):
    assert grey(file) == expected
    image = Image.open(io.BytesIO(file))
    assert grey(image) == expected
    assert image.size == (len(expected), 1)


def test_a_transparent_colour_of_16_bits():
    row = struct.pack(">6H", 1000, 2000, 3000, 4000, 5000, 6000)
    assert np.asarray(open_rgb(png(2, 16, 2, row, (1000, 2000, 3000))))[0].tolist() == [[255] * 3, [15, 19, 23]]


def test_a_picture_of_the_callers_stays_as_it_is():
    image = Image.open(io.BytesIO(png(2, 4, 0, bytes([0x3A]), (3,))))
    for _ in range(2):
        open_rgb(image)
    assert image.info["transparency"] == 3


def test_premultiplied_grey_in_memory():
    assert np.asarray(open_rgb(Image.new("LA", (1, 1), (10, 0)).convert("La"))).tolist() == [[[255] * 3]]


def test_lab_is_converted_by_its_meaning():
    lab = Image.merge("LAB", [Image.new("L", (1, 1), level) for level in (255, 128, 128)])
    assert np.asarray(open_rgb(lab)).min() >= 250  # L* = 100 without colour: white


def test_floats_are_refused():
    with pytest.raises(MediaError, match="floating-point"):
        open_rgb(tiff(STEPS.astype(np.float32), 1, 3))
