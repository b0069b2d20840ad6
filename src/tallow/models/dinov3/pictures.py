"""From pictures to batches of pixels: prepared by threads beside the model, grouped by their size."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow.errors import ArgumentError, MediaError, ShapeError, WeightsError
from tallow.media.image import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_PIXELS,
    ImageSource,
    is_picture,
    normalised,
    open_rgb,
    resized,
)
from tallow.models.config_reader import ConfigReader
from tallow.runtime.threads import get_num_threads
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]
Picture = ImageSource | Tensor
Colour = tuple[float, float, float]

_FILTERS = {2: "bilinear", 3: "bicubic"}  # by the numbers that Pillow gives them
_WAITING = 4  # batches' worth of pictures of different sizes that wait for others of their size


@dataclass(frozen=True)
class PictureConfig:
    """How a picture becomes pixels, under the names that Transformers' image processors have for it.

    Attributes:
        size: height and width that the model is shown.
        image_mean: of red, green and blue, of values 0 to 1.
        image_std: their deviations.
        resample: the filter, 2 for bilinear and 3 for bicubic; both widen with the reduction.
        shortest_edge: what the shorter side is resized to, in proportion, before the middle of ``size`` is cut out;
            None where pictures are resized to ``size`` itself.
    """

    size: tuple[int, int] = (224, 224)
    image_mean: Colour = IMAGENET_MEAN
    image_std: Colour = IMAGENET_STD
    resample: int = 2
    shortest_edge: int | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], file: str = "preprocessor_config.json") -> PictureConfig:
        """Take the settings out of a file. Raises WeightsError for what is senseless or computed otherwise."""
        reader = ConfigReader(config, "DINOv3", file)
        for key, value in {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": False}.items():
            reader.expect(key, value)
        if abs(reader.real("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
            raise WeightsError(f"{file} of a DINOv3: rescale_factor must be 1/255, found {config['rescale_factor']}")
        resample = reader.config.get("resample", 2)
        if not isinstance(resample, int) or resample not in _FILTERS:
            raise WeightsError(f"{file} of a DINOv3: resample must be 2 or 3, found {resample!r}")
        size, shortest_edge = _sizes(reader)
        return cls(
            size=size,
            image_mean=_colour(reader, "image_mean", IMAGENET_MEAN),
            image_std=_colour(reader, "image_std", IMAGENET_STD),
            resample=resample,
            shortest_edge=shortest_edge,
        )

    def resized_from(self, width: int, height: int) -> tuple[int, int]:
        """The height and width that a picture is resized to before its middle is cut out."""
        if self.shortest_edge is None:
            return self.size
        longer = int(self.shortest_edge * max(width, height) / min(width, height))
        return (longer, self.shortest_edge) if height > width else (self.shortest_edge, longer)


def _sizes(reader: ConfigReader) -> tuple[tuple[int, int], int | None]:
    """Height and width that the model is shown, and what the shorter side is resized to before."""
    size = _size(reader, "size", 224)
    edge = size.config.get("shortest_edge")
    if edge is None:
        shown = size.size("height"), size.size("width")
        if reader.flag("do_center_crop", False):
            crop = _size(reader, "crop_size", 224)
            if (crop.size("height"), crop.size("width")) != shown:
                raise WeightsError(f"{reader.file} of a DINOv3: crop_size must be the size, {shown}, or be left out")
        return shown, None
    edge = size.size("shortest_edge")
    if str(reader.config.get("image_processor_type", "")).startswith("ConvNext"):
        # Liu et al. 2022: below 384 pixels a margin is cut off, from there on the whole picture is shown.
        part = reader.real("crop_pct", 224 / 256)
        resized_to = int(edge / part)
        if resized_to < edge:
            raise WeightsError(f"{reader.file} of a DINOv3: crop_pct must be at most 1, found {part}")
        return (edge, edge), (resized_to if edge < 384 else None)
    if not reader.flag("do_center_crop", False):
        raise WeightsError(
            f"{reader.file} of a DINOv3: size must have height and width, or a shortest_edge that is followed by "
            f"do_center_crop; found shortest_edge {edge} alone"
        )
    crop = _size(reader, "crop_size", 224)
    shown = crop.size("height"), crop.size("width")
    if max(shown) > edge:
        raise WeightsError(f"{reader.file} of a DINOv3: crop_size {shown} must fit into shortest_edge {edge}")
    return shown, edge


def _size(reader: ConfigReader, key: str, default: int) -> ConfigReader:
    """A size's settings. One number, as older versions wrote it, is a square."""
    value = reader.config.get(key, default)
    square = {"height": value, "width": value} if type(value) is int else reader.section(key)
    return ConfigReader(square, f"DINOv3's {key}", reader.file)


def _colour(reader: ConfigReader, key: str, default: Colour) -> Colour:
    values = reader.config.get(key, default)
    if isinstance(values, int | float):
        values = [values] * 3
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise WeightsError(f"{reader.file} of a DINOv3: {key} must be 3 numbers, found {values!r}")
    red, green, blue = (ConfigReader({key: value}, "DINOv3", reader.file).real(key, 0.5) for value in values)
    return red, green, blue


@dataclass(frozen=True)
class Preparation:
    """What is done to every picture of a call.

    Attributes:
        config: of the checkpoint.
        unit: height and width must be multiples of it.
        size: height and width, a number for both, or None for the checkpoint's.
        proportional: whether a picture keeps its proportions and gets about as many pixels as ``size`` has.
        fast_decode: whether a JPEG may be decoded at a half, a quarter or an eighth of its size.
        decoded: whether pictures stay as they are decoded, uint8, to be normalised where the model computes.

    Raises:
        ArgumentError: for a size that the unit does not divide.
    """

    config: PictureConfig
    unit: int
    size: int | tuple[int, int] | None = None
    proportional: bool = False
    fast_decode: bool = False
    decoded: bool = False

    def __post_init__(self) -> None:
        height, width = self.target
        if min(height, width) < 1 or height % self.unit or width % self.unit:
            raise ArgumentError(f"a size of {height} × {width} pixels; expected multiples of {self.unit}")

    @property
    def target(self) -> tuple[int, int]:
        """Height and width asked for."""
        size = self.config.size if self.size is None else self.size
        return (size, size) if isinstance(size, int) else size

    def __call__(self, picture: Picture) -> Array:
        """(height, width, 3): float32, normalised, as a Tensor (3, height, width) is taken to be; or uint8."""
        if isinstance(picture, Tensor):
            return self._given(picture)
        least = 2 * max(*self.target, self.config.shortest_edge or 0)
        image = open_rgb(picture, at_least=least if self.fast_decode else None)
        size = self._proportional(image.width / image.height) if self.proportional else self.target
        config, resample = self.config, _FILTERS[self.config.resample]
        pixels = resized(image, size, resample) if self.size is not None or self.proportional else self._shown(image)
        return pixels if self.decoded else normalised(pixels, config.image_mean, config.image_std)

    def _shown(self, image: Image) -> Array:
        """The picture as the checkpoint's settings have it, (height, width, 3) uint8."""
        config = self.config
        size = config.resized_from(image.width, image.height)
        if size[0] * size[1] > MAX_PIXELS:
            raise MediaError(f"a picture of {image.width} × {image.height} pixels is too long to be resized; crop it")
        pixels = resized(image, size, _FILTERS[config.resample])
        (height, width), (rows, columns) = config.size, pixels.shape[:2]
        top, left = (rows - height) // 2, (columns - width) // 2
        return pixels[top : top + height, left : left + width]

    def _given(self, pixels: Tensor) -> Array:
        if len(pixels.shape) != 3 or pixels.shape[0] != 3 or 0 in pixels.shape:
            raise ShapeError(f"a picture as a Tensor must be (3, height, width), found {pixels.shape}")
        if pixels.shape[1] % self.unit or pixels.shape[2] % self.unit:
            raise ShapeError(f"a picture of shape {pixels.shape}; height and width must be multiples of {self.unit}")
        return np.ascontiguousarray(pixels.numpy().transpose(1, 2, 0), np.float32)

    def _proportional(self, ratio: float) -> tuple[int, int]:
        """Height and width for a picture that is so many times as wide as it is high."""
        units = self.target[0] * self.target[1] / self.unit**2
        height = min(max(1, round(math.sqrt(units / ratio))), round(units))
        width = min(max(1, round(math.sqrt(units * ratio))), round(units))
        return height * self.unit, width * self.unit


def several(pictures: Picture | Iterable[Picture]) -> Iterable[Picture] | None:
    """The pictures of a list, of any iterable, or of a batch in one array; None for a single picture."""
    if isinstance(pictures, Tensor | np.ndarray) and len(pictures.shape) == 4:
        return [pictures[i] for i in range(pictures.shape[0])]
    single = isinstance(pictures, Tensor) or is_picture(pictures)
    return None if single else pictures  # type: ignore[return-value]


def prepared(
    pictures: Iterable[Picture], prepare: Callable[[Picture], Array], ahead: int
) -> Generator[tuple[int, Array | MediaError], None, None]:
    """Prepare pictures in threads, in their order and ``ahead`` of the reader: (number, pixels or why not)."""

    def attempt(picture: Picture) -> Array | MediaError:
        try:
            return prepare(picture)
        except MediaError as error:
            return error

    threads = min(get_num_threads(), os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, "tallow-pictures")
    pending: deque[tuple[int, Future[Array | MediaError]]] = deque()
    try:
        for i, picture in enumerate(pictures):
            pending.append((i, pool.submit(attempt, picture)))
            if len(pending) > ahead:
                number, future = pending.popleft()
                yield number, future.result()
        while pending:
            number, future = pending.popleft()
            yield number, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Groups:
    """Collects pictures until there are enough of one size for a batch: nothing is padded.

    Args:
        batch_size: pictures of a batch, at most.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.waiting: dict[tuple[Any, ...], list[tuple[int, Array]]] = {}

    def add(self, number: int, pixels: Array) -> list[tuple[int, Array]] | None:
        """Take a picture in; a batch, if one is full or too many pictures wait."""
        kind = (pixels.shape, pixels.dtype)
        group = self.waiting.setdefault(kind, [])
        group.append((number, pixels))
        if len(group) == self.batch_size:
            return self.waiting.pop(kind)
        if sum(map(len, self.waiting.values())) >= _WAITING * self.batch_size:
            return self.waiting.pop(max(self.waiting, key=lambda kind: len(self.waiting[kind])))
        return None

    def rest(self) -> Iterator[list[tuple[int, Array]]]:
        """The batches that are left."""
        yield from self.waiting.values()
