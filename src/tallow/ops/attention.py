"""Attention."""

from __future__ import annotations

from collections.abc import Sequence

from tallow.errors import ArgumentError, ShapeError
from tallow.ops.conversion import asarray
from tallow.ops.creation import arange
from tallow.ops.dispatch import operation
from tallow.ops.indexing import take
from tallow.ops.kv_cache import KVCache
from tallow.ops.logic import logical_and
from tallow.ops.manipulation import repeat, tile
from tallow.ops.precision import rounded, widened
from tallow.ops.rope import rope
from tallow.ops.searching import where
from tallow.tensor import Tensor


@operation
def attention(
    q: Tensor,
    k: Tensor | KVCache,
    v: Tensor | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    window: int | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """``softmax(scale · q kᵀ + mask) v`` for every head.

    A query that may see no key (all are masked with −inf, lie ahead of it or beyond the row's length) gives zeros.
    Keys that do not count for a row may hold anything, NaN included.

    Args:
        q: queries (b, n, heads, d).
        k: keys (b, m, kv_heads, d); ``heads`` is a multiple of ``kv_heads``, and neighbouring query heads share one.
            Or a KVCache of b rows, to which keys and values have been appended; its rows may be longer than each other.
        v: values (b, m, kv_heads, d); None with a KVCache.
        scale: factor of the scores; None for ``d ** -0.5``.
        causal: whether the last query is the last key's, the one before it the key's before, and so on, and each sees
            itself and the keys before it. "Last" is each row's own: the last of its ``lengths``.
        mask: added to the scores; broadcast to (b, heads, n, m). If its first axis has r numbers, a divisor of b, they
            are repeated: row i has those of i % r.
        lengths: (b,) integers: how many keys of each row count, the first ones; None for all. Not with a KVCache.
        window: with ``causal``, how many positions each query sees, its own included: 4 reaches 3 positions back, as
            ``sliding_window`` of Mistral, Qwen2 and Gemma 3 does. None for all. Positions are counted from each row's
            own last key. Keys outside of every query's window are not read.
        rotary: cosines and sines, each (b or 1, n, d/2), by which queries and keys, as many, are turned before: see
            ``rope``. Not with a KVCache.

    Returns:
        (b, n, heads, d), the dtype of q; computed in float32.

    Raises:
        ShapeError: for shapes that do not fit each other.
        ArgumentError: for a window below 1, or without ``causal``.

    Source: Vaswani et al. 2017, "Attention is all you need", section 3.2; grouped heads: Ainslie et al. 2023;
    windows: Beltagy et al. 2020, "Longformer", section 3.1.

    Examples:
        >>> q = k = tl.zeros((1, 3, 1, 2))  # a batch of one, three positions, one head of two features
        >>> v = tl.asarray([[3.0, 0.0], [5.0, 0.0], [7.0, 0.0]]).reshape(1, 3, 1, 2)
        >>> tl.ops.attention(q, k, v)[0, :, 0, 0].tolist()  # each sees all three
        [5.0, 5.0, 5.0]
        >>> tl.ops.attention(q, k, v, causal=True)[0, :, 0, 0].tolist()  # each sees itself and those before
        [3.0, 4.0, 5.0]
    """
    check_values(k, v, lengths)
    q, k = turned(q, k, rotary)
    if isinstance(k, KVCache):
        k, v, lengths = k.view()
    assert v is not None
    weights = attention_weights(q, k, scale=scale, causal=causal, mask=mask, lengths=lengths, window=window)
    v = repeat(widened(v), q.shape[2] // v.shape[2], axis=2)
    if lengths is not None or window is not None:  # what no query sees must not reach the sum, not even as 0 · NaN
        positions = arange(v.shape[1], device=v.device)
        held = asarray([v.shape[1]], device=v.device) if lengths is None else lengths
        counts = positions < held[:, None]
        if window is not None:
            counts = logical_and(counts, positions > held[:, None] - q.shape[1] - window)
        v = where(counts[:, :, None, None], v, 0.0)
    return rounded((weights.astype(v.dtype) @ v.permute(0, 2, 1, 3)).permute(0, 2, 1, 3).contiguous(), q)


def attention_weights(
    q: Tensor,
    k: Tensor,
    *,
    heads: Sequence[int] | None = None,
    scale: float | None = None,
    causal: bool = False,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    window: int | None = None,
) -> Tensor:
    """The weights by which ``attention`` mixes the values: the whole matrix, for looking at.

    Args:
        q: queries (b, n, heads, d).
        k: keys (b, m, kv_heads, d); ``heads`` is a multiple of ``kv_heads``.
        heads: which query heads to compute; None for all. A mask is then broadcast to these alone.
        scale: factor of the scores; None for ``d ** -0.5``.
        causal: whether a query sees itself and the keys before it alone, as in ``attention``.
        mask: added to the scores, as in ``attention``.
        lengths: (b,) integers: how many keys of each row count; None for all.
        window: with ``causal``, how many positions each query sees, its own included; None for all.

    Returns:
        (b, heads, n, m) float32 (float64 for float64 input): each row sums to 1, or is zeros where no key may be seen.
    """
    check_window(window, causal)
    check_attention(q, k.shape, mask, lengths, None if heads is None else len(heads))
    m, d = k.shape[1], q.shape[3]
    n, group = q.shape[1], q.shape[2] // k.shape[2]
    queries, keys = widened(q), repeat(widened(k), group, axis=2)
    if heads is not None:
        chosen = asarray(list(heads), dtype="int64", device=q.device)
        queries, keys = take(queries, chosen, axis=2), take(keys, chosen, axis=2)
    scores = (queries * (d**-0.5 if scale is None else scale)).permute(0, 2, 1, 3) @ keys.permute(0, 2, 3, 1)
    if mask is not None:
        added = widened(mask)
        if mask.ndim == 4 and 1 < mask.shape[0] < q.shape[0]:
            added = tile(added, (q.shape[0] // mask.shape[0], 1, 1, 1))
        scores = scores + added
    if m == 0:
        return scores
    allowed = lengths.reshape(-1, 1, 1, 1) if lengths is not None else asarray(m, device=q.device)
    if causal:
        allowed = allowed - (n - 1 - arange(n, device=q.device)).reshape(n, 1)
    positions = arange(m, device=q.device)
    visible = positions < allowed
    if window is not None:
        visible = logical_and(visible, positions >= allowed - window)
    scores = where(visible, scores, float("-inf"))
    highest = scores.max(-1, keepdims=True)
    e = (scores - where(highest == float("-inf"), 0.0, highest)).exp()
    total = e.sum(-1, keepdims=True)
    return e / where(total == 0, 1.0, total)


def turned(q: Tensor, k: Tensor | KVCache, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor | KVCache]:
    """Queries and keys at their rotary positions. Raises ShapeError for those of a KVCache, which lie there turned."""
    if rotary is None:
        return q, k
    if isinstance(k, KVCache):
        raise ShapeError("attention: keys are turned before they are appended to a KVCache; rotary must not be given")
    return rope(q, *rotary), rope(k, *rotary)


def check_window(window: int | None, causal: bool) -> None:
    """Raise ArgumentError unless a window is None, or an integer from 1 on in causal attention."""
    if window is None:
        return
    if not isinstance(window, int) or window < 1:
        raise ArgumentError(
            f"attention: expected as window an int of at least 1 position (the query's own), found {window!r}"
        )
    if not causal:
        raise ArgumentError("attention: a window reaches back from each query's position and needs causal=True")


def check_values(k: Tensor | KVCache, v: Tensor | None, lengths: Tensor | None) -> None:
    """Raise ShapeError unless the values are there, like the keys, or in the cache."""
    if isinstance(k, KVCache):
        if v is not None or lengths is not None:
            raise ShapeError("attention: with a KVCache, v and lengths are its own and must not be given")
    elif v is None or v.shape != k.shape:
        raise ShapeError(f"attention: keys are {k.shape}, values {None if v is None else v.shape}; they must be alike")


def check_attention(
    q: Tensor, k: tuple[int, ...], mask: Tensor | None, lengths: Tensor | None, heads: int | None = None
) -> None:
    """Raise ShapeError unless queries, keys of shape ``k``, mask and lengths fit each other."""
    shape = q.shape
    if len(shape) != 4 or len(k) != 4 or shape[0] != k[0] or shape[3] != k[3] or shape[3] == 0:
        raise ShapeError(
            f"attention: expected queries (b, n, heads, d) and keys (b, m, kv_heads, d), found {shape} and {k}"
        )
    if k[2] == 0 or shape[2] % k[2]:
        raise ShapeError(f"attention: {shape[2]} query heads are no multiple of {k[2]} key heads")
    if lengths is not None and lengths.shape != (shape[0],):
        raise ShapeError(f"attention: lengths must be ({shape[0]},), one a row, found {lengths.shape}")
    if mask is not None:
        scores = (shape[0], shape[2] if heads is None else heads, shape[1], k[1])
        given = mask.shape
        repeats = len(given) == 4 and given[0] > 0 and shape[0] % given[0] == 0
        if len(given) > 4 or any(
            size not in (1, whole)
            for size, whole in zip(given[::-1], scores[:0:-1] if repeats else scores[::-1], strict=False)
        ):
            raise ShapeError(f"attention: the mask {given} cannot be broadcast to the scores {scores}")
