"""What a model on a card keeps from one call for the next: the cache of keys and values, and the step recorded over it.

For Qwen3-0.6B on an H100 they take 4 ms and 17 ms to make, more than it takes to read a short prompt. On the CPU there
is nothing to gain: a cache is address space there, and a recording is made in the time of the step.

A call takes out what is kept and hands it back when it has ended, so no two calls have the same; one that is begun
meanwhile makes its own. A model keeps one cache at most, until its weights go. Where memory runs out, all that is kept
is given up before the caller is told, and so ``tl.memory_info`` counts it as free.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeVar

from tallow.device import CPU, Device
from tallow.dtypes import DType, as_dtype
from tallow.engine.kv_cache import DecoderCache, position_nbytes
from tallow.engine.step import Decoder
from tallow.errors import OutOfMemoryError, TallowError
from tallow.runtime.gpu import kept_bytes, memory_info

if TYPE_CHECKING:
    from tallow.engine.network import Network
    from tallow.nn.module import Module

SHARE = 1 / 16
"""Of a card's memory, that a cache may take to be kept. Other programs on the card cannot ask for it back, and a larger
one is of a call that takes seconds, beside which its making is nothing."""
_MIN_ROOM = 512  # positions: as many as a short prompt and an answer of the usual 256 tokens take

T = TypeVar("T")
_pool: weakref.WeakKeyDictionary[Module, Decoder] = weakref.WeakKeyDictionary()
"""By a part of each model, which dies with its weights: ``tl.unload`` frees them though a user still has the model."""
_lock = threading.RLock()  # streams that are collected hand back what they have, wherever the collector finds them


def acquire(model: Network, rows: int, positions: int, dtype: str) -> Decoder:
    """A step over an empty cache: what the model has kept, where it fits, else a new one.

    Args:
        model: whose step it is.
        rows: of the cache.
        positions: that each of them may need.
        dtype: how keys and values are stored; see ``LanguageModel.new_cache``.

    Raises:
        OutOfMemoryError: if there is no room for a cache.
    """
    if model.device is CPU:
        return Decoder(model, model.new_cache(rows, positions, dtype))
    stored = as_dtype(model.cache_dtype(dtype))
    with _lock:
        step = _pool.pop(model.norm, None)
    if step is not None and _fits(step.cache, rows, positions, stored):
        step.cache.restart(rows)
        return step
    step = None  # the new one may need its memory
    try:
        return Decoder(model, model.new_cache(rows, _roomy(model, rows, positions, stored), dtype))
    except OutOfMemoryError:
        return Decoder(model, model.new_cache(rows, positions, dtype))


def release(model: Network, step: Decoder) -> None:
    """Hand back what ``acquire`` gave, to be kept if it is worth it. Nobody may use it any more."""
    cache, weights = step.cache, getattr(model, "norm", None)
    if weights is None or cache.device is CPU or not step.recordable:  # unloaded, or nothing is gained
        return
    if sys.is_finalizing():  # a stream that nobody read to its end: nothing can be imported any more
        return
    from tallow.backends.cuda.memory import register_eviction

    with contextlib.suppress(TallowError):  # the answer is there, whatever becomes of this
        if cache.nbytes <= _most(cache.device) and register_eviction(evict):
            with _lock:
                _pool[weights] = step


def releasing(pieces: Generator[T, None, None], give_back: Callable[[], None]) -> Generator[T, None, None]:
    """What a generator yields. When it has ended, or its reader wants no more, what was lent for it is given back.

    After an error it is not: whatever was amidst a step then may be in any state.
    """
    try:
        yield from pieces
    except GeneratorExit:
        give_back()
        raise
    give_back()


def evict() -> None:
    """Let go of all that models keep."""
    with _lock:
        steps = list(_pool.values())
        _pool.clear()
    del steps  # which frees their memory, while nobody waits for the lock


def nbytes(device: Device) -> int:
    """Bytes of the caches that are kept on a card."""
    with _lock:
        return sum(step.cache.nbytes for step in _pool.values() if step.cache.device is device)


kept_bytes.append(nbytes)


def _fits(cache: DecoderCache, rows: int, positions: int, dtype: DType) -> bool:
    return cache.max_rows >= rows and cache.capacity >= positions and cache.dtype is dtype


def _roomy(model: Network, rows: int, positions: int, dtype: DType) -> int:
    """Positions to make a cache for that will be kept: a power of two, so that longer calls find room in it too."""
    config = model.config
    room = min(max(_MIN_ROOM, 1 << (positions - 1).bit_length()), model.context)
    each = position_nbytes(config.num_hidden_layers, config.num_key_value_heads, config.head_dim, dtype)
    return max(positions, room) if rows * room * each <= _most(model.device) else positions


@functools.cache
def _most(device: Device) -> int:
    """Bytes of a cache that is kept."""
    return int(memory_info(device).total * SHARE)
