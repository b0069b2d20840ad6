"""Rotary position embeddings."""

from __future__ import annotations

from tallow.errors import ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.manipulation import concat, stack
from tallow.ops.precision import rounded, widened
from tallow.tensor import Tensor


@operation
def rope(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """Rotate pairs of features: ``(a, b)`` becomes ``(a cos − b sin, b cos + a sin)``.

    Args:
        x: (b, n, heads, d), d even.
        cos: cosines of the angles (b or 1, n, d/2).
        sin: sines, of the same shape.
        interleaved: whether pairs are features (0, 1), (2, 3), … instead of (0, d/2), (1, d/2 + 1), …

    Returns:
        (b, n, heads, d), the dtype of x; computed in float32.

    Raises:
        ShapeError: for shapes that do not fit each other.

    Source: Su et al. 2021, "RoFormer".

    Examples:
        >>> x = tl.asarray([1.0, 2.0]).reshape(1, 1, 1, 2)
        >>> quarter = tl.zeros((1, 1, 1)), tl.ones((1, 1, 1))  # cosine and sine of a quarter turn
        >>> tl.ops.rope(x, *quarter).tolist()
        [[[[-2.0, 1.0]]]]
    """
    check_rope(x, cos, sin)
    d = x.shape[3]
    y = widened(x)
    c, s = widened(cos)[:, :, None, :], widened(sin)[:, :, None, :]  # (b or 1, n, 1, d/2)
    if interleaved:
        first, second = y[..., 0::2], y[..., 1::2]
        return rounded(stack((first * c - second * s, second * c + first * s), axis=-1).reshape(x.shape), x)
    first, second = y[..., : d // 2], y[..., d // 2 :]
    return rounded(concat((first * c - second * s, second * c + first * s), axis=-1), x)


def check_rope(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Raise ShapeError unless the angles fit what they are to turn."""
    shape = x.shape
    if len(shape) != 4 or shape[3] % 2:
        raise ShapeError(f"rope: expected x (b, n, heads, d) with an even d, found {shape}")
    b, n, _, d = shape
    angles = cos.shape
    if angles != sin.shape or angles not in ((1, n, d // 2), (b, n, d // 2)):
        raise ShapeError(
            f"rope: x is {shape}, so cos and sin must be ({b} or 1, {n}, {d // 2}), found {angles} and {sin.shape}"
        )
