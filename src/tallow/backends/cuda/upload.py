"""Numbers on their way to a card: through pinned memory that is kept, on a stream of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cupy
import numpy as np

import tallow.backends.cpu  # noqa: F401  # tells the native module about NumPy
from tallow import _cpu
from tallow.backends.cuda.kernels import NAMES

PIECE = 16 << 20
"""Bytes that go to the card at a time: so many that what is done for each piece costs next to nothing."""
_PIECES = 3
_WAITING = 8  # matrices, at most, that wait for the thread


class _Piece:
    """Memory that is filled (from a file, perhaps) and then read by the card."""

    def __init__(self) -> None:
        self.bytes = np.frombuffer(cupy.cuda.alloc_pinned_memory(PIECE), np.uint8, PIECE)
        self.sent = cupy.cuda.Event(disable_timing=True)


class Uploads:
    """The way to one card. Pinning memory takes longer than copying it, so it is done once in a process.

    One piece is filled by all threads while the card reads the ones before.

    Args:
        device: the card's number.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._thread = ThreadPoolExecutor(1, "tallow-uploads")
        self._room = threading.Semaphore(_WAITING)
        self._last: Future[Any] | None = None
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pieces: list[_Piece] = []
        self._sent = 0  # pieces so far
        self._lock = threading.Lock()

    def bring(self, array: np.ndarray[Any, Any], target: Any) -> None:
        """Copy an array to the current card, where it is converted to the target's type.

        What is asked of the card afterwards waits for it; the caller does not, and may change the array.

        Args:
            array: of any strides and alignment.
            target: as many numbers on the card, without gaps.
        """
        now = cupy.cuda.get_current_stream()
        now.wait_event(self._copied([(array, target)], now.record()))

    def bring_later(self, pairs: Sequence[tuple[np.ndarray[Any, Any], Any]]) -> Callable[[], None]:
        """The same for arrays and their targets, in a thread, while the caller prepares the next.

        Args:
            pairs: of which the arrays do not change.

        Returns:
            What waits until all of them have arrived. It must be called before anything is asked of the targets.
        """
        ready = cupy.cuda.get_current_stream().record()

        def copy() -> Any:
            try:
                with cupy.cuda.Device(self._device):
                    return self._copied(pairs, ready)
            finally:
                self._room.release()

        self._room.acquire()
        copied = self._last = self._thread.submit(copy)
        return lambda: copied.result().synchronize()

    def settle(self) -> None:
        """Wait until all has arrived."""
        if self._last is not None:
            self._last.result().synchronize()

    def _copied(self, pairs: Sequence[tuple[np.ndarray[Any, Any], Any]], ready: Any) -> Any:
        """Ask for copies after an event, when the targets' memory is free; the event that they are done."""
        with self._lock:
            self._stream.wait_event(ready)
            try:
                for array, target in pairs:
                    self._copy(array, target)
            except BaseException:
                self._stream.synchronize()  # the targets' memory goes to others
                raise
            return self._stream.record()

    def _copy(self, array: np.ndarray[Any, Any], target: Any) -> None:
        if array.dtype != target.dtype and not (array.dtype in NAMES and target.dtype in NAMES):
            array = array.astype(target.dtype)
        source, flat = np.ascontiguousarray(array).reshape(-1), target.reshape(-1)
        for begin in range(0, source.size, PIECE // source.itemsize):
            end = min(begin + PIECE // source.itemsize, source.size)
            self._send(source[begin:end], flat[begin:end])

    def _send(self, source: np.ndarray[Any, Any], target: Any) -> None:
        which = self._sent % _PIECES
        if which == len(self._pieces):
            self._pieces.append(_Piece())
        piece = self._pieces[which]
        piece.sent.synchronize()  # at once, the first time
        _cpu.copy_bytes(piece.bytes[: source.nbytes], source.view(np.uint8))
        with self._stream:
            arrived = target if source.dtype == target.dtype else cupy.empty(source.shape, source.dtype)
            arrived.data.copy_from_host_async(piece.bytes.ctypes.data, source.nbytes, self._stream)
            piece.sent.record(self._stream)
            if arrived is not target:
                target[...] = arrived
        self._sent += 1


_uploads: dict[int, Uploads] = {}


def uploads() -> Uploads:
    """The way to the current card."""
    index = cupy.cuda.runtime.getDevice()
    if index not in _uploads:
        _uploads.setdefault(index, Uploads(index))
    return _uploads[index]


def to_card(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> Any:
    """An array copied to the current card in another type."""
    target = cupy.empty(array.shape, dtype)
    uploads().bring(array, target)
    return target
