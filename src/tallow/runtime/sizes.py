"""What a model is made of, in numbers of elements: what an estimate of its memory is computed from."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """What a model of a family is made of, in numbers of elements; on the CPU all but the matrices are float32.

    Attributes:
        matrices: in weights that ``linear`` and ``embedding`` read, which ``dtype`` and ``quantize`` are about.
        tables: of those, in tables of tokens.
        scales: of those matrices in int8.
        tensors: in everything else: biases, norms, convolutions, position tables.
        cache_per_row: kept for each sequence in the batch, whatever its length.
        cache_per_token: kept for each token of each sequence.
        context: tokens of a sequence, at most.
        results: of one pass, each size counted as often as such results live side by side.
        live: of those, what lives at once at the busiest moment.
        fixed: bytes that come with the family whatever its size: tokenizer, media libraries, Tallow's own code.
        results_per_token: of one pass, for each of the ``CHUNK`` tokens that are read at a time.
    """

    matrices: int
    tables: int
    scales: int
    tensors: int
    cache_per_row: int
    cache_per_token: int
    context: int
    results: int
    live: int
    fixed: int
    results_per_token: int = 0
