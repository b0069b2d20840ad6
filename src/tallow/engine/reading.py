"""What a language model says of texts that are there already: embeddings and perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tallow import ops
from tallow.engine.generate import read_padded
from tallow.engine.prompts import token_ids
from tallow.errors import ArgumentError
from tallow.runtime.memory import CHUNK
from tallow.runtime.resident import use
from tallow.tensor import Tensor
from tallow.trace import span

if TYPE_CHECKING:
    from tallow.engine.network import Network

_LOGITS = 64  # positions whose logits are there at a time


class Score(NamedTuple):
    """How well a model foretold a text.

    Attributes:
        perplexity: the exponential of the mean of −``logprobs``.
        logprobs: natural logarithm of the probability of each token after the first, given those before it.
        ids: the text's tokens.
    """

    perplexity: float
    logprobs: list[float]
    ids: list[int]


def score(model: Network, text: str | Sequence[int]) -> Score:
    """See ``LanguageModel.score``."""
    (ids,), _ = token_ids(text, model.text, model.config.vocab_size)
    if not 2 <= len(ids) <= model.context:
        raise ArgumentError(f"score: the text has {len(ids):,} tokens; there must be from 2 to {model.context:,}")
    cache = model.new_cache(1, len(ids))
    chunk = CHUNK[model.device.kind]
    logprobs: list[float] = []
    with span("score", tokens=len(ids)), use(model):
        for begin in range(0, len(ids) - 1, chunk):
            part = ids[begin : begin + chunk]
            hidden = model.forward(Tensor(np.array([part])), cache)
            for first in range(0, len(part), _LOGITS):
                nexts = ids[begin + first + 1 : begin + min(first + _LOGITS, len(part)) + 1]
                if nexts:
                    logits = model.logits(hidden.narrow(1, first, len(nexts)))[0]
                    following = Tensor(np.array(nexts)).to(logits.device)
                    logprobs += ops.top_logprobs(logits, following, 0)[1].numpy()[:, 0].tolist()
    return Score(math.exp(-math.fsum(logprobs) / len(logprobs)), logprobs, ids)


def embed(
    model: Network,
    texts: str | Sequence[str],
    instruction: str | None,
    dims: int | None,
    truncate: bool,
    batch_size: int,
) -> Tensor:
    """See ``LanguageModel.embed``."""
    with use(model):
        single = isinstance(texts, str)
        width = model.config.hidden_size
        if dims is not None and not 1 <= dims <= width:
            raise ArgumentError(f"embed: dims must be from 1 to {width}, found {dims}")
        prompts = [_fit(model, text, instruction, truncate) for text in ([texts] if isinstance(texts, str) else texts)]
        out = np.empty((len(prompts), width), np.float32)
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        for begin in range(0, len(order), batch_size):
            batch = order[begin : begin + batch_size]
            cache = model.new_cache(len(batch), len(prompts[batch[0]]))
            with span("embed", texts=len(batch)):
                hidden = read_padded(model, [prompts[i] for i in batch], cache, CHUNK[model.device.kind])
            assert hidden is not None  # nobody cancels it
            out[batch] = hidden.numpy()
        vectors = ops.l2_normalize(Tensor(out[:, :dims].copy()))
        return vectors[0] if single else vectors


def _fit(model: Network, text: str, instruction: str | None, truncate: bool) -> list[int]:
    """The ids of a text to embed, with what the tokenizer puts around it."""
    tokenizer = model.text.tokenizer
    prompt = text if instruction is None else f"Instruct: {instruction}\nQuery:{text}"
    ids = tokenizer.encode(prompt, around=True)
    if not ids:
        raise ArgumentError("embed: an empty text; the model's tokenizer makes no token of it")
    if len(ids) <= model.context:
        return ids
    if not truncate:
        raise ArgumentError(
            f"embed: a text has {len(ids):,} tokens, and the model's context holds {model.context:,}; "
            "shorten it, or pass truncate=True to cut its end"
        )
    after = tokenizer.after
    return [*ids[: model.context - len(after)], *after]
