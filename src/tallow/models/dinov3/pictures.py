"""From pictures to batches of pixels: prepared by threads beside the model, grouped by their size."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tallow.errors import ArgumentError, MediaError, ShapeError, WeightsError
from tallow.media.image import IMAGENET_MEAN, IMAGENET_STD, ImageSource, is_picture, normalised, open_rgb, resized
from tallow.models.settings import Settings
from tallow.runtime.threads import get_num_threads
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]
Picture = ImageSource | Tensor
Colour = tuple[float, float, float]

_FILTERS = {2: "bilinear", 3: "bicubic"}  # by the numbers that Pillow gives them
_WAITING = 4  # batches' worth of pictures of different sizes that wait for others of their size


@dataclass(frozen=True)
class PictureConfig:
    """How a picture becomes pixels, under the names that ``preprocessor_config.json`` has for it.

    Attributes:
        size: height and width that pictures are resized to.
        image_mean: of red, green and blue, of values 0 to 1.
        image_std: their deviations.
        resample: the filter, 2 for bilinear and 3 for bicubic; both widen with the reduction.
    """

    size: tuple[int, int] = (224, 224)
    image_mean: Colour = IMAGENET_MEAN
    image_std: Colour = IMAGENET_STD
    resample: int = 2

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> PictureConfig:
        """Take the settings out of a file. Raises WeightsError for what is senseless or computed otherwise."""
        file = "preprocessor_config.json"
        said = Settings(config, "DINOv3", file)
        for key, value in {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_center_crop": False,
                           "do_pad": False}.items():  # fmt: skip
            if config.get(key) is not None:
                said.expect(key, value)
        if abs(said.real("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
            raise WeightsError(f"{file} of a DINOv3: rescale_factor must be 1/255, found {config['rescale_factor']}")
        resample = config.get("resample", 2)
        if not isinstance(resample, int) or resample not in _FILTERS:
            raise WeightsError(f"{file} of a DINOv3: resample must be 2 or 3, found {resample!r}")
        size = Settings(said.section("size") or {"height": 224, "width": 224}, "DINOv3's size", file)
        return cls(
            size=(size.size("height"), size.size("width")),
            image_mean=_colour(config, "image_mean", IMAGENET_MEAN),
            image_std=_colour(config, "image_std", IMAGENET_STD),
            resample=resample,
        )


def _colour(config: Mapping[str, Any], key: str, default: Colour) -> Colour:
    values = config.get(key, default)
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise WeightsError(f"preprocessor_config.json of a DINOv3: {key} must be 3 numbers, found {values!r}")
    red, green, blue = (Settings({key: v}, "DINOv3", "preprocessor_config.json").real(key, 0.5) for v in values)
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
        image = open_rgb(picture, at_least=2 * max(self.target) if self.fast_decode else None)
        size = self._proportional(image.width / image.height) if self.proportional else self.target
        config, resample = self.config, _FILTERS[self.config.resample]
        if self.decoded:
            return resized(image, size, resample)
        return normalised(image, size, config.image_mean, config.image_std, resample)

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
