"""The decoder at work on one window: what belongs to a request and not to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow.engine.step import CapturedStep
from tallow.ops import KVCache
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from tallow.models.whisper.model import Decoder

Array = np.ndarray[Any, Any]
Sound = list[KVCache]  # keys and values of one window, for each layer of the decoder


class DecoderSession:
    """Rows of candidates for one window, with their keys and values; see ``decoding.Decoder``.

    Args:
        decoder: the model's.
        sound: the encoded window.
        rows: most candidates at a time.
    """

    def __init__(self, decoder: Decoder, sound: Sound, rows: int = 1) -> None:
        self._decoder = decoder
        self._sound = sound
        self._rows = rows
        self._text: list[KVCache] = []

    def start(self, prompt: Sequence[int], positions: Sequence[int]) -> Array:
        """Read the prompt as one row. Returns the logits at some of its positions, (positions, vocabulary) float32."""
        decoder, sound = self._decoder, self._sound
        self._text = text = decoder.new_caches(self._rows)
        self._step = CapturedStep(lambda ids: decoder.logits(decoder(ids, text, sound)), text)
        hidden = self._read([prompt])  # (1, n, dim)
        wanted = Tensor(np.array(positions)).to(hidden.device)
        logits: Array = self._decoder.logits(hidden.take(wanted, axis=1)).float().numpy()[0]
        return logits

    def step(self, ids: Sequence[int]) -> Array:
        """Read one more token in each row.

        Returns:
            The logits that follow, (rows, vocabulary) float32: the caller's to change, until the next step overwrites
            them.
        """
        logits: Array = self._step(ids).float().numpy()[:, 0]
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may come more than once, or no more."""
        for cache in self._text:
            cache.select(rows)

    def align(self, ids: Sequence[int], heads: Sequence[tuple[int, int]], positions: int) -> tuple[Array, Array]:
        """Read a text as one row and watch where some heads look.

        Args:
            ids: n tokens.
            heads: pairs of layer and head.
            positions: how many of the encoder's positions hold sound, at least 1.

        Returns:
            Attention weights (heads, n, positions); logits (n, vocabulary). Both float32.
        """
        wanted: dict[int, list[int]] = {}
        for layer, head in heads:
            wanted.setdefault(layer, []).append(head)
        weights: list[Array] = []

        def watch(layer: int, x: Tensor) -> None:
            if layer in wanted:
                cross = self._decoder.layers[layer].cross
                weights.append(cross.weights(x, self._sound[layer], wanted[layer], positions).numpy())

        self._text = self._decoder.new_caches(1)
        hidden = self._read([ids], watch)
        return np.concatenate(weights), self._decoder.logits(hidden).float().numpy()[0]

    def _read(self, ids: Sequence[Sequence[int]], watch: Callable[[int, Tensor], None] | None = None) -> Tensor:
        device = self._decoder.positions.device
        return self._decoder(Tensor(np.array(ids)).to(device), self._text, self._sound, watch)
