"""Encoders: modules that make a tensor of a tensor, called again and again with the same shapes."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from tallow.device import Device
from tallow.errors import CaptureError, OutOfMemoryError
from tallow.runtime.capture import Recording
from tallow.runtime.gpu import Arriving
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]
logger = logging.getLogger("tallow")
Encoder = Callable[[Tensor], Tensor]  # a module, which can be referred to weakly
MAX_SHAPES = 4  # whose recordings, and with them their intermediate results, are kept


def encode(encoder: Encoder, x: Tensor) -> Tensor:
    """``encoder(x)``; on a card it is recorded when a shape comes for the second time, and then replayed.

    A card does the work of a small batch faster than Python asks for it. Recordings go with the encoder's weights, and
    where memory lacks; ``tl.memory_info`` counts what they take as free.

    Args:
        encoder: reads nothing that changes but x.
        x: lies where the encoder's weights do.
    """
    if x.device.kind == "cpu":
        return encoder(x)
    with _lock:
        if encoder not in _recorded:
            _recorded[encoder] = _Recorded(encoder)
        recorded = _recorded[encoder]
    return recorded(x)


B = TypeVar("B")


def pipelined(work: Callable[[B], Tensor], batches: Iterable[B]) -> Iterator[tuple[B, Array]]:
    """Work on batches, and hand out what came of each; a card is given the next batch before it is waited for.

    Args:
        work: makes floating-point numbers of a batch.
        batches: come while the card works on those before.

    Yields:
        Each batch and its result in float32.
    """
    begun: deque[tuple[B, Arriving | Tensor]] = deque()

    def first() -> tuple[B, Array]:
        batch, result = begun.popleft()
        values = result.numpy() if isinstance(result, Tensor) else result.wait()
        return batch, values.astype(np.float32)

    for batch in batches:
        result = work(batch)
        on_card = result.device.kind == "cuda"
        begun.append((batch, Arriving(result) if on_card else result))
        if len(begun) > on_card:
            yield first()
    while begun:
        yield first()


def evict() -> None:
    """Let go of all recordings; shapes that come again are recorded again."""
    with _lock:
        let_go = [recorded.clear() for recorded in _recorded.values()]
    del let_go  # which frees their memory, while nobody waits for the lock


def forget_unloaded() -> None:
    """Let go of the recordings of encoders that ``tl.unload`` has emptied, though somebody still holds the shell."""
    with _lock:
        let_go = [_recorded.pop(encoder) for encoder in list(_recorded) if not vars(encoder)]
    del let_go


def nbytes(device: Device) -> int:
    """Bytes that recordings take on a card."""
    with _lock:
        return sum(recorded.nbytes(device) for recorded in _recorded.values())


class _Recorded:
    """The recordings of an encoder, which it does not keep alive, nor they it."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = weakref.ref(encoder)
        self._known: OrderedDict[Any, _Known] = OrderedDict()  # read and changed under the lock of all
        self._lock = threading.Lock()  # a recording has one input and one result
        self._free: Any = None  # an event: the last input has been read, and its result copied
        self._recordable = True

    def __call__(self, x: Tensor) -> Tensor:
        with self._lock:
            key = (x.shape, x.dtype)
            with _lock:
                known, found = key in self._known, self._known.get(key)
            if found is None and known and self._recordable:
                found = self._record(x)
            self._remember(key, found)
            if found is None:
                return _run(self._encoder, x)
            return self._replay(*found, x)

    def _replay(self, read: Tensor, recording: Recording[Tensor], x: Tensor) -> Tensor:
        import cupy

        from tallow.backends.cuda.copy import copy_into
        from tallow.backends.cuda.operations import on_card

        with on_card(x.device):
            stream = cupy.cuda.get_current_stream()
            if self._free is not None:
                stream.wait_event(self._free)  # another stream may still be at the last one
            copy_into(read.storage, x.storage)
            result = recording.replay().copy()
            self._free = stream.record()
        return result

    def _remember(self, key: Any, found: _Known) -> None:
        with _lock:
            self._known[key] = found
            self._known.move_to_end(key)
            while len(self._known) > MAX_SHAPES:
                self._known.popitem(last=False)

    def clear(self) -> list[_Known]:
        """Forget all shapes; gives what there was of them."""
        let_go = list(self._known.values())
        self._known.clear()
        return let_go

    def nbytes(self, device: Device) -> int:
        """Bytes that the recordings take on a card."""
        return sum(found[1].nbytes for found in self._known.values() if found and found[0].device is device)

    def _record(self, x: Tensor) -> _Known:
        from tallow.backends.cuda.memory import register_eviction

        register_eviction(evict)
        read, encoder = x.copy(), self._encoder
        try:
            # A function that held this object would make a cycle, and memory that waits for the collector.
            return read, Recording(lambda: _run(encoder, read), x.device)
        except (CaptureError, OutOfMemoryError) as error:
            logger.debug("encoding goes on without recordings: %s", error)
            self._recordable = False
            with _lock:
                self.clear()  # whose memory may be what lacks
            return None


def _run(encoder: weakref.ref[Encoder], x: Tensor) -> Tensor:
    found = encoder()
    assert found is not None
    return found(x)


_Known = tuple[Tensor, Recording[Tensor]] | None
"""What an encoder reads, and what it does; None for a shape that has come once."""
_recorded: weakref.WeakKeyDictionary[Encoder, _Recorded] = weakref.WeakKeyDictionary()
_lock = threading.RLock()  # memory may lack, and recordings be freed, wherever the collector runs
