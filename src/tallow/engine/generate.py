"""The loop that writes answers: read the prompts, then token after token, several answers at once."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow import _cpu
from tallow.engine import cache_pool
from tallow.engine.kv_cache import DecoderCache
from tallow.engine.request import Options, Request
from tallow.engine.result import Choice, Generation
from tallow.engine.step import Decoder
from tallow.engine.stream import Stream
from tallow.runtime.memory import CHUNK
from tallow.runtime.resident import use
from tallow.tensor import Tensor
from tallow.trace import span

if TYPE_CHECKING:
    from tallow.engine.network import Network
    from tallow.engine.session import Session

Array = np.ndarray[Any, Any]


def start(
    model: Network,
    prompts: Sequence[Sequence[int]],
    options: Sequence[Options],
    memory: Session | str,
    finish: Callable[[Generation], Generation],
    single: bool,
) -> Stream:
    """Begin to write answers, with a cache of their own or a session's.

    Args:
        model: what says what may come next.
        prompts: ids; each fits the context.
        options: what is asked of each answer.
        memory: the session; or how keys and values are stored.
        finish: changes each result before it is given.
        single: whether the caller gave one prompt, not a list.

    Returns:
        The answers, which are written as it is read.

    Raises:
        ArgumentError: for several prompts with a session, or one of another model.
    """
    if not isinstance(memory, str):
        memory.check(model, len(prompts))
    requests = [
        Request(ids, row, asked, model.text, model.config.vocab_size, model.context)
        for row, (ids, asked) in enumerate(zip(prompts, options, strict=True))
    ]
    wanted = [request for request in requests if request.most > 0]
    pieces: Generator[tuple[int, str], None, None]
    if not wanted:
        pieces = ((0, "") for _ in ())
    elif isinstance(memory, str):
        step = cache_pool.acquire(
            model, len(wanted), max(len(request.prompt) + request.most for request in wanted), memory
        )
        pieces = cache_pool.releasing(generate(model, wanted, step), functools.partial(cache_pool.release, model, step))
    else:
        step, wanted[0].reused = memory.take(wanted[0].prompt, wanted[0].most)
        pieces = cache_pool.releasing(generate(model, wanted, step), functools.partial(memory.keep, step))
        memory.follow(wanted[0], pieces)
    return Stream(pieces, requests, finish, single)


def generate(
    model: Network, requests: Sequence[Request], step: Decoder, chunk: int | None = None
) -> Generator[tuple[int, str], None, None]:
    """Write answers.

    Args:
        model: what says what may come next.
        requests: prompts and what is asked for; each has room for what it needs.
        step: over a cache with as many rows; each holds the first ``reused`` tokens of its prompt. Rows are put into
            another order, and afterwards the cache holds all but the last token of the answers that were finished last.
        chunk: tokens of each prompt to read at a time; None for as many as suit the device.

    Yields:
        (row, text): more text of the answer in that place of the list of prompts. A request's own attributes tell the
        rest; those that are not finished when the generator is closed were cancelled.
    """
    cache, chunk = step.cache, chunk or CHUNK[model.device.kind]
    active = sorted(requests, key=lambda r: r.reused - len(r.prompt))  # the longest first
    cache.select([requests.index(request) for request in active])
    begun = time.perf_counter()
    in_use = use(model)
    with span("prefill", tokens=sum(len(r.prompt) - r.reused for r in active)), in_use:
        prompts = [request.prompt[request.reused :] for request in active]
        last = read_padded(model, prompts, cache, chunk, lambda: _cancelled(active))
        if last is None:  # cancelled
            return
        rows: list[Sequence[Array | Choice]] = [[scores] for scores in model.logits(last).float().numpy()]
    middle = time.perf_counter()
    if len(prompts[0]) >= chunk:
        _cpu.release_buffers()  # of results as long as a chunk; single tokens need none of it
    guesses: list[list[int]] = [[] for _ in active]
    _begin(step, requests)
    away = 0.0  # seconds that the reader of the answers took
    try:
        while True:
            lasts = []
            for request, scores, guess in zip(active, rows, guesses, strict=True):
                id, piece, used = _take(request, scores, guess)
                lasts.append((id, used))
                now = time.perf_counter()
                request.timings.prefill, request.timings.decode = middle - begun, now - middle - away
                piece += request.end() if request.finish_reason else ""
                if piece:
                    left = time.perf_counter()
                    yield request.row, piece
                    away += time.perf_counter() - left
            finished = any([request.finish_reason for request in active])
            if finished:
                step.take_back()
            if finished or any(guesses):
                active, lasts = _drop_finished(active, lasts, cache, guesses)
            if not active or _cancelled(active):
                return
            guesses = [request.guess() for request in active]
            with span("decode", rows=len(active)), in_use:
                rows = step([id for id, _ in lasts], guesses, [request.sampler for request in active])
    finally:
        step.take_back()


def _begin(step: Decoder, requests: Sequence[Request]) -> None:
    """Have the step choose tokens by itself, if nothing but logits and random numbers has a say in any of them."""
    options = [request.options for request in requests]
    asked = [each.logprobs for each in options if each.logprobs is not None]
    plain = all(each.plain for each in options)
    step.begin([each.sampling for each in options] if plain else None, max(asked, default=None))


def read_padded(
    model: Network,
    prompts: Sequence[Sequence[int]],
    cache: DecoderCache,
    chunk: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Tensor | None:
    """Read prompts in chunks. They end together: shorter ones join in later chunks.

    Args:
        model: what reads.
        prompts: ids that the cache doesn't hold yet, the longest first.
        cache: as many rows.
        chunk: tokens of each to read at a time.
        cancelled: whether to stop, asked before each chunk.

    Returns:
        (rows, dim): what the last layer says of the last token of each; None if it was cancelled.
    """
    longest = len(prompts[0])
    hidden = None
    for begin in range(-(-longest // chunk) * chunk, 0, -chunk):  # counted from the end of the prompts
        if cancelled():
            return None
        width = min(chunk, longest - begin + chunk)
        parts = [
            ids[max(0, len(ids) - begin) : len(ids) - begin + chunk] for ids in prompts if len(ids) > begin - chunk
        ]
        hidden = _read(model, parts, width, cache.rows(len(parts)))
    assert hidden is not None
    return hidden[:, -1]


def _read(model: Network, rows: Sequence[Sequence[int]], width: int, cache: DecoderCache) -> Tensor:
    """Read some more ids of each row, padded in front to a width; (rows, width, dim)."""
    padded = np.array([[0] * (width - len(ids)) + list(ids) for ids in rows])
    counts = [len(ids) for ids in rows]
    return model.forward(Tensor(padded), cache, None if min(counts) == width else counts)


def _take(request: Request, scores: Sequence[Array | Choice], guess: Sequence[int]) -> tuple[int, str, int]:
    """Add tokens as long as guesses come true.

    Returns:
        The last token, the text of all, and how many guesses were right.
    """
    pieces = []
    for used, logits in enumerate(scores):
        id, piece = request.add(logits)
        pieces.append(piece)
        if request.finish_reason or used == len(guess) or id != guess[used]:
            break
    return id, "".join(pieces), used


def _drop_finished(
    active: list[Request], lasts: list[tuple[int, int]], cache: DecoderCache, guesses: Sequence[Sequence[int]]
) -> tuple[list[Request], list[tuple[int, int]]]:
    """Take wrong guesses out of the cache, and finished answers out of the batch; the last row fills a gap."""
    if any(guesses):
        wrong = [len(guess) - used for guess, (_, used) in zip(guesses, lasts, strict=True)]
        cache.truncate((cache.lengths - np.array(wrong)).tolist())
    rows = [row for row, request in enumerate(active) if not request.finish_reason]
    if len(rows) == len(active) or not rows:
        return [active[row] for row in rows], lasts
    kept = len(rows)
    order = list(range(kept))
    late = [row for row in rows if row >= kept]
    for place in range(kept):
        if active[place].finish_reason:
            order[place] = late.pop()
    cache.select(order)
    return [active[row] for row in order], [lasts[row] for row in order]


def _cancelled(requests: Sequence[Request]) -> bool:
    """Whether the caller has asked to stop."""
    return any([request.options.cancel is not None and request.options.cancel.is_set() for request in requests])
