"""Random weights: the same for the same seed and name, whatever else is asked for and in whatever order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class RandomSource:
    """Draws a tensor of any name and shape.

    Matrices and kernels are normal with deviation ``1 / sqrt(fan in)``, which keeps the size of activations through any
    number of layers; gains (one axis, not named ``bias``) lie around 1, biases around 0.

    Args:
        seed: what fixes the values, together with the tensor's full name.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.where = f"random weights (seed {seed})"

    def draw(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """The float32 tensor of this name and shape."""
        import hashlib

        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        generator = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))
        values = generator.standard_normal(shape, np.float32)
        if len(shape) >= 2:
            values *= np.float32(1 / math.sqrt(max(1, math.prod(shape[1:]))))
        elif name.endswith("bias"):
            values *= np.float32(0.02)
        else:
            values *= np.float32(0.1)
            values += np.float32(1)
        return values
