"""Pictures in: decode, bring to plain RGB, resize, normalise."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from tallow.errors import ArgumentError, MediaError
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

ImageSource = str | os.PathLike[str] | bytes | BinaryIO

# Mean and standard deviation of red, green and blue over ImageNet (Krizhevsky et al. 2012), of values 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_PIXELS = 178_956_970  # half a gigabyte of RGB; also where Pillow's own guard refuses

# The formats that are tried. Not all that Pillow knows: among its readers is one that starts another program (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def load_image(source: ImageSource, size: int | tuple[int, int]) -> Tensor:
    """Decode a picture, resize it to exactly ``size`` and normalise it as vision models trained on ImageNet expect.

    Args:
        source: a JPEG, PNG, WebP, GIF (its first picture), BMP, TIFF or AVIF: a path, its bytes or an open file.
        size: height and width; one number stands for both. The proportions are not kept.

    Returns:
        (1, 3, height, width), float32: (v / 255 − mean) / deviation of each colour.

    Raises:
        MediaError: when there is no such file, it cannot be decoded whole, or it has more than ``MAX_PIXELS`` pixels.
        ArgumentError: for a size below 1 or above ``MAX_PIXELS``.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if not (height >= 1 and width >= 1 and height * width <= MAX_PIXELS):
        raise ArgumentError(f"load_image: a size of {height} × {width}; expected 1 or more, and at most {MAX_PIXELS:,}")
    from PIL.Image import Resampling

    # Pillow's bilinear filter widens with the reduction, which keeps fine patterns from aliasing.
    picture = open_rgb(source).resize((width, height), Resampling.BILINEAR)
    values = np.asarray(picture, dtype=np.float32) / np.float32(255)  # (height, width, 3)
    values -= np.array(IMAGENET_MEAN, np.float32)
    values /= np.array(IMAGENET_STD, np.float32)
    return Tensor(np.ascontiguousarray(values.transpose(2, 0, 1))[None])


def open_rgb(source: ImageSource) -> Image:
    """Decode a picture to 8-bit RGB, the right way up.

    Raises:
        MediaError: as for `load_image`.
    """
    from PIL import Image, UnidentifiedImageError

    name, file = _named(source)
    try:
        image: Image.Image = Image.open(file, formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels")
        image.load()
        return to_rgb(image)
    except FileNotFoundError:
        raise MediaError(f"{name}: no such file; check the name") from None
    except Image.DecompressionBombError as error:
        raise MediaError(f"{name}: too large ({error}); scale it down to {MAX_PIXELS:,} pixels or fewer") from error
    except UnidentifiedImageError:
        raise MediaError(f"{name}: not a picture that can be read; expected {', '.join(_FORMATS)}") from None
    except (MemoryError, MediaError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them trip over
        reason = "is a folder" if isinstance(error, IsADirectoryError) else f"cannot be decoded ({error})"
        raise MediaError(f"{name}: {reason}; name a complete picture") from error


def to_rgb(image: Image) -> Image:
    """A decoded picture as 8-bit RGB: turned as its EXIF data say, transparency over white, 16 bits scaled to 8.

    Raises:
        MediaError: for floating-point pixels, whose scale nothing tells.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise MediaError("a picture with floating-point pixels; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, grey; Pillow's own conversion would clip at 255
        scaled = (np.asarray(image).astype(np.float32).clip(0, 65535) / 257).round()
        image = Image.fromarray(scaled.astype(np.uint8))
    if image.has_transparency_data:
        over = Image.new("RGBA", image.size, "white")
        over.alpha_composite(image.convert("RGBA"))
        image = over
    return image.convert("RGB")


def _named(source: ImageSource) -> tuple[str, str | BinaryIO]:
    """What messages call a source, and what Pillow can open."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"picture of {len(source):,} bytes", io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        return os.fspath(source), os.fspath(source)
    return str(getattr(source, "name", "picture")), source
