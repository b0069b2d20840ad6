"""What a decoder does with new queries, keys and values before it attends."""

from __future__ import annotations

from collections.abc import Sequence

from tallow.ops.dispatch import operation
from tallow.ops.kv_cache import KVCache
from tallow.ops.norm import rms_norm
from tallow.ops.rope import rope
from tallow.tensor import Tensor


@operation
def rope_append(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: KVCache,
    cos: Tensor,
    sin: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 1e-6,
    interleaved: bool = False,
    counts: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """Turn queries and keys to their positions, and append keys and values to a cache.

    Args:
        q: queries (b, n, heads, d).
        k: keys (b, n, kv_heads, d).
        v: values (b, n, kv_heads, d).
        cache: of b rows.
        cos: cosines of the angles (b or 1, n, d/2).
        sin: sines, of the same shape.
        q_norm: gain (d,) of an RMS norm of each query head, which comes first; None for no norm.
        k_norm: gain (d,) of an RMS norm of each key head; None for no norm.
        eps: of both norms.
        interleaved: which features make a pair, as for ``rope``.
        counts: as for ``KVCache.append``.

    Returns:
        The queries, (b, n, heads, d).

    Raises:
        ShapeError: for shapes that do not fit, or a row that would exceed the cache's capacity.
    """
    q = q if q_norm is None else rms_norm(q, q_norm, eps)
    k = k if k_norm is None else rms_norm(k, k_norm, eps)
    cache.append(rope(k, cos, sin, interleaved=interleaved), v, counts)
    return rope(q, cos, sin, interleaved=interleaved)
