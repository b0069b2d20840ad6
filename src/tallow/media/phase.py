"""Stereo whose channels are each other's negative: their mean would be silence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

_CANCELLED = 0.01  # the mean's power over one channel's: 20 dB below; unrelated channels lose 6 dB at most
_AUDIBLE = 1e-9  # mean power of a channel, full scale 1: noise of 16-bit rounding lies below


class StereoMix:
    """The mean of two channels, block by block; of a block in which they cancel each other, the left channel.

    Attributes:
        cancelled: samples of the blocks in which they do.
    """

    def __init__(self) -> None:
        self.cancelled = 0

    def __call__(self, mean: Samples, left: Samples) -> Samples:
        """The samples to take.

        Args:
            mean: of both channels, (n,).
            left: of one, (n,).
        """
        power = _power(left)
        if power > _AUDIBLE and _power(mean) < _CANCELLED * power:
            self.cancelled += len(left)
            return left
        return mean


def opposite_phase(seconds: float) -> str:
    """A warning's words."""
    return f"{seconds:.1f} seconds of stereo in opposite phase: the left channel was taken, not their mean"


def _power(samples: Samples) -> float:
    return float(np.dot(samples, samples)) / max(1, len(samples))
