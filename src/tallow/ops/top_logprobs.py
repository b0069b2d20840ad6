"""How likely a chosen token is, and which are the likeliest: without the log-probabilities of all others."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow.errors import ArgumentError, ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import module_of, quiet
from tallow.tensor import Tensor


@operation
def top_logprobs(logits: Tensor, chosen: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The log-probabilities of one token of each row, and of its k likeliest.

    Log-probabilities are ``log_softmax(logits)``, computed in float32. In a row that has none, because of a NaN, of an
    infinite logit or of nothing but −inf, they are NaN, and the likeliest are the first k.

    Args:
        logits: (rows, vocab) floating point.
        chosen: (rows,) int64: the tokens. One outside the vocabulary has the log-probability NaN.
        k: how many of the likeliest, from 0; no more than there are are given.

    Returns:
        ids (rows, 1 + k) int64 and log-probabilities (rows, 1 + k) float32: first the chosen token, then the likeliest,
        the likeliest first, of equals those with the lowest ids.

    Raises:
        ShapeError: if the shapes do not fit each other.
        ArgumentError: for a negative k.
    """
    if logits.ndim != 2 or not logits.shape[1] or chosen.shape != logits.shape[:1]:
        raise ShapeError(f"top_logprobs: logits {logits.shape}, chosen {chosen.shape}")
    if k < 0:
        raise ArgumentError(f"top_logprobs: k must be at least 0, found {k}")
    library, x, given = module_of(logits.storage), logits.storage.astype(np.float32), chosen.storage[:, None]
    k = min(k, x.shape[1])
    ids, values = quiet.run(_found, library, x, given, k)
    return Tensor(ids, logits.device), Tensor(values, logits.device)


def _found(library: Any, x: Any, given: Any, k: int) -> tuple[Any, Any]:
    shifted = x - x.max(axis=-1, keepdims=True)
    total = library.exp(shifted).sum(axis=-1, keepdims=True)
    scores = shifted - library.log(total)
    likeliest = library.argsort(-x, axis=-1, kind="stable")[:, :k]
    likeliest = library.where(library.isnan(total), library.arange(k), likeliest)
    ids = library.concatenate([given, likeliest], axis=-1)
    values = library.take_along_axis(scores, library.clip(ids, 0, x.shape[1] - 1), axis=-1)
    return ids, library.where((ids >= 0) & (ids < x.shape[1]), values, np.float32(np.nan))
