"""Pictures in: decode, bring to plain RGB, resize, normalise."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Union

import numpy as np

from tallow.errors import ArgumentError, MediaError
from tallow.media.samples import to_rgb
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]
ImageSource = Union[str, os.PathLike[str], bytes, BinaryIO, Array, "Image"]

# Mean and standard deviation of red, green and blue over ImageNet (Krizhevsky et al. 2012), of values 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_PIXELS = 178_956_970  # half a gigabyte of RGB; also where Pillow's own guard refuses

_WHOLE = 1 << 26  # bytes of a file that are read at once: threads that read little by little wait for each other

# The formats that are tried. Not all that Pillow knows: among its readers is one that starts another program (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def load_image(source: ImageSource, size: int | tuple[int, int]) -> Tensor:
    """Decode a picture, resize it to exactly ``size`` and normalise it as vision models trained on ImageNet expect.

    Args:
        source: a JPEG, PNG, WebP, GIF (its first picture), BMP, TIFF or AVIF: a path, its bytes or an open file; or a
            picture in memory, Pillow's or an array of uint8, (height, width) or (height, width, 3 or 4).
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
    values = normalised(resized(open_rgb(source), (height, width)))
    return Tensor(np.ascontiguousarray(values.transpose(2, 0, 1))[None])


def resized(picture: Image, size: tuple[int, int], resample: str = "bilinear") -> Array:
    """Resize a picture: (height, width, 3) uint8.

    Args:
        picture: 8-bit RGB.
        size: height and width.
        resample: the filter, ``"bilinear"`` or ``"bicubic"``.
    """
    from PIL.Image import Resampling

    # Pillow's filters widen with the reduction, which keeps fine patterns from aliasing. They round to 8 bits after
    # each direction, so a value is off by less than one level of 255.
    return np.asarray(picture.resize((size[1], size[0]), Resampling[resample.upper()]))


def normalised(
    pixels: Array, mean: Sequence[float] = IMAGENET_MEAN, deviation: Sequence[float] = IMAGENET_STD
) -> Array:
    """Pixels as a model takes them: (height, width, 3) uint8 -> float32.

    Args:
        pixels: red, green and blue.
        mean: of each colour, of values 0 to 1.
        deviation: likewise.
    """
    values = pixels.astype(np.float32) / np.float32(255)
    values -= np.array(mean, np.float32)
    values /= np.array(deviation, np.float32)
    return values


def is_picture(value: object) -> bool:
    """Whether a value is a single picture or names one, rather than being several."""
    if isinstance(value, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray):
        return True
    return hasattr(value, "read") or _is_image(value)


def open_rgb(source: ImageSource, at_least: int | None = None) -> Image:
    """Decode a picture to 8-bit RGB, the right way up.

    Args:
        source: as for `load_image`.
        at_least: lets a JPEG be decoded at a half, a quarter or an eighth of its size, if height and width are still so
            many pixels then.

    Raises:
        MediaError: as for `load_image`.
    """
    from PIL import Image, UnidentifiedImageError

    name, file = _named(source)
    try:
        if isinstance(file, Image.Image):
            return to_rgb(file)
        image: Image.Image = Image.open(_whole(file), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels")
        if at_least is not None:
            image.draft(None, (at_least, at_least))
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


def _named(source: ImageSource) -> tuple[str, str | BinaryIO | Image]:
    """What messages call a source, and what Pillow can open, or has opened."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"picture of {len(source):,} bytes", io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        return os.fspath(source), os.fspath(source)
    if isinstance(source, np.ndarray):
        return f"array of shape {source.shape}", _from_array(source)
    if _is_image(source):
        return "picture", source
    return str(getattr(source, "name", "picture")), source


def _whole(file: str | BinaryIO) -> str | BinaryIO:
    """A file's bytes, if it is named and not too large; else as it is."""
    if not isinstance(file, str) or not 0 < os.stat(file).st_size <= _WHOLE:
        return file
    with open(file, "rb", buffering=0) as opened:
        return io.BytesIO(opened.read(_WHOLE))


def _from_array(pixels: Array) -> Image:
    from PIL import Image

    wanted = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not wanted or not pixels.size:
        raise MediaError(
            f"an array of {pixels.dtype} and shape {pixels.shape}; a picture is uint8 and (height, width) or "
            "(height, width, 3 or 4)"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _is_image(value: object) -> bool:
    """Whether it is an image of Pillow's, which need not have been imported to tell."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)
