"""What the samples of a picture mean: every mode of Pillow's as 8-bit RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tallow.errors import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]

_ORIENTATION = 0x0112  # EXIF's tag for which way up a picture is
# TIFF's tags (Adobe 1992, "TIFF revision 6.0", sections 8 and 19).
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_MIN_IS_WHITE, _SIGNED = 0, 2


class _Samples(NamedTuple):
    """How a file stores its samples, as far as Pillow leaves it to its reader.

    Attributes:
        bits: of a sample, where they are more or fewer than Pillow's mode says; 0 if the file doesn't say.
        signed: whether they are signed.
        min_is_white: whether the least is white, of a picture that Pillow has not turned round.
    """

    bits: int = 0
    signed: bool = False
    min_is_white: bool = False


def to_rgb(image: Image) -> Image:
    """A picture as 8-bit RGB: turned as its EXIF data say, transparency over white, deep grey scaled to 8 bits.

    Raises:
        MediaError: for floating-point pixels, whose scale nothing tells.
    """
    from PIL import Image, ImageOps

    samples = _samples(image)  # before it is loaded or turned, which takes away what the file says of them
    image.load()
    if image.getexif().get(_ORIENTATION, 1) != 1:  # what turns nothing would copy it
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise MediaError("a picture with floating-point pixels; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _grey(image, samples)
    elif image.mode == "L" and samples.signed:  # Pillow takes a signed byte for an unsigned one
        image = image.point([(level + 128) % 256 for level in range(256)])
    elif image.mode == "La":  # for which Pillow has no other way
        image = image.convert("LA")
    if image.has_transparency_data:
        image = _with_level(image, samples)
        over = Image.new("RGBA", image.size, "white")
        over.alpha_composite(image.convert("RGBA"))
        image = over
    return image if image.mode == "RGB" else image.convert("RGB")


def _samples(image: Image) -> _Samples:
    """What a picture's file says of its samples; nothing for a picture in memory."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        bits, kinds = tags.get(_BITS_PER_SAMPLE, (0,)), tags.get(_SAMPLE_FORMAT, (1,))
        # Where samples have 8 bits or fewer, Pillow turns them round itself.
        return _Samples(int(bits[0]), kinds[0] == _SIGNED, tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE)
    tiles = getattr(image, "tile", None)
    if image.format == "PNG" and tiles and isinstance(tiles[0][3], str):
        raw = tiles[0][3]  # such as "L;4", or "RGB;16B"
        return _Samples(int("".join(letter for letter in raw.partition(";")[2] if letter.isdigit()) or 8))
    return _Samples()


def _grey(image: Image, samples: _Samples) -> Image:
    """Grey of more than 8 bits a sample, of which the range of their type becomes 0 to 255.

    Signed samples of 32 bits are an exception where all are from 0 to 65,535: so Pillow itself, and what is built on
    it, writes grey of 16 bits.
    """
    from PIL import Image

    values = np.asarray(image)
    bits = samples.bits or (16 if image.mode != "I" else 32)
    signed = samples.signed or not samples.bits
    if image.mode != "I":
        low, high = 0, (1 << bits) - 1
    elif bits == 32 and signed and values.min() >= 0 and values.max() <= 65535:
        low, high = 0, 65535
    elif signed:
        low, high = -1 << bits - 1, (1 << bits - 1) - 1
    else:
        values, low, high = values.view(np.uint32), 0, (1 << bits) - 1  # Pillow has the bits of unsigned samples
    levels = values.astype(np.float32)
    levels -= np.float32(low)
    levels *= np.float32(255 / (high - low))
    if samples.min_is_white:
        levels = np.float32(255) - levels
    grey = Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _with_level(image: Image, samples: _Samples) -> Image:
    """The picture, with the level that a PNG calls transparent brought to 8 bits, as Pillow has brought the samples."""
    level: Any = image.info.get("transparency")
    if 1 < samples.bits < 8 and image.mode == "L" and isinstance(level, int):
        level *= 255 // ((1 << samples.bits) - 1)
    elif samples.bits == 16 and image.mode == "RGB" and isinstance(level, tuple):
        level = tuple(part >> 8 for part in level)
    else:
        return image
    image = image.copy()  # which may be the caller's
    image.info["transparency"] = level
    return image
