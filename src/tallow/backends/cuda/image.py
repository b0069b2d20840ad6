"""Pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy

from tallow import dtypes
from tallow.backends.cuda.kernels import NAMES, function
from tallow.dtypes import DTypeLike, as_dtype
from tallow.ops.dispatch import kernel
from tallow.ops.image import check_pixels
from tallow.tensor import Tensor

THREADS = 256


@kernel("normalize_pixels", "cuda")
def normalize_pixels(
    pixels: Tensor, mean: Sequence[float], deviation: Sequence[float], dtype: DTypeLike = dtypes.float32
) -> Any:
    """See ``ops.normalize_pixels``."""
    check_pixels(pixels)
    kind = as_dtype(dtype).numpy
    if kind not in NAMES:
        return NotImplemented
    array = cupy.ascontiguousarray(pixels.storage)
    b, h, w, _ = array.shape
    out = cupy.empty((b, 3, h, w), kind)
    if out.size:
        size = 1 if h * w % 4 or array.data.ptr % 4 else 4
        vectors = b * h * w // size
        numbers = [float(value) for value in (*mean, *deviation)]
        run = function("image", "normalize_pixels", T=NAMES[kind], VECTOR=size)
        run((-(-vectors // THREADS),), (THREADS,), (out, array, vectors, h * w, *numbers))
    return Tensor(out, pixels.device)
