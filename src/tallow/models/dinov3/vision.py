"""What a caller asks of a model of pictures: vectors, and the features of every patch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from tallow import dtypes, ops
from tallow.device import Device
from tallow.errors import ArgumentError, MediaError, WeightsError
from tallow.models.dinov3.pictures import Groups, Picture, PictureConfig, Preparation, prepared, several
from tallow.nn import LayerNorm, Module
from tallow.runtime.encoding import encode, pipelined
from tallow.runtime.gpu import BatchUploader
from tallow.runtime.resident import use
from tallow.runtime.threads import get_num_threads
from tallow.tensor import Tensor
from tallow.trace import span

Array = np.ndarray[Any, Any]
Size = int | tuple[int, int]

UNREAD = {r"(.*\.)?mask_token": "stands for hidden patches while the model is trained"}
"""Tensors of every DINOv3 that nothing reads."""


class Features(NamedTuple):
    """What a model makes of a picture.

    Attributes:
        class_token: (dim,), of the whole picture.
        registers: (registers, dim), where the model keeps what belongs to no place.
        patches: (rows, columns, dim), one for each patch of the picture.
    """

    class_token: Tensor
    registers: Tensor
    patches: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.patches.shape[0], self.patches.shape[1]


class VisionModel(Module):
    """A model whose ``__call__`` makes tokens out of pixels: (b, 3, h, w) -> (b, 1 + registers + patches, dim).

    Args:
        unit: height and width of a patch of the result, in pixels.
        registers: how many tokens stand between the first one, the whole picture's, and those of the patches.
        dim: width of a token.
        device: where it computes.
        pictures: how pictures become pixels; None for a model that is only given pixels.
    """

    norm: LayerNorm  # the last one

    def __init__(self, unit: int, registers: int, dim: int, device: Device, pictures: PictureConfig | None) -> None:
        self.unit, self.registers, self.dim, self.device = unit, registers, dim, device
        self._pictures = pictures

    @property
    def pictures(self) -> PictureConfig:
        """How pictures become pixels. Raises WeightsError for a model that was made without."""
        if self._pictures is None:
            raise WeightsError(f"this {type(self).__name__} was made without settings for pictures")
        return self._pictures

    def embed(
        self,
        images: Picture | Iterable[Picture],
        *,
        size: Size | None = None,
        proportional: bool = False,
        fast_decode: bool = False,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Vectors for pictures.

        Args:
            images: one, or several: paths, bytes, open files, Pillow's images, arrays (height, width, 3) of uint8; or
                Tensors (3, height, width) that are normalised already, in their own size.
            size: height and width, or one number for both, that pictures are resized to: multiples of the patch size.
                None: as the checkpoint says.
            proportional: whether a picture keeps its proportions instead, as nearly as the patch size lets it, and gets
                about as many pixels as ``size`` has.
            fast_decode: whether a JPEG of more than twice the size is decoded at a half, a quarter or an eighth of its
                own: several times faster, and a little different.
            batch_size: pictures at once; None: 8 on the CPU, 64 on a GPU. Those of one size are computed together; a
                picture's vector is the same whatever stands beside it.
            progress: called with the number of the picture whose vector is there.

        Returns:
            (pictures, dim) float32, rows of length 1; (dim,) for one picture.

        Raises:
            MediaError: for a picture that cannot be read.
            ArgumentError: for a size that the patch size does not divide.
        """
        many = several(images)
        pictures: Iterable[Any] = [images] if many is None else many
        rows: dict[int, Array] = {}
        options: dict[str, Any] = {"size": size, "proportional": proportional, "fast_decode": fast_decode}
        with use(self), closing(self.stream(pictures, batch_size=batch_size, **options)) as found:
            for number, vector in found:
                if isinstance(vector, MediaError):
                    raise vector
                rows[number] = vector
                if progress is not None:
                    progress(number)
        if many is None:
            return Tensor(rows[0])
        return Tensor(np.array([rows[i] for i in range(len(rows))], np.float32).reshape(len(rows), self.dim))

    def stream(
        self,
        images: Iterable[Picture],
        *,
        size: Size | None = None,
        proportional: bool = False,
        fast_decode: bool = False,
        batch_size: int | None = None,
    ) -> Generator[tuple[int, Array | MediaError], None, None]:
        """Vectors as they come, for more pictures than one waits for; options as for ``embed``.

        Pictures are decoded and resized by threads, beside the model. To a GPU they go as they are decoded, while it
        works on those before.

        Yields:
            The number of a picture, and its vector (dim,) or the MediaError that says why there is none. Pictures of
            one size come in their order.
        """
        on_card = self.device.kind == "cuda"
        most = batch_size if batch_size is not None else 64 if on_card else 8
        if most < 1:
            raise ArgumentError(f"embed: batch_size={batch_size}; expected 1 or more")
        prepare = Preparation(self.pictures, self.unit, size, proportional, fast_decode, decoded=on_card)
        bring = BatchUploader(self.device) if on_card else None
        unreadable: list[tuple[int, MediaError]] = []

        def batches(items: Iterable[tuple[int, Array | MediaError]]) -> Iterator[list[tuple[int, Array]]]:
            groups = Groups(most)
            for number, pixels in items:
                if isinstance(pixels, MediaError):
                    unreadable.append((number, pixels))
                elif (batch := groups.add(number, pixels)) is not None:
                    yield batch
            yield from groups.rest()

        def work(batch: list[tuple[int, Array]]) -> Tensor:
            pictures = [pixels for _, pixels in batch]
            with span("embed", images=len(batch)), use(self):
                tokens = encode(self, self._batch(pictures) if bring is None else self._brought(bring(pictures)))
                return ops.l2_normalize(tokens[:, 0].float())

        with closing(_prepared(images, prepare, 2 * max(most, get_num_threads()))) as items:
            for batch, vectors in pipelined(work, batches(items)):
                while unreadable:
                    yield unreadable.pop(0)
                yield from zip([number for number, _ in batch], vectors, strict=True)
        yield from unreadable

    def features(
        self, image: Picture, *, size: Size | None = None, proportional: bool = False, fast_decode: bool = False
    ) -> Features:
        """The class token, the registers, and the tokens of all patches of a picture, after the last norm.

        Args:
            image: one, of the kinds that ``embed`` takes.
            size: what it is resized to, as for ``embed``.
            proportional: whether it keeps its proportions, as for ``embed``.
            fast_decode: whether a large JPEG is decoded smaller, as for ``embed``.

        Raises:
            MediaError, ArgumentError: as ``embed``.
        """
        pixels = Preparation(self.pictures, self.unit, size, proportional, fast_decode)(image)
        with span("features"), use(self):
            tokens = self(self._batch([pixels]))[0].to("cpu")
        first = 1 + self.registers
        grid = pixels.shape[0] // self.unit, pixels.shape[1] // self.unit
        return Features(tokens[0], tokens[1:first], tokens[first:].reshape(*grid, self.dim))

    def _brought(self, pixels: Tensor) -> Tensor:
        """Pixels (b, h, w, 3) on a card as the model reads them: (b, 3, h, w)."""
        if pixels.dtype is not dtypes.uint8:
            return pixels.permute(0, 3, 1, 2)  # normalised by the caller
        config = self.pictures
        return ops.normalize_pixels(pixels, config.image_mean, config.image_std, self.norm.weight.dtype)

    def _batch(self, pixels: Sequence[Array]) -> Tensor:
        """Pixels (h, w, 3) each as (b, 3, h, w), the colours of a pixel side by side in memory."""
        return Tensor(np.stack(pixels).transpose(0, 3, 1, 2)).to(self.device)


def _prepared(
    images: Iterable[Picture], prepare: Preparation, ahead: int
) -> Generator[tuple[int, Array | MediaError], None, None]:  # fmt: skip
    """As ``prepared``, but a single picture needs no threads."""
    if isinstance(images, list) and len(images) == 1:
        try:
            yield 0, prepare(images[0])
        except MediaError as error:
            yield 0, error
    else:
        yield from prepared(images, prepare, ahead)
