"""Rotary position embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tallow import ops
from tallow.device import Device, as_device
from tallow.errors import ShapeError
from tallow.nn.module import Module
from tallow.nn.rope_scaling import rotary_frequencies
from tallow.tensor import Tensor


class RotaryEmbedding(Module):
    """Rotates pairs of features by an angle that grows with the position.

    Args:
        dim: features of a head; even.
        max_length: positions that there may be.
        theta: base of the frequencies, ``theta ** (-2i / dim)``.
        scaling: how frequencies are stretched, as a checkpoint's config says it; see ``rotary_frequencies``.
        interleaved: whether pairs are (0, 1), (2, 3), … instead of (0, dim/2), (1, dim/2 + 1), …
        device: where to compute.

    Raises:
        ShapeError: if dim is odd.
        WeightsError: for a scaling that Tallow has not.

    Source: Su et al. 2021, "RoFormer".
    """

    def __init__(
        self,
        dim: int,
        max_length: int,
        *,
        theta: float = 10000.0,
        scaling: Mapping[str, Any] | None = None,
        interleaved: bool = False,
        device: str | Device | None = None,
    ) -> None:
        if dim % 2:
            raise ShapeError(f"RotaryEmbedding: expected an even number of features, found {dim}")
        frequencies, self.attention_factor = rotary_frequencies(dim, theta, scaling, max_length)
        self.frequencies = Tensor(frequencies).to(as_device(device))
        self.max_length = max_length
        self.interleaved = interleaved

    def __call__(self, x: Tensor, start: int = 0) -> Tensor:
        """Rotate x (b, n, heads, dim), whose first position is ``start``; the same shape and dtype."""
        if start < 0 or start + x.shape[1] > self.max_length:
            raise ShapeError(
                f"RotaryEmbedding: positions {start} to {start + x.shape[1] - 1}; there are {self.max_length}"
            )
        return self.rotate(x, *self.angles(Tensor(np.arange(start, start + x.shape[1])[None])))

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions, to be made once and used by every layer.

        Args:
            positions: (b, n) int64.

        Returns:
            Two of (b, n, dim / 2), float32.
        """
        return ops.rotary_angles(positions.to(self.frequencies.device), self.frequencies, self.attention_factor)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate x (b, n, heads, dim) by what ``angles`` gave."""
        return ops.rope(x, cos, sin, interleaved=self.interleaved)

    def extra_repr(self) -> str:
        """Its sizes."""
        return f"{2 * self.frequencies.shape[0]}, max_length={self.max_length}"
