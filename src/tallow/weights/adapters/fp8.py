"""Checkpoints in fp8, such as Qwen3-8B-FP8: matrices in E4M3, each with its scales in a tensor beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tallow.errors import WeightsError
from tallow.matrix.fp8 import BLOCK, E4M3, Fp8Matrix
from tallow.matrix.weight import Stored
from tallow.weights.source import Source, TensorInfo, short

_SCALES = "_scale_inv"  # what numbers are multiplied with, whatever the name says


class Fp8Source:
    """A source whose matrices in E4M3 are given with their scales, ``NAME_scale_inv``, which have no name here.

    Values and blocks stay as they are: with scales of whole rows every number would have to be rounded once more, and
    kernels take blocks as well (``backends/cuda/fp8.py``).

    Args:
        source: where both lie.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.where = source.where
        self._names = dict.fromkeys(source.names())
        self._scaled = {name for name in self._names if name + _SCALES in self._names}
        for name in self._scaled:
            del self._names[name + _SCALES]

    def names(self) -> Iterable[str]:
        """Every name but those of scales."""
        return self._names.keys()

    def info(self, name: str) -> TensorInfo | None:
        """Shape and dtype of a tensor, or None if there is none of that name."""
        return self.source.info(name) if name in self._names else None

    def read(self, name: str) -> Stored:
        """A tensor; as an ``Fp8Matrix`` if it has scales.

        Raises:
            WeightsError: if its scales don't fit it.
        """
        found = self.source.read(name)
        if name not in self._scaled:
            return found
        given = self.source.read(name + _SCALES)
        assert isinstance(found, np.ndarray)  # safetensors hold plain numbers
        assert isinstance(given, np.ndarray)
        if found.dtype != E4M3 or found.ndim != 2:
            raise WeightsError(f"{self.where}: {name!r} has scales, but is no matrix in float8_e4m3fn")
        scales = given.astype(np.float32)
        rows, columns = found.shape
        if scales.size == 1:
            scales = np.full((rows, 1), scales.item(), np.float32)
        elif scales.shape != (-(-rows // BLOCK), -(-columns // BLOCK)):
            raise WeightsError(
                f"{self.where}: {name!r} of shape {found.shape} has scales of shape {scales.shape}; expected one for "
                f"each block of {BLOCK} × {BLOCK}, or one for all"
            )
        if not np.isfinite(scales).all():
            raise WeightsError(f"{self.where}: {name + _SCALES!r} holds NaN or infinity")
        return Fp8Matrix(found, scales)

    def release(self, name: str) -> None:
        """Give a tensor's pages back to the system."""
        self.source.release(name)


def quantised_source(source: Source, settings: Any, where: str) -> Source:
    """A source as ``quantization_config`` in ``config.json`` says that it is to be read.

    Args:
        source: the weights.
        settings: what it says; None if it isn't there.
        where: the path of ``config.json``.

    Raises:
        WeightsError: for a way of quantising that Tallow doesn't read.
    """
    if settings is None:
        return source
    method = settings.get("quant_method") if isinstance(settings, dict) else settings
    if method != "fp8":
        raise WeightsError(f"{where}: weights quantised by {short(method)}; of such checkpoints Tallow reads 'fp8'")
    size = settings.get("weight_block_size")
    if size not in (None, [BLOCK, BLOCK]):
        raise WeightsError(f"{where}: fp8 in blocks of {short(size)}; Tallow reads blocks of [{BLOCK}, {BLOCK}]")
    return Fp8Source(source)
