"""Draw tokens: which may come, how probable each is, and random numbers that anyone can make again."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow.errors import ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import module_of, quiet
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]

_MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # of the key, from round to round
_ROUNDS = 10


@operation
def sample(
    logits: Tensor,
    draws: Tensor,
    lengths: Tensor,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:
    """A token for each row, drawn at random from those that may come.

    The first of the tokens at which the sum of probabilities exceeds a random share of their total: in the order of
    their ids, or the likeliest first if ``top_k`` or ``top_p`` cuts. See ``runtime.sampling.candidates``.

    Args:
        logits: (rows, vocab) floating point. What is −inf or NaN cannot come while anything else can.
        draws: (rows, 3) uint64: the two halves of the key that fixes a row's random numbers, and the length at which
            its first was drawn.
        lengths: (rows,) int64: what the row holds now; a number is drawn for each position.
        temperature: above 0; logits are divided by it.
        top_k: only the k likeliest may come, of equals those with the lowest ids; 0 for all.
        top_p: only the fewest of the likeliest whose probabilities together reach it may come; 1 for all.
        min_p: only tokens at least this many times as probable as the likeliest may come; 0 for all.

    Returns:
        (rows,) int64.

    Raises:
        ShapeError: if the shapes do not fit each other.
    """
    if logits.ndim != 2 or not logits.shape[1] or draws.shape != (logits.shape[0], 3) or lengths.shape != (
        logits.shape[0],
    ):  # fmt: skip
        raise ShapeError(f"sample: logits {logits.shape}, draws {draws.shape}, lengths {lengths.shape}")
    library, x = module_of(logits.storage), logits.storage.astype(np.float64)
    x = library.where(library.isnan(x), -np.inf, x)
    vocab = x.shape[1]
    ids = library.broadcast_to(library.arange(vocab), x.shape)
    if 0 < top_k < vocab or top_p < 1:
        ids = library.argsort(-x, axis=-1, kind="stable")
        x = library.take_along_axis(x, ids, axis=-1)
    p = quiet.run(_relative, library, x, temperature)
    if 0 < top_k < vocab:
        p[:, top_k:] = 0.0
    if top_p < 1:
        sums = p.cumsum(axis=-1)
        p[:, 1:] *= sums[:, :-1] < top_p * sums[:, -1:]
    p *= p >= min_p
    sums = p.cumsum(axis=-1)
    numbers, total = uniform(draws.storage, lengths.storage)[:, None], sums[:, -1:]
    target = library.minimum(numbers * total, library.nextafter(total, 0.0))
    chosen = (sums <= target).sum(axis=-1, keepdims=True)
    return Tensor(library.take_along_axis(ids, chosen, axis=-1)[:, 0], logits.device)


def _relative(library: Any, x: Array, temperature: float) -> Any:
    """How probable each of (rows, vocab) is, beside the likeliest of its row."""
    highest = x.max(axis=-1, keepdims=True)
    return library.where(x == highest, 1.0, library.exp((x - highest) / temperature))


def uniform(draws: Array, lengths: Array) -> Array:
    """(rows,) float64 from 0 to below 1: those that ``numpy.random.Generator(Philox(key)).random()`` gives.

    Args:
        draws: (rows, 3) uint64, as of ``sample``.
        lengths: (rows,) int64: less the third of ``draws``, how many numbers of the key came before.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox-4x64-10. A block of four numbers
    is what its place, counted from 1, becomes.
    """
    library = module_of(draws)
    at = lengths.astype(np.uint64) - draws[:, 2]
    zero = library.zeros_like(at)
    block = [at // np.uint64(4) + np.uint64(1), zero, zero, zero]
    key = [draws[:, 0], draws[:, 1]]
    for _ in range(_ROUNDS):
        (high0, low0), (high1, low1) = (_product(m, x) for m, x in zip(_MULTIPLIERS, block[::2], strict=True))
        block = [high1 ^ block[1] ^ key[0], low1, high0 ^ block[3] ^ key[1], low0]
        key = [half + np.uint64(step) for half, step in zip(key, _STEPS, strict=True)]
    words = library.stack(block, axis=-1)
    word = library.take_along_axis(words, (at % np.uint64(4)).astype(np.int64)[:, None], axis=-1)[:, 0]
    return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53  # type: ignore[no-any-return]


def _product(m: int, x: Array) -> tuple[Array, Array]:
    """The high and the low 64 bits of a number's products with (rows,) uint64."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    m_high, m_low = np.uint64(m >> 32), np.uint64(m & 0xFFFFFFFF)
    x_high, x_low = x >> half, x & mask
    middle = m_high * x_low + (m_low * x_low >> half)
    other = m_low * x_high + (middle & mask)
    return m_high * x_high + (middle >> half) + (other >> half), x * np.uint64(m)
