"""The key/value cache of one attention layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tallow import dtypes
from tallow.device import Device, as_device
from tallow.dtypes import DType, as_dtype
from tallow.errors import DTypeError, ShapeError
from tallow.ops.conversion import copy
from tallow.ops.dispatch import operation
from tallow.ops.pages import PAGE, PageTable
from tallow.tensor import Tensor

PANEL = 16
"""Keys that lie side by side on the CPU: its kernel computes the scores of as many at once."""


class KVCache:
    """Keys and values of the positions that a layer has seen, for rows of unequal length.

    Address space for the whole capacity is reserved at once; memory is used as rows grow. On a card it is all taken at
    once.

    On the CPU keys lie in panels of 16, transposed, as attention reads them: ``keys[row, head, p, i, j]`` is feature i
    of the key at position 16 p + j. Values lie as ``values[row, head, position, feature]``, features padded to a
    multiple of 16. On a card both lie in pages, ``[page, head, position in the page, feature]``, which a table gives
    to rows.

    Args:
        batch: rows; no more can be held later.
        kv_heads: heads of keys and values.
        head_dim: features of a head.
        capacity: positions that a row can hold.
        dtype: how keys and values are stored: float32 or float16; on a card bfloat16 too, on the CPU int8: rounded to
            one of 255 steps, whose size each key and each value of a head has for itself.
        device: where.
        filled: whether it is to be filled at once, and not row by row: it then takes memory that is already there.
        table: on a card, another cache's of as many rows and positions: what it says is copied there.

    Attributes:
        lengths: (batch,) int64 Tensor on the CPU: positions that each row holds. It changes as the cache does.
        held: the same where the cache lies; kernels read it there.
        table: on a card, which pages a row has; else None.
        scales: for int8 the steps (batch, kv_heads, 2, positions), float32, of keys and of values; else None.

    Examples:
        >>> cache = tl.ops.KVCache(batch=1, kv_heads=2, head_dim=16, capacity=100)
        >>> cache.append(tl.ones((1, 3, 2, 16)), tl.ones((1, 3, 2, 16)))
        >>> cache.lengths.tolist()
        [3]
        >>> tl.ops.attention(tl.ones((1, 1, 4, 16)), cache, causal=True).shape
        (1, 1, 4, 16)
    """

    __slots__ = (
        "_most_rows", "capacity", "device", "dtype", "head_dim", "held", "keys", "kv_heads", "lengths", "scales",
        "table", "values",
    )  # fmt: skip

    def __init__(
        self,
        batch: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        dtype: str | DType = "float32",
        device: str | Device | None = None,
        filled: bool = False,
        table: PageTable | None = None,
    ) -> None:
        if min(batch, kv_heads, head_dim, capacity) < 1:
            raise ShapeError(f"KVCache: sizes must be at least 1, found {(batch, kv_heads, head_dim, capacity)}")
        self.dtype = as_dtype(dtype)
        self.device = as_device(device)
        types = (dtypes.float32, dtypes.float16, dtypes.int8 if self.device.kind == "cpu" else dtypes.bfloat16)
        if self.dtype not in types:
            raise DTypeError(f"KVCache: stores {' or '.join(t.name for t in types)}, not {self.dtype.name}")
        self.kv_heads, self.head_dim, self.capacity = kv_heads, head_dim, capacity
        make = _empty if filled else _reserve
        width, panels = -(-head_dim // 16) * 16, -(-capacity // PANEL)
        self.lengths = Tensor(np.zeros(batch, np.int64))
        self.held = self.lengths
        self.table: PageTable | None = None
        self.scales: Tensor | None = None
        if self.device.kind == "cpu":
            self.keys = make((batch, kv_heads, panels, head_dim, PANEL), self.dtype, self.device)
            self.values = make((batch, kv_heads, panels * PANEL, width), self.dtype, self.device)
            if self.dtype is dtypes.int8:
                self.scales = make((batch, kv_heads, 2, panels * PANEL), dtypes.float32, self.device)
        else:
            self.held = make((batch,), dtypes.int64, self.device)
            self.table = PageTable(batch, capacity, self.device) if table is None else table.copy()
            pages = self.table.rows.size
            self.keys = make((pages, kv_heads, PAGE, head_dim), self.dtype, self.device)
            self.values = make((pages, kv_heads, PAGE, width), self.dtype, self.device)
        self._most_rows = batch

    @property
    def batch(self) -> int:
        """Rows now held."""
        return self.lengths.shape[0]

    @property
    def length(self) -> int:
        """Positions in the longest row."""
        return int(max(self.lengths.storage.tolist()))  # faster than NumPy's, of few rows

    def append(self, k: Tensor, v: Tensor, counts: Sequence[int] | Tensor | None = None) -> None:
        """Add keys and values at the end of each row.

        Args:
            k: (batch, n, kv_heads, head_dim).
            v: likewise.
            counts: (batch,) how many of the n belong to each row: its *last* ones (rows are padded in front), so
                that the last query of every row is its newest position; None for all.

        Raises:
            ShapeError: if the shapes do not fit the cache, or a row would exceed the capacity.
        """
        kv_append(k, v, self, self.check_append(k, v, counts))

    def check_append(
        self, k: Tensor, v: Tensor, counts: Sequence[int] | Tensor | None = None
    ) -> np.ndarray[Any, Any] | None:
        """Raise ShapeError unless ``append`` can be done. Returns the counts as an array (batch,) int64, or None."""
        expected = (self.batch, k.shape[1] if len(k.shape) == 4 else -1, self.kv_heads, self.head_dim)
        if k.shape != expected or v.shape != expected:
            wanted = f"({self.batch}, n, {self.kv_heads}, {self.head_dim})"
            raise ShapeError(f"KVCache.append: keys and values must be {wanted}, found {k.shape} and {v.shape}")
        added = None if counts is None else _row_counts(counts, self.batch, expected[1])
        longest = self.length + expected[1] if added is None else int((self.lengths.storage + added).max())
        if longest > self.capacity:
            raise ShapeError(
                f"KVCache.append: a row would hold {longest} positions; this cache was made for {self.capacity}"
            )
        return added

    def view(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values in the plain layout: (batch, m, kv_heads, head_dim) each, m the longest row, and the lengths.

        Keys are a copy, values a view (of int8, and on a card, both are copies, of int8 in float32). What lies beyond a
        row's length means nothing.
        """
        m = self.length
        b, h, d = self.batch, self.kv_heads, self.head_dim
        if self.table is not None:
            pages = self.table.held.storage[:b, : -(-m // PAGE)]
            both = (x.storage[pages].transpose(0, 1, 3, 2, 4) for x in (self.keys, self.values))
            paged, values = (x.reshape(b, -1, h, x.shape[-1])[:, :m, :, :d] for x in both)
            return Tensor(paged, self.device), Tensor(values, self.device), self.held
        panels = self.keys.storage[:b, :, : -(-m // PANEL)]
        keys = panels.transpose(0, 2, 4, 1, 3).reshape(b, -1, h, d)[:, :m]
        values = self.values.storage[:b, :, :m, :d].transpose(0, 2, 1, 3)
        if self.scales is not None:
            steps = self.scales.storage[:b, :, :, :m].transpose(2, 0, 3, 1)[..., None]  # (2, b, m, h, 1)
            keys, values = keys * steps[0], values * steps[1]
        return Tensor(keys, self.device), Tensor(values, self.device), self.held

    def truncate(self, lengths: int | Sequence[int] | Tensor) -> None:
        """Forget what lies beyond the first ``lengths`` positions of each row (one number for all, or one for each).

        Raises:
            ShapeError: if that is negative or more than a row holds.
        """
        wanted, held = _host(lengths), self.lengths.storage
        if wanted.shape not in ((), held.shape) or (wanted < 0).any() or (wanted > held).any():
            raise ShapeError(f"KVCache.truncate: rows hold {held.tolist()}, cannot keep {wanted.tolist()}")
        self.lengths.storage[...] = wanted
        self._tell_card()

    def select(self, rows: Sequence[int]) -> None:
        """Keep or repeat rows, in place: afterwards row i holds what row ``rows[i]`` held, and there are ``len(rows)``.

        Only rows that change are copied, on a card only those that are repeated.

        Raises:
            ShapeError: for a row that is not there, or more rows than the cache was made for.
        """
        if not 1 <= len(rows) <= self._most_rows or min(rows) < 0 or max(rows) >= self.batch:
            allowed = f"1 to {self._most_rows} numbers from 0 to {self.batch - 1}"
            raise ShapeError(f"KVCache.select: rows must be {allowed}, found {list(rows)}")
        lengths = self.lengths.storage[np.asarray(rows, np.int64)]
        if self.table is None:
            self._copy_rows(rows)
        else:
            for target, source in self.table.select(rows).items():
                self._take_pages(target, self, source, int(lengths[target]))
        if len(rows) == self.batch:  # the same array: recordings read it
            self.lengths.storage[...] = lengths
            self._tell_card()
        else:
            self.lengths = Tensor(lengths)
            self.held = self.lengths.to(self.device)

    def resized(self, capacity: int) -> KVCache:
        """A cache on a card that holds the same, with room for more positions in each row.

        Raises:
            OutOfMemoryError: if the card has no room for both.
        """
        assert self.table is not None
        to = KVCache(self._most_rows, self.kv_heads, self.head_dim, capacity, self.dtype, self.device)
        to.lengths, to.held = self.lengths, self.held
        for row, length in enumerate(self.lengths.tolist()):
            to._take_pages(row, self, row, length)
        return to

    def empty_like(self) -> KVCache:
        """An empty cache of the same sizes, made faster than the first one: nothing is brought to the card for it."""
        return KVCache(
            self._most_rows, self.kv_heads, self.head_dim, self.capacity, self.dtype, self.device, table=self.table
        )

    def rows(self, rows: int) -> KVCache:
        """The first rows alone, as a cache over the same memory: what is appended there is appended here.

        Raises:
            ShapeError: for more rows than there are, or none.
        """
        if not 1 <= rows <= self.batch:
            raise ShapeError(f"KVCache.first: {rows} of {self.batch} rows")
        part = object.__new__(KVCache)
        part.dtype, part.device, part.capacity = self.dtype, self.device, self.capacity
        part.kv_heads, part.head_dim, part._most_rows = self.kv_heads, self.head_dim, rows
        part.keys, part.values = self.keys, self.values
        part.table = None if self.table is None else self.table.first(rows)
        if self.table is None:
            part.keys, part.values = (Tensor(x.storage[:rows], self.device) for x in (self.keys, self.values))
        part.scales = None if self.scales is None else Tensor(self.scales.storage[:rows], self.device)
        part.lengths = Tensor(self.lengths.storage[:rows])
        part.held = part.lengths if self.held is self.lengths else Tensor(self.held.storage[:rows], self.device)
        return part

    def _tell_card(self) -> None:
        if self.held is not self.lengths:
            self.held.storage.set(self.lengths.storage)

    def _copy_rows(self, rows: Sequence[int]) -> None:
        """Copy what row ``rows[i]`` holds to row i, on the CPU."""
        changed = {target: source for target, source in enumerate(rows) if target != source}
        held = self.lengths.storage.tolist()
        aside = {
            source: [copy(Tensor(part)).storage for part in self._row(source, held[source])]
            for source in set(changed.values())
            if source in changed
        }
        for target, source in changed.items():
            parts = aside[source] if source in aside else self._row(source, held[source])
            for to, part in zip(self._row(target, held[source]), parts, strict=True):
                to[...] = part

    def _take_pages(self, row: int, other: KVCache, source: int, length: int) -> None:
        """Copy into a row's pages what those of a row hold, of this cache or of another one."""
        assert self.table is not None
        assert other.table is not None
        count = -(-length // PAGE)
        to, read = self.table.held.storage[row, :count], other.table.held.storage[source, :count]
        self.keys.storage[to] = other.keys.storage[read]
        self.values.storage[to] = other.values.storage[read]

    def _row(self, row: int, length: int) -> list[Any]:
        """Where the first positions of a row lie, on the CPU."""
        parts = [self.keys.storage[row, :, : -(-length // PANEL)], self.values.storage[row, :, :length]]
        return parts if self.scales is None else [*parts, self.scales.storage[row, :, :, :length]]


@operation
def kv_append(k: Tensor, v: Tensor, cache: KVCache, counts: Any = None) -> None:
    """Write keys and values at the ends of a cache's rows; the work of ``KVCache.append``, which checks the arguments.

    Args:
        k: (batch, n, kv_heads, head_dim).
        v: likewise.
        cache: where to.
        counts: (batch,) int64 array: how many of the last of n belong to each row; None for all.
    """
    n = k.shape[1]
    for row, length in enumerate(cache.lengths.storage.tolist()):
        count = n if counts is None else int(counts[row])
        at = np.arange(length, length + count)
        new_keys, new_values = k.storage[row, n - count :], v.storage[row, n - count :]  # (count, heads, d)
        if cache.scales is not None:
            (new_keys, key_steps), (new_values, value_steps) = _rounded(new_keys), _rounded(new_values)
            cache.scales.storage[row, :, :, length : length + count] = np.stack((key_steps.T, value_steps.T), axis=1)
        if cache.table is None:
            cache.keys.storage[row, :, at // PANEL, :, at % PANEL] = new_keys
            cache.values.storage[row, :, length : length + count, : cache.head_dim] = new_values.transpose(1, 0, 2)
        else:
            page, place = cache.table.place(row, at)
            cache.keys.storage[page, :, place] = new_keys
            cache.values.storage[page, :, place, : cache.head_dim] = new_values
    cache.lengths.storage[...] += n if counts is None else counts
    cache._tell_card()


def _rounded(x: Any) -> tuple[Any, Any]:
    """Vectors (…, d) as int8, and the sizes (…) of the steps; NaN for one with a number that is not finite."""
    x = x.astype(np.float32)
    most = np.abs(x).max(axis=-1, keepdims=True)
    finite, tiny = np.isfinite(most), most <= np.float32(1e-36)
    with np.errstate(all="ignore"):
        codes = np.where(finite & ~tiny, np.rint(x * (np.float32(127) / most)), 0).astype(np.int8)
    steps = np.where(finite, np.where(tiny, 0, most / np.float32(127)), np.float32(np.nan))
    return codes, steps[..., 0].astype(np.float32)


def _empty(shape: tuple[int, ...], dtype: DType, device: Device) -> Tensor:
    """Memory that earlier results have left, whose pages spare the next window of sound their faults."""
    if device.kind == "cpu":
        from tallow.backends.cpu.memory import empty

        return Tensor(empty(shape, dtype.numpy))
    return _reserve(shape, dtype, device)


def _reserve(shape: tuple[int, ...], dtype: DType, device: Device) -> Tensor:
    """Memory that is committed as it is first written; what it holds before means nothing."""
    if device.kind == "cpu":
        from tallow.backends.cpu.memory import reserve

        return Tensor(reserve(shape, dtype.numpy))
    from tallow.ops.creation import zeros

    return zeros(shape, dtype=dtype, device=device)


def _host(values: int | Sequence[int] | Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(values.numpy() if isinstance(values, Tensor) else values, np.int64)


def _row_counts(counts: Sequence[int] | Tensor, batch: int, n: int) -> np.ndarray[Any, Any]:
    found = _host(counts)
    if found.shape != (batch,) or (found < 0).any() or (found > n).any():
        raise ShapeError(f"KVCache.append: counts must be {batch} numbers from 0 to {n}, found {found.tolist()}")
    return np.ascontiguousarray(found)
