"""Pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tallow import dtypes
from tallow.dtypes import DTypeLike, as_dtype
from tallow.errors import DTypeError, ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import module_of, quiet
from tallow.tensor import Tensor


@operation
def normalize_pixels(
    pixels: Tensor, mean: Sequence[float], deviation: Sequence[float], dtype: DTypeLike = dtypes.float32
) -> Tensor:
    """Decoded pictures as vision models read them: (v / 255 − mean) / deviation, colour by colour.

    Args:
        pixels: (b, h, w, 3) uint8.
        mean: of red, green and blue, of values 0 to 1.
        deviation: likewise.
        dtype: of the result; computed in float32 and rounded once.

    Returns:
        (b, 3, h, w).

    Raises:
        ShapeError, DTypeError: for pixels of another shape or type.
    """
    check_pixels(pixels)
    xp = module_of(pixels.storage)
    values = pixels.storage.astype(np.float32) / np.float32(255)
    values = (values - xp.asarray(mean, np.float32)) / xp.asarray(deviation, np.float32)
    return Tensor(quiet.run(values.transpose(0, 3, 1, 2).astype, as_dtype(dtype).numpy), pixels.device)


def check_pixels(pixels: Tensor) -> None:
    """Raise unless it is a batch of decoded pictures."""
    if len(pixels.shape) != 4 or pixels.shape[3] != 3:
        raise ShapeError(f"normalize_pixels: pixels of shape {pixels.shape}; expected (b, h, w, 3)")
    if pixels.dtype is not dtypes.uint8:
        raise DTypeError(f"normalize_pixels: takes uint8, found {pixels.dtype.name}")
