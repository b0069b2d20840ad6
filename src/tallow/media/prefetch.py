"""An iterator that works ahead in a thread of its own."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterable
from typing import Generic, TypeVar

from tallow.errors import MediaError

T = TypeVar("T")


class _Shared(Generic[T]):
    """What the thread and its owner share. The thread must not hold the owner, or the owner would never be freed."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.ready: deque[T] = deque()
        self.error: BaseException | None = None
        self.done = False
        self.stopped = False


class Prefetch(Generic[T]):
    """Runs a generator in a background thread, at most ``limit`` items ahead of its reader.

    What the generator raises is raised to the reader, after the items that came before it. The thread ends, and the
    generator's ``finally`` blocks run, when the items are spent, on `close`, when the Prefetch is garbage-collected,
    and at interpreter exit. Waiting for an item can be interrupted (Ctrl-C) at any moment. A process that is forked off
    has no such thread, and can't read on: a MediaError.
    """

    def __init__(self, items: Generator[T, None, None], limit: int) -> None:
        self._shared: _Shared[T] = _Shared()
        self._thread = threading.Thread(
            target=_run, args=(self._shared, items, limit), name="tallow-prefetch", daemon=True
        )
        self._finalizer = weakref.finalize(self, _stop, self._shared, self._thread)
        self._thread.start()

    def __iter__(self) -> Prefetch[T]:
        return self

    def __next__(self) -> T:
        shared = self._shared
        with shared.changed:
            while not shared.ready and not shared.done and not shared.stopped:
                if not self._thread.is_alive():
                    raise MediaError("a recording that was opened before a fork can't be read after it; open it there")
                shared.changed.wait(0.5)  # Windows delivers Ctrl-C between waits only
            if shared.ready:
                shared.changed.notify_all()
                return shared.ready.popleft()
            if shared.error is not None:
                raise shared.error
            raise StopIteration

    def close(self) -> None:
        """Stop the thread, drop what it has ready; harmless when already closed."""
        self._finalizer()


def side_by_side(
    works: Iterable[Generator[T, None, None]], count: int, limit: int
) -> Generator[Prefetch[T], None, None]:
    """Generators that run ahead of their reader, several at once, each in a thread of its own; in their order.

    Args:
        works: taken as there is room.
        count: how many run at once.
        limit: items that each is ahead, at most.
    """
    running: deque[Prefetch[T]] = deque()
    try:
        for work in works:
            running.append(Prefetch(work, limit))
            if len(running) == count:
                yield running[0]
                running.popleft().close()
        while running:
            yield running[0]
            running.popleft().close()
    finally:
        for each in running:
            each.close()


def _run(shared: _Shared[T], items: Generator[T, None, None], limit: int) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            with shared.changed:
                while len(shared.ready) >= limit and not shared.stopped:
                    shared.changed.wait()
                if shared.stopped:
                    break
                shared.ready.append(item)
                shared.changed.notify_all()
        items.close()
    except BaseException as raised:
        error = raised
    with shared.changed:
        shared.error, shared.done = error, True
        shared.changed.notify_all()


def _stop(shared: _Shared[T], thread: threading.Thread) -> None:
    with shared.changed:
        shared.stopped = True
        shared.ready.clear()
        shared.changed.notify_all()
    if thread.is_alive():  # not so when Ctrl-C came before its start
        thread.join(timeout=1.0)  # not for ever: it may be waiting for a pipe that nobody writes to
