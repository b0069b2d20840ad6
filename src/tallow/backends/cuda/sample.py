"""Tokens drawn on the card."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tallow.backends.cuda.arrays import matrix_of
from tallow.backends.cuda.kernels import NAMES, function, multiprocessors, zeroed
from tallow.ops.dispatch import kernel
from tallow.ops.sample import check_sample
from tallow.tensor import Tensor

_PARTS = 256  # blocks of a row, at most
_MIN = 1024  # numbers of a row that are worth a block
_MANY = 4096  # of a block that make it worth being large
_DIGITS = {"bf16": 2, "f16": 3, "f32": 4}
_SEARCHES = 3
_KINDS = (np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.float64), np.dtype(np.float64))
"""Of temperatures, top_k, top_p and min_p."""


@kernel("sample", "cuda")
def sample(
    logits: Tensor,
    draws: Tensor,
    lengths: Tensor,
    *,
    temperature: float | Tensor,
    top_k: int | Tensor = 0,
    top_p: float | Tensor = 1.0,
    min_p: float | Tensor = 0.0,
) -> Any:
    """See ``ops.sample``."""
    settings = (temperature, top_k, top_p, min_p)
    check_sample(logits, draws, lengths, *settings)
    pairs = list(zip(settings, _KINDS, strict=True))
    if any(isinstance(each, Tensor) and each.storage.dtype != kind for each, kind in pairs):
        return NotImplemented
    x, fixed, held = logits.storage, draws.storage, lengths.storage
    if x.dtype not in NAMES or x.ndim != 2 or not x.size or x.shape[1] >= 1 << 32:
        return NotImplemented
    if fixed.dtype != np.uint64 or held.dtype != np.int64:
        return NotImplemented
    x, rows, distance = matrix_of(x)
    vocab, fixed, held = x.shape[1], cupy.ascontiguousarray(fixed), cupy.ascontiguousarray(held)
    out = cupy.empty(rows, np.int64)
    name = NAMES[x.dtype]
    one = 2.0 ** (62 - vocab.bit_length())  # the likeliest token's probability as a whole number: no sum overflows
    of_rows = [cupy.ascontiguousarray(each.storage) if isinstance(each, Tensor) else None for each in settings]
    of_all = [np.asarray(0 if isinstance(each, Tensor) else each, kind).item() for each, kind in pairs]
    most = multiprocessors()  # blocks wait for each other: a launch of more than can run at once would be refused
    for first in range(0, rows, most):
        part = slice(first, min(first + most, rows))
        count = part.stop - part.start
        blocks = max(1, min(most // count, _PARTS, vocab // _MIN))
        threads = 512 if vocab // blocks <= _MANY else 1024
        run = function("sample", "sample", T=name, DIGITS=_DIGITS[name], THREADS=threads)
        operands = (out[part], x[part], fixed[part], held[part], _shared(most, _DIGITS[name]), vocab, distance)
        some = [0 if each is None else each[part] for each in of_rows]
        run((blocks, count), (threads,), (*operands, *some, *of_all, one))
    return Tensor(out, logits.device)


def _shared(rows: int, digits: int) -> Any:
    """What the blocks of each row share, zero between kernels; see ``Shared`` in the source."""
    tallies = 1 + _SEARCHES * (digits - 1)
    return zeroed(f"sample {digits}", rows * (8 * _PARTS + 16 + tallies * 12 * 256) // 4)
