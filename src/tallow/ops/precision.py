"""How reference implementations treat narrow floats: widen, compute in float32, round once."""

from __future__ import annotations

from tallow import dtypes
from tallow.tensor import Tensor


def widened(x: Tensor) -> Tensor:
    """x itself in float32 or float64, else its values in float32."""
    return x if x.dtype in (dtypes.float32, dtypes.float64) else x.astype(dtypes.float32)


def rounded(y: Tensor, like: Tensor) -> Tensor:
    """y in the dtype of ``like`` if that is a float, rounded once."""
    return y if y.dtype is like.dtype or not like.dtype.is_floating else y.astype(like.dtype)
