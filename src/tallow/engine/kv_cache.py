"""The keys and values of a whole decoder, and what its layers share in one pass through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tallow import ops
from tallow.device import Device, as_device
from tallow.dtypes import DType, as_dtype
from tallow.errors import OutOfMemoryError
from tallow.nn.norm import RMSNorm
from tallow.nn.rope import RotaryEmbedding
from tallow.ops import KVCache
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]


class DecoderCache:
    """One ``KVCache`` for each layer; all layers hold the same positions.

    Args:
        layers: how many.
        batch: rows, at most.
        kv_heads: heads of keys and values.
        head_dim: features of a head.
        capacity: positions that a row can hold.
        dtype: how keys and values are stored, as for ``KVCache``.
        device: where.

    Attributes:
        max_rows: that it was made for.

    Raises:
        OutOfMemoryError: if the device has no room for them.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        dtype: str | DType = "float32",
        device: str | Device | None = None,
    ) -> None:
        self.layers: list[KVCache] = []
        self.max_rows = batch
        self._lengths: dict[int, list[tuple[Tensor, Tensor]]] = {}  # by rows, of each layer: here and on the device
        try:
            self.layers.append(KVCache(batch, kv_heads, head_dim, capacity, dtype, device))
            while len(self.layers) < layers:
                self.layers.append(self.layers[0].empty_like())
        except OutOfMemoryError:
            self.layers.clear()
            needed = batch * capacity * position_nbytes(layers, kv_heads, head_dim, as_dtype(dtype))
            raise _lack(batch, capacity, needed, as_device(device)) from None

    @property
    def lengths(self) -> Array:
        """(batch,) int64: positions that each row holds."""
        return self.layers[0].lengths.storage  # type: ignore[no-any-return]

    @property
    def batch(self) -> int:
        """Rows now held."""
        return self.layers[0].batch

    @property
    def dtype(self) -> DType:
        """How keys and values are stored."""
        return self.layers[0].dtype

    @property
    def device(self) -> Device:
        """Where."""
        return self.layers[0].device

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, of the whole capacity."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    @property
    def capacity(self) -> int:
        """Positions that a row can hold."""
        return min(layer.capacity for layer in self.layers)

    def grow(self, capacity: int) -> None:
        """Make room on a card for more positions in each row.

        Raises:
            OutOfMemoryError: if it has no such room; the cache is then as it was.
        """
        for index, layer in enumerate(self.layers):
            if layer.capacity >= capacity:
                continue
            try:
                self.layers[index] = layer.resized(capacity)
            except OutOfMemoryError:
                needed = len(self.layers) * (layer.keys.nbytes + layer.values.nbytes) * capacity // layer.capacity
                raise _lack(self.batch, capacity, needed, layer.device) from None

    def truncate(self, lengths: int | Sequence[int]) -> None:
        """Forget what lies beyond the first ``lengths`` positions of each row."""
        for layer in self.layers:
            layer.truncate(lengths)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order."""
        if list(rows) == list(range(self.batch)):
            return
        self._remember()
        for layer in self.layers:
            layer.select(rows)
        self._recall()

    def restart(self, rows: int) -> None:
        """Forget all, and go on with so many empty rows: as many as it was made for, or fewer."""
        self.truncate(0)
        if rows != self.batch:
            self._remember()
            for layer in self.layers:
                layer.lengths = Tensor(np.zeros(rows, np.int64))
                layer.held = layer.lengths.to(layer.device)
            self._recall()

    def _remember(self) -> None:
        """Note where the lengths of as many rows as there are now lie."""
        self._lengths[self.batch] = [(layer.lengths, layer.held) for layer in self.layers]

    def _recall(self) -> None:
        """Move lengths to where those of as many rows lay before: that is where recordings read them."""
        for layer, (lengths, held) in zip(self.layers, self._lengths.get(self.batch, ()), strict=False):
            if lengths is not layer.lengths:
                lengths.storage[...] = layer.lengths.storage
                layer.lengths, layer.held = lengths, held
                layer.truncate(lengths)  # tells the device

    def rows(self, rows: int) -> DecoderCache:
        """The first rows alone, over the same memory."""
        part = object.__new__(DecoderCache)
        part.layers, part.max_rows, part._lengths = [layer.rows(rows) for layer in self.layers], rows, {}
        return part

    def forward_context(self, rope: RotaryEmbedding, n: int, counts: Sequence[int] | None = None) -> ForwardContext:
        """A pass over n new positions of each row.

        Args:
            rope: the model's.
            n: positions, padded in front for rows that have fewer.
            counts: (batch,) how many each row has; None if all have n.
        """
        return ForwardContext(self, rope, n, counts)


def position_nbytes(layers: int, kv_heads: int, head_dim: int, dtype: DType) -> int:
    """Bytes that a position of a row takes in a cache."""
    return layers * kv_heads * (head_dim + -(-head_dim // 16) * 16) * int(dtype.itemsize)


def _lack(batch: int, capacity: int, needed: int, place: Device) -> OutOfMemoryError:
    """What is told where keys and values find no room."""
    from tallow.runtime.memory import free_bytes

    return OutOfMemoryError(
        f"keys and values of {batch} × {capacity:,} tokens take {needed / 1e6:,.0f} MB, {place} has "
        f"{(free_bytes(place) or 0) / 1e6:,.0f} MB free; take fewer max_tokens (a shorter context) or a smaller batch"
    )


class ForwardContext:
    """One pass through a decoder: where its tokens stand, what they may see, and what was seen before.

    Args:
        cache: of the decoder.
        rope: the model's.
        n: new positions of each row, padded in front.
        counts: (batch,) how many each row really has; None for n.
    """

    def __init__(self, cache: DecoderCache, rope: RotaryEmbedding, n: int, counts: Sequence[int] | None) -> None:
        self.cache = cache
        self.rope = rope
        self.counts = counts
        self._angles: dict[RotaryEmbedding, tuple[Tensor, Tensor]] = {}
        held = cache.layers[0].held
        added = None if counts is None else Tensor(np.asarray(counts, np.int64)).to(held.device)
        self.positions = ops.next_positions(held, n, added)  # (batch, n)

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        window: int | None = None,
        norms: tuple[RMSNorm, RMSNorm] | None = None,
        rope: RotaryEmbedding | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Causal attention of the new positions to themselves and to all that came before.

        Args:
            layer: whose cache to use.
            q: queries (batch, n, heads, head_dim), not yet rotated.
            k: keys (batch, n, kv_heads, head_dim), not yet rotated.
            v: values likewise.
            window: how many positions, itself included, each one sees; None for all.
            norms: of the heads of queries and of keys, before they are rotated; None for none.
            rope: of the layer; None for the model's.
            scale: factor of the scores; None for ``head_dim ** -0.5``.

        Returns:
            (batch, n, heads, head_dim).
        """
        held = self.cache.layers[layer]
        q_norm, k_norm = (None, None) if norms is None else (norm.weight for norm in norms)
        eps = 0.0 if norms is None else norms[0].eps
        rope = self.rope if rope is None else rope
        if rope not in self._angles:
            self._angles[rope] = rope.angles(self.positions)
        cos, sin = self._angles[rope]
        q = ops.rope_append(
            q, k, v, held, cos, sin, q_norm=q_norm, k_norm=k_norm, eps=eps, interleaved=rope.interleaved,
            counts=self.counts,
        )  # fmt: skip
        return ops.attention(q, held, causal=True, window=window, scale=scale)
