"""Attention and its key/value cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.memory import contiguous, empty
from tallow.ops.attention import attention as attend
from tallow.ops.attention import check_attention, check_values, check_window, turned
from tallow.ops.dispatch import kernel
from tallow.ops.kv_cache import KVCache
from tallow.ops.manipulation import concat
from tallow.tensor import Tensor

_WIDEST_HEAD = 256
_NO_WINDOW = 1 << 62  # wider than any row: see csrc/kernels/attention.h
_F32 = np.dtype(np.float32)


def _sequence(x: Tensor) -> np.ndarray[Any, Any]:
    """The array (b, n, heads, d) with adjacent features, copied if its strides ask for it."""
    storage: np.ndarray[Any, Any] = x.storage
    return storage if storage.strides[3] == 4 or storage.shape[3] == 1 else contiguous(storage)


def _row_numbers(x: Any) -> np.ndarray[Any, Any] | None:
    return None if x is None else contiguous(x.storage, np.int64)


@kernel("attention", "cpu")
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
) -> Any:
    """Float32 queries; plain keys and values in float32, or a cache of any type; heads of at most 256 features."""
    check_values(k, v, lengths)
    check_window(window, causal)
    if rotary is not None:
        turned_q, turned_k = turned(q, k, rotary)
        return attend(turned_q, turned_k, v, scale=scale, causal=causal, mask=mask, lengths=lengths, window=window)
    if q.storage.dtype != _F32 or (mask is not None and mask.storage.dtype != _F32):
        return NotImplemented
    if isinstance(k, KVCache):
        longest = k.capacity if _cpu.recording() else k.length  # the kernel asks the cache when it runs
        check_attention(q, (k.batch, longest, k.kv_heads, k.head_dim), mask, None)
    else:
        check_attention(q, k.shape, mask, lengths)
        if k.storage.dtype != _F32 or v is None or v.storage.dtype != _F32:
            return NotImplemented
    b, n, heads, d = shape = q.storage.shape
    if d > _WIDEST_HEAD:
        return NotImplemented
    if mask is not None and mask.ndim == 4 and 1 < mask.shape[0] < b and not isinstance(k, KVCache) and lengths is None:
        return _repeated(q, k, v, mask, {"scale": scale, "causal": causal, "window": window})
    factor = d**-0.5 if scale is None else scale
    seen = _NO_WINDOW if window is None else min(window, _NO_WINDOW)
    out = empty(shape)
    if isinstance(k, KVCache):
        keys, values, held = k.keys.storage, k.values.storage, k.lengths.storage
        added = _mask(mask, (b, heads, n, longest))
        scales = None if k.scales is None else k.scales.storage
        _cpu.cached_attention(out, _sequence(q), keys, values, scales, held, longest, factor, causal, seen, added)
    elif v is not None:
        added = _mask(mask, (b, heads, n, k.shape[1]))
        held = _row_numbers(lengths)
        _cpu.attention(out, _sequence(q), _sequence(k), _sequence(v), factor, causal, seen, added, held)
    return Tensor(out)


def _repeated(q: Tensor, k: Tensor, v: Any, mask: Tensor, rest: dict[str, Any]) -> Tensor:
    """Attention where a mask of fewer rows is repeated: as many rows at a time."""
    count = mask.shape[0]
    parts = ([part.narrow(0, begin, count) for part in (q, k, v)] for begin in range(0, q.shape[0], count))
    return concat([attend(*part, mask=mask, **rest) for part in parts])


def _mask(mask: Tensor | None, shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    if mask is None:
        return None
    storage = mask.storage
    if storage.ndim == 0 or storage.shape[-1] != shape[-1] or storage.strides[-1] != 4:
        return contiguous(np.broadcast_to(storage, shape))
    return np.broadcast_to(storage, shape)


@kernel("kv_append", "cpu")
def kv_append(k: Tensor, v: Tensor, cache: KVCache, counts: Any = None) -> Any:
    """Keys and values in float32, heads of at most 256 features."""
    if k.storage.dtype != _F32 or v.storage.dtype != _F32 or cache.head_dim > _WIDEST_HEAD:
        return NotImplemented
    keys, values, scales = cache.keys.storage, cache.values.storage, cache.scales
    _cpu.kv_append(
        keys, values, None if scales is None else scales.storage, cache.lengths.storage, _sequence(k), _sequence(v),
        counts,
    )  # fmt: skip
    return None
