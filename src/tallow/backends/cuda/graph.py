"""Recordings on a card: CUDA graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import cupy
import numpy as np

from tallow.backends.cuda.memory import allocated, explaining, is_oom, release
from tallow.device import Device
from tallow.errors import CaptureError
from tallow.ops import dispatch
from tallow.ops.kv_cache import KVCache

if TYPE_CHECKING:
    from tallow.backends.cuda.fusion import Append, Norm

R = TypeVar("R")


class _Now(threading.local):
    """What this thread records."""

    graph: Graph | None = None


_now = _Now()


def recording() -> bool:
    """Whether this thread is recording."""
    return _now.graph is not None


def recorded() -> Graph | None:
    """The recording that this thread makes."""
    return _now.graph


def flush() -> None:
    """Launch what waits in this thread's recording: called before anything is launched."""
    now = _now.graph
    if now is not None and now.waiting is not None:
        waiting, now.waiting = now.waiting, None
        waiting.launch()


def on_the_host(act: Callable[[], None]) -> None:
    """Do what belongs to an operation on the host, now and whenever a recording of it is replayed."""
    act()
    if _now.graph is not None:
        _now.graph.acts.append(act)


def grow(cache: KVCache, more: Any) -> None:
    """Note on the host that rows of a cache have grown on the card, now and at every replay."""
    held = cache.lengths.storage

    def act() -> None:
        held[...] += more

    on_the_host(act)
    if _now.graph is not None:
        _now.graph.grown.add(cache.held.storage.data.ptr)


class Graph:
    """What a function makes a card do, to be done again.

    Its results, and whatever lies between, have memory that nothing else gets.

    Args:
        device: the card.

    Attributes:
        acts: what is to be done on the host at every replay.
        waiting: what the next kernel may do on its way; see fusion.py.
        zeroed: words that its kernels share: see ``kernels.zeroed``.
        grown: where the lengths of caches lie on the card that its kernels have changed.
    """

    def __init__(self, device: Device) -> None:
        self._device = cupy.cuda.Device(device.index)
        self._pool = cupy.cuda.MemoryPool()
        self._graph: Any = None
        self.acts: list[Callable[[], None]] = []
        self.waiting: Norm | Append | None = None
        self.zeroed: dict[Any, Any] = {}
        self.grown: set[int] = set()

    def record(self, function: Callable[[], R]) -> R:
        """Record a function, and do once what it recorded. Returns its result.

        Raises:
            CaptureError: for an operation that waits for the card, or uses a library that cannot be recorded.
            OutOfMemoryError: if the card has no room for what lies between.
        """
        if _now.graph is not None:
            raise CaptureError("a recording cannot be made inside another one")
        with self._device, explaining("recording"):
            stream = cupy.cuda.Stream(non_blocking=True)
            dispatch.add_observer(_checked)
            _now.graph = self
            try:
                with cupy.cuda.using_allocator(self._allocate), stream:
                    result = self._captured(stream, function)
            finally:
                _now.graph = None
                dispatch.remove_observer(_checked)
            self._graph.launch(stream=cupy.cuda.get_current_stream())
        return result

    def _captured(self, stream: Any, function: Callable[[], R]) -> R:
        stream.begin_capture(mode=cupy.cuda.runtime.streamCaptureModeRelaxed)
        try:
            result = function()
            flush()
        except BaseException as error:
            self.waiting = None
            try:
                stream.end_capture()
            except cupy.cuda.runtime.CUDARuntimeError:
                pass  # the card knows already that it came to nothing
            if isinstance(error, MemoryError):
                release(error)
                self._pool.free_all_blocks()
            raise
        self._graph = stream.end_capture()
        return result

    def _allocate(self, nbytes: int) -> Any:
        """Memory of the recording's own."""
        return allocated(self._pool.malloc, nbytes)

    def __len__(self) -> int:
        """Kernels and copies in the graph."""
        return len(self._graph.get_nodes()) if hasattr(self._graph, "get_nodes") else 1

    @property
    def nbytes(self) -> int:
        """Bytes that its results, and what lies between, take."""
        return int(self._pool.total_bytes())

    def replay(self) -> None:
        """Do it again."""
        with self._device:
            self._graph.launch(stream=cupy.cuda.get_current_stream())
        for act in self.acts:
            act()


def _checked(
    op: dispatch.Operation, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
) -> Any:  # fmt: skip
    if _now.graph is None:  # another thread
        return run()
    if op.gives_value:
        raise CaptureError(f"{op.name} cannot be recorded: it gives a tensor's value to Python")
    if op.name == "to_device" and args[0].device.kind == "cpu":
        raise CaptureError(f"{op.name} cannot be recorded: it brings what lies on the CPU now, and never again")
    try:
        if _now.graph.waiting is not None and "cuda" not in op.defers and not _gives_view(op, args):
            flush()
        return run()
    except RuntimeError as error:
        if isinstance(error, CaptureError) or is_oom(error):
            raise
        raise CaptureError(f"{op.name} cannot be recorded: {error}") from error


def _gives_view(op: dispatch.Operation, args: tuple[Any, ...]) -> bool:
    """Whether an operation only looks at memory in another way."""
    if len(args) < 2 and op.name in ("getitem", "reshape"):
        return False
    if op.name == "getitem":
        keys = args[1] if isinstance(args[1], tuple) else (args[1],)
        return all(key is None or key is Ellipsis or isinstance(key, int | slice) for key in keys)
    if op.name == "reshape":
        array = args[0].storage
        like = np.lib.stride_tricks.as_strided(np.empty(1, array.dtype), array.shape, array.strides)
        try:
            np.reshape(like, args[1], copy=False)  # refused where numbers would have to move
        except (TypeError, ValueError):
            return False
    return op.gives_view
