"""Numbers on their way to a card: through pinned memory that is kept, on a stream of their own."""

from __future__ import annotations

import threading
from typing import Any

import cupy
import numpy as np

import tallow.backends.cpu  # noqa: F401  # tells the native module about NumPy
from tallow import _cpu
from tallow.backends.cuda.kernels import NAMES

PIECE = 16 << 20
"""Bytes that go to the card at a time: so many that what is done for each piece costs next to nothing."""
_PIECES = 3


class _Piece:
    """Memory that is filled (from a file, perhaps) and then read by the card."""

    def __init__(self) -> None:
        self.bytes = np.frombuffer(cupy.cuda.alloc_pinned_memory(PIECE), np.uint8, PIECE)
        self.sent = cupy.cuda.Event(disable_timing=True)


class Uploads:
    """The way to one card. Pinning memory takes longer than copying it, so it is done once in a process.

    One piece is filled by all threads while the card reads the ones before.
    """

    def __init__(self) -> None:
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
        if array.dtype != target.dtype and not (array.dtype in NAMES and target.dtype in NAMES):
            array = array.astype(target.dtype)
        source, flat = np.ascontiguousarray(array).reshape(-1), target.reshape(-1)
        now = cupy.cuda.get_current_stream()
        with self._lock:
            self._stream.wait_event(now.record())  # who had the target's memory before may still be at work
            try:
                for begin in range(0, source.size, PIECE // source.itemsize):
                    end = min(begin + PIECE // source.itemsize, source.size)
                    self._send(source[begin:end], flat[begin:end])
            except BaseException:
                self._stream.synchronize()  # the target's memory goes to others
                raise
            now.wait_event(self._stream.record())

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


def bring(array: np.ndarray[Any, Any], target: Any) -> None:
    """See ``Uploads.bring``."""
    index = cupy.cuda.runtime.getDevice()
    if index not in _uploads:
        _uploads.setdefault(index, Uploads())
    _uploads[index].bring(array, target)


def to_card(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> Any:
    """An array copied to the current card in another type."""
    target = cupy.empty(array.shape, dtype)
    bring(array, target)
    return target
