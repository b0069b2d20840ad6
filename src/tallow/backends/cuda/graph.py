"""Recordings on a card: CUDA graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import cupy

from tallow.device import Device
from tallow.errors import CaptureError
from tallow.ops import dispatch
from tallow.ops.kv_cache import KVCache

R = TypeVar("R")

_VALUES = ("to_numpy", "tolist")  # operations that give a tensor's value to Python


class _Now(threading.local):
    """What this thread records."""

    graph: Graph | None = None


_now = _Now()


def recording() -> bool:
    """Whether this thread is recording."""
    return _now.graph is not None


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


class Graph:
    """What a function makes a card do, to be done again.

    Its results, and whatever lies between, have memory that nothing else gets.

    Args:
        device: the card.

    Attributes:
        acts: what is to be done on the host at every replay.
    """

    def __init__(self, device: Device) -> None:
        self._device = cupy.cuda.Device(device.index)
        self._pool = cupy.cuda.MemoryPool()
        self._graph: Any = None
        self.acts: list[Callable[[], None]] = []

    def record(self, function: Callable[[], R]) -> R:
        """Record a function, and do once what it recorded. Returns its result.

        Raises:
            CaptureError: for an operation that waits for the card, or uses a library that cannot be recorded.
        """
        if _now.graph is not None:
            raise CaptureError("a recording cannot be made inside another one")
        with self._device:
            stream = cupy.cuda.Stream(non_blocking=True)
            dispatch.observers.append(_checked)
            _now.graph = self
            try:
                with cupy.cuda.using_allocator(self._pool.malloc), stream:
                    result = self._captured(stream, function)
            finally:
                _now.graph = None
                dispatch.observers.remove(_checked)
            self._graph.launch(stream=cupy.cuda.get_current_stream())
        return result

    def _captured(self, stream: Any, function: Callable[[], R]) -> R:
        stream.begin_capture(mode=cupy.cuda.runtime.streamCaptureModeRelaxed)
        try:
            result = function()
        except BaseException:
            try:
                stream.end_capture()
            except cupy.cuda.runtime.CUDARuntimeError:
                pass  # the card knows already that it came to nothing
            raise
        self._graph = stream.end_capture()
        return result

    def __len__(self) -> int:
        """Kernels and copies in the graph."""
        return len(self._graph.get_nodes()) if hasattr(self._graph, "get_nodes") else 1

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
    if op.name in _VALUES:
        raise CaptureError(f"{op.name} cannot be recorded: it gives a tensor's value to Python")
    if op.name == "to_device" and args[0].device.kind == "cpu":
        raise CaptureError(f"{op.name} cannot be recorded: it brings what lies on the CPU now, and never again")
    try:
        return run()
    except RuntimeError as error:
        if isinstance(error, CaptureError):
            raise
        raise CaptureError(f"{op.name} cannot be recorded: {error}") from error
