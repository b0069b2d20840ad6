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
    temperature: float | Tensor,
    top_k: int | Tensor = 0,
    top_p: float | Tensor = 1.0,
    min_p: float | Tensor = 0.0,
) -> Tensor:
    """A token for each row, drawn at random from those that may come.

    The first of the tokens at which the sum of probabilities exceeds a random share of their total: in the order of
    their ids, or the likeliest first if ``top_k`` or ``top_p`` cuts. See ``engine.sampling.candidates``.

    Args:
        logits: (rows, vocab) floating point. What is −inf or NaN cannot come while anything else can.
        draws: (rows, 3) uint64: the two halves of the key that fixes a row's random numbers, and the length at which
            its first was drawn.
        lengths: (rows,) int64: what the row holds now; a number is drawn for each position.
        temperature: logits are divided by it; a row of 0 takes the likeliest token, of equals that with the lowest id.
            This and the next three are one number for all rows, or (rows,): float64, ``top_k`` int64.
        top_k: only the k likeliest may come, of equals those with the lowest ids; 0 for all.
        top_p: only the fewest of the likeliest whose probabilities together reach it may come; 1 for all.
        min_p: only tokens at least this many times as probable as the likeliest may come; 0 for all.

    Returns:
        (rows,) int64.

    Raises:
        ShapeError: if the shapes do not fit each other.
    """
    check_sample(logits, draws, lengths, temperature, top_k, top_p, min_p)
    library, x = module_of(logits.storage), logits.storage.astype(np.float64)
    warm, most, share, least = (
        each.storage[:, None] if isinstance(each, Tensor) else library.full((len(x), 1), each)
        for each in (temperature, top_k, top_p, min_p)
    )
    x = library.where(library.isnan(x), -np.inf, x)
    vocab, greedy = x.shape[1], warm == 0
    ids = library.broadcast_to(library.arange(vocab), x.shape)
    cuts = ((most > 0) & (most < vocab) | (share < 1)) & ~greedy
    ids = library.where(cuts, library.argsort(-x, axis=-1, kind="stable"), ids)
    x = library.take_along_axis(x, ids, axis=-1)
    p = quiet.run(_relative, library, x, library.where(greedy, 1.0, warm))
    p = library.where(greedy, x == x.max(axis=-1, keepdims=True), p)
    p = library.where(greedy | (most <= 0) | (library.arange(vocab) < most), p, 0.0)
    sums = p.cumsum(axis=-1)
    p[:, 1:] *= (sums[:, :-1] < share * sums[:, -1:]) | (share >= 1) | greedy
    p *= (p >= least) | greedy
    sums = p.cumsum(axis=-1)
    numbers, total = uniform(draws.storage, lengths.storage)[:, None], sums[:, -1:]
    numbers = library.where(greedy, 0.0, numbers)
    target = library.minimum(numbers * total, library.nextafter(total, 0.0))
    chosen = (sums <= target).sum(axis=-1, keepdims=True)
    return Tensor(library.take_along_axis(ids, chosen, axis=-1)[:, 0], logits.device)


def check_sample(logits: Tensor, draws: Tensor, lengths: Tensor, *settings: float | Tensor) -> None:
    """Raise ShapeError unless the operands of ``sample`` fit each other."""
    rows = logits.shape[:1]
    alike = [each.shape for each in (lengths, *settings) if isinstance(each, Tensor)]
    if logits.ndim != 2 or not logits.shape[1] or draws.shape != (*rows, 3) or any(each != rows for each in alike):
        raise ShapeError(f"sample: logits {logits.shape}, draws {draws.shape}, lengths and settings {alike}")


def _relative(library: Any, x: Array, temperature: Any) -> Any:
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
