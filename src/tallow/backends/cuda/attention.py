"""Attention, and its key/value cache."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import cupy
import numpy as np

from tallow.backends.cuda import attend, fusion, graph
from tallow.backends.cuda.arrays import adjacent, evenly_placed, strides
from tallow.backends.cuda.copy import copied
from tallow.backends.cuda.kernels import (
    NAMES,
    TICKETS,
    capability,
    function,
    multiprocessors,
    table_of,
    ticket,
    tickets,
)
from tallow.backends.cuda.rotary import angles
from tallow.ops.attention import check_attention, check_values, check_window, turned
from tallow.ops.dispatch import kernel
from tallow.ops.kv_cache import KVCache
from tallow.ops.rope import check_rope
from tallow.tensor import Tensor

_NO_WINDOW = 1 << 30  # wider than any row
_MAX_QUERIES = 4  # of a block of the split kernel: more do not fit its registers
_SPLIT_UP_TO = 32  # queries that share a head's keys; beyond, the tensor cores pay
_KEYS_OF_A_SPLIT = 128
_MAX_SPLITS = 32
_SHORT = 512  # keys that one block goes through
_BUSY = 264  # blocks: two for each multiprocessor of a large card


class _Hopper(NamedTuple):
    """How the kernel for compute capability 9.0 divides its work: see attention_hopper.cu."""

    groups: int
    resident: int
    stages: int


_ON_HOPPER = {(64, False): _Hopper(1, 4, 2), (64, True): _Hopper(2, 2, 2), (128, False): _Hopper(1, 2, 2),
              (128, True): _Hopper(1, 2, 2)}  # fmt: skip
"""By the width of a head, and whether queries and keys are turned; what is not here is the portable kernel's."""

_WHOLE_HEADS = 2  # for each multiprocessor: fewer leave it idle while a block waits for its keys
_WHOLE_QUERIES, _WHOLE_KEYS = 256, 208  # that a block has room for: see attention_whole.cu


@kernel("attention", "cuda", defers=True)
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
    """See ``ops.attention``. Types other than float32, float16 and bfloat16, and wide heads, are the reference's."""
    check_values(k, v, lengths)
    check_window(window, causal)
    window = _NO_WINDOW if window is None else min(window, _NO_WINDOW)
    if rotary is not None and not _turns(q, k, rotary, mask, scale):
        q, k = turned(q, k, rotary)
        rotary = None
    if isinstance(k, KVCache):
        longest = k.capacity if graph.recording() else k.length
        check_attention(q, (k.batch, longest, k.kv_heads, k.head_dim), mask, None)
        keys, values = k.keys.storage, k.values.storage  # (pages, kv_heads, PAGE, d)
        held, table = k.held.storage, table_of(k)
    else:
        graph.flush()
        check_attention(q, k.shape, mask, lengths)
        assert v is not None
        keys, values = k.storage.transpose(0, 2, 1, 3), v.storage.transpose(0, 2, 1, 3)
        longest = k.shape[1]
        held = None if lengths is None else cupy.ascontiguousarray(lengths.storage, cupy.int64)
        table = None
    if any(each.dtype not in NAMES for each in (q.storage, keys, values)) or keys.dtype != values.dtype:
        return NotImplemented
    b, n, heads, d = q.shape
    out = cupy.empty(q.shape, q.storage.dtype)
    if not out.size or not longest:
        graph.flush()
        out.fill(0)
        return Tensor(out, q.device)
    if isinstance(k, KVCache) and mask is None:
        factor = d**-0.5 if scale is None else float(scale)
        if attend.attention(out, q.storage, k, factor, window):
            return Tensor(out, q.device)
    graph.flush()
    if mask is not None:
        repeats = mask.ndim == 4 and 1 < mask.shape[0] < b
        shape = (mask.shape[0] if repeats else b, heads, n, longest)
        mask_array = cupy.broadcast_to(mask.storage.astype(cupy.float32, copy=False), shape)
    rest = {"lengths": held, "table": table, "mask": None if mask is None else mask_array, "m": longest}
    rest |= {"scale": d**-0.5 if scale is None else float(scale), "causal": causal, "window": window}
    queries, kv_heads = q.storage, keys.shape[1]
    if n * (heads // kv_heads) <= _SPLIT_UP_TO and _splits(queries, keys, values):
        _split(out, adjacent(queries), keys, values, **rest)
    elif queries.dtype == keys.dtype != np.float32 and d % 8 == 0 and d <= 256:
        aligned = [_aligned(each) for each in (queries, keys, values)]
        if _has_hopper(d, mask, scale):
            if table is None and window >= longest and _takes_whole_heads(q, longest):
                del rest["window"]
                _whole(out, *aligned, **rest, rotary=rotary)
            else:
                _hopper(out, *aligned, **rest, rotary=rotary)
        else:
            _flash(out, *aligned, **rest)
    else:
        return NotImplemented
    return Tensor(out, q.device)


def _splits(queries: Any, keys: Any, values: Any) -> bool:
    """Whether the split kernel takes heads of this width, and the keys as they lie."""
    lanes = keys.itemsize * queries.shape[3] / 16
    return lanes in (1, 2, 4, 8, 16, 32) and all(_aligned(each) is each for each in (keys, values))


def _aligned(array: Any) -> Any:
    """The array if each of its rows begins at a multiple of 16 bytes, else a copy."""
    return array if array.strides[-1] == array.itemsize and evenly_placed(array) else copied(array)


def _split(
    out: Any, q: Any, keys: Any, values: Any, *, lengths: Any, table: Any, mask: Any, m: int, scale: float,
    causal: bool, window: int,
) -> None:  # fmt: skip
    b, n, heads, d = q.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    seen = min(m, window + n - 1)  # keys of a row, at most
    short = seen <= _SHORT and b * heads * n <= _BUSY  # then more blocks, for keys that are read again are near
    at_once = 1 if short else min(_MAX_QUERIES, 1 << (n * group - 1).bit_length())
    threads = 512 if short and keys.dtype != np.float32 else 256
    rows = kv_heads * -(-n * group // at_once)
    splits = 1 if short else max(1, min(_MAX_SPLITS, -(-seen // _KEYS_OF_A_SPLIT), -(-_BUSY // (rows * b))))
    if rows * b > TICKETS:
        splits = 1
    scratch = cupy.empty(splits * rows * b * at_once * (d + 2), cupy.float32)
    run = function(
        "attention_split", "attention_split", T=NAMES[q.dtype], C=NAMES[keys.dtype], D=d, Q=at_once, THREADS=threads,
        PAGED=int(table is not None),
    )  # fmt: skip
    arguments = (
        out, q, keys, values, _or_null(lengths), _or_null(mask), *_pages(table), scratch, tickets(), n, heads,
        kv_heads, m, *strides(q)[:3], *_placed(keys), *_placed(values), *_masked(mask), scale, int(causal), window,
    )  # fmt: skip
    run((splits, rows, b), (threads,), arguments)


def _flash(
    out: Any, q: Any, keys: Any, values: Any, *, lengths: Any, table: Any, mask: Any, m: int, scale: float,
    causal: bool, window: int,
) -> None:  # fmt: skip
    b, n, heads, d = q.shape
    width = -(-d // 16) * 16
    tiles = 2 if width <= 128 and n > 64 else 1
    kept = 0 if width * tiles <= 128 else 64 * tiles  # queries that have memory of their own
    shared = (kept + 4 * (32 if width > 128 else 64)) * (width + 8) * 2
    run = function(
        "attention_flash",
        "attention_flash",
        T=NAMES[q.dtype],
        HEAD=d,
        TILES=tiles,
        MASKED=int(mask is not None),
        WINDOWED=int(window < m),
        PAGED=int(table is not None),
    )
    arguments = (
        out, q, keys, values, _or_null(lengths), _or_null(mask), *_pages(table), n, heads, keys.shape[1], m,
        *strides(q)[:3], *_placed(keys), *_placed(values), *_masked(mask), scale, int(causal), window,
    )  # fmt: skip
    run((-(-n // (64 * tiles)), heads, b), (128,), arguments, shared)


def _has_hopper(d: int, mask: Tensor | None, scale: float | None) -> bool:
    """Whether the current card has a kernel of its own for this work."""
    fits = (d, False) in _ON_HOPPER and mask is None and (scale is None or scale > 0)
    return fits and capability() == (9, 0)


def _takes_whole_heads(q: Tensor, m: int) -> bool:
    """Whether a card that has a kernel of its own is faster if a block takes all queries and keys (m) of a head."""
    b, n, heads, d = q.shape
    return d == 64 and n <= _WHOLE_QUERIES and 128 < m <= _WHOLE_KEYS and b * heads >= _WHOLE_HEADS * multiprocessors()


def _turns(
    q: Tensor, k: Tensor | KVCache, rotary: tuple[Tensor, Tensor], mask: Tensor | None, scale: float | None
) -> bool:
    """Whether the kernel will turn queries and keys itself, by angles that all rows share."""
    if isinstance(k, KVCache) or not q.size or not k.size or rotary[0].shape[0] != 1:
        return False
    check_rope(q, *rotary)
    check_rope(k, *rotary)
    many = q.shape[1] * (q.shape[2] // k.shape[2]) > _SPLIT_UP_TO
    two_bytes = q.storage.dtype == k.storage.dtype and q.storage.dtype in NAMES and q.storage.dtype.itemsize == 2
    return many and two_bytes and _has_hopper(q.shape[3], mask, scale)


def _hopper(
    out: Any,
    q: Any,
    keys: Any,
    values: Any,
    *,
    lengths: Any,
    table: Any,
    mask: None,
    m: int,
    scale: float,
    causal: bool,
    window: int,
    rotary: tuple[Tensor, Tensor] | None = None,
) -> None:
    b, n, heads, d = q.shape
    division = _ON_HOPPER[d, rotary is not None]
    shared = division.stages * 2 * 64 * d * q.itemsize  # tiles of 64 keys and 64 values
    run = function(
        "attention_hopper", "attention_hopper", T=NAMES[q.dtype], HEAD=d, GROUPS=division.groups,
        RESIDENT=division.resident, STAGES=division.stages, ROTARY=int(rotary is not None),
        PAGED=int(table is not None), WINDOWED=int(window < m),
    )  # fmt: skip
    arguments = (
        out, q, keys, values, _or_null(lengths), *_pages(table), *_turning(rotary), n, heads, keys.shape[1], m,
        *strides(q)[:3], *_placed(keys), *_placed(values), scale, int(causal), window,
    )  # fmt: skip
    run((-(-n // (64 * division.groups)) * heads, b), (128 * division.groups,), arguments, shared)


def _whole(
    out: Any,
    q: Any,
    keys: Any,
    values: Any,
    *,
    lengths: Any,
    table: None,
    mask: None,
    m: int,
    scale: float,
    causal: bool,
    rotary: tuple[Tensor, Tensor] | None = None,
) -> None:
    b, n, heads, d = q.shape
    shared = (2 * _WHOLE_KEYS + _WHOLE_QUERIES) * d * q.itemsize  # keys, values and queries
    run = function("attention_whole", "attention_whole", T=NAMES[q.dtype], ROTARY=int(rotary is not None))
    arguments = (
        out, q, keys, values, _or_null(lengths), *_turning(rotary), n, heads, keys.shape[1], m, *strides(q)[:3],
        *_placed(keys), *_placed(values), scale, int(causal),
    )  # fmt: skip
    run((b * heads,), (256,), arguments, shared)


def _turning(rotary: tuple[Tensor, Tensor] | None) -> Sequence[Any]:
    """The angles that all rows are turned by, as kernels read them; null for none."""
    return (0, 0) if rotary is None else [_aligned(each) for each in angles(*rotary)[:2]]


def _placed(keys: Any) -> list[int]:
    """Strides of keys or values (rows or pages, kv_heads, positions, d), but for the last."""
    return strides(keys)[:3]


def _pages(table: Any) -> tuple[Any, int]:
    """The pages of rows, and from one row's to the next."""
    return (0, 0) if table is None else (table, strides(table)[0])


def _masked(mask: Any) -> list[int]:
    """Its strides and how many rows it has, which are repeated for more."""
    return [0, 0, 0, 0, 1] if mask is None else [*strides(mask), mask.shape[0]]


def _or_null(array: Any) -> Any:
    return 0 if array is None else array


@kernel("kv_append", "cuda", defers=True)
def kv_append(k: Tensor, v: Tensor, cache: KVCache, counts: Any = None) -> Any:
    """See ``ops.kv_append``."""
    if any(each.dtype not in NAMES for each in (k.storage, v.storage)) or k.storage.dtype != v.storage.dtype:
        return NotImplemented
    new_keys, new_values = adjacent(k.storage), adjacent(v.storage)
    b, n, heads, d = new_keys.shape
    width = cache.values.shape[3]
    added = 0 if counts is None else cupy.asarray(counts)
    if new_keys.size:
        run = function("kv_append", "kv_append", T=NAMES[new_keys.dtype], C=NAMES[cache.dtype.numpy])
        arguments = (
            cache.keys.storage, cache.values.storage, table_of(cache), cache.held.storage, new_keys, new_values, added,
            ticket(), b, n, heads, d, width, cache.capacity,
            *strides(new_keys)[:3], *strides(new_values)[:3],
        )  # fmt: skip
        launch = functools.partial(run, (b * n,), (min(256, -(-heads * d // 32) * 32),), arguments)
        waits = (
            counts is None and graph.recording() and fusion.defer(fusion.Append(cache, new_keys, new_values, launch))
        )
        if not waits:
            launch()
        graph.grow(cache, n if counts is None else counts)
    return None
