"""Progress bars, in seconds of audio or in things done, on a terminal only."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

Progress = Callable[[float, float | None], None]
Count = Callable[[int], None]

_LENGTH_KNOWN = "{desc}: {percentage:3.0f} % |{bar}| {n:.0f} of {total:.0f} s, {remaining} left"
_LENGTH_UNKNOWN = "{desc}: {n:.0f} s"
_COUNT = "{percentage:3.0f} % |{bar}| {n_fmt} of {total_fmt}, {rate_noinv_fmt}, {remaining} left"


@contextmanager
def progress_bar(recording: str) -> Iterator[Progress | None]:
    """Show how far a recording has been transcribed, on stderr while the block runs; None if that is no terminal.

    Args:
        recording: its file name.
    """
    with _bar(desc=os.path.basename(recording), bar_format=_LENGTH_UNKNOWN) as bar:

        def update(seconds: float, total: float | None) -> None:
            if total is not None:
                bar.total, bar.bar_format = max(total, seconds), _LENGTH_KNOWN
            bar.update(seconds - bar.n)

        yield None if bar is None else update


@contextmanager
def count_bar(what: str, total: int) -> Iterator[Count]:
    """Show how many of ``total`` things are done and how many a second, on stderr while the block runs.

    Args:
        what: their name, in the plural.
        total: how many there are.

    Yields:
        A function to be called with how many are done; it shows nothing if stderr is no terminal.
    """
    with _bar(bar_format=_COUNT, total=total, unit=f" {what}") as bar:
        yield (lambda done: None) if bar is None else (lambda done: bar.update(done - bar.n) and None)


@contextmanager
def _bar(**options: Any) -> Iterator[Any]:
    """A bar of tqdm's that vanishes at the end; None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own is one between processes, for which Python 3.14 starts another process
    with ExitStack() as stack:
        bar = tqdm(leave=False, dynamic_ncols=True, **options)
        stack.callback(bar.close)
        # Text printed meanwhile goes above the bar if it goes to the same terminal, and must not if it goes to a file.
        stack.enter_context(redirect_stderr(stack.enter_context(_Above(sys.stderr, bar))))
        if sys.stdout.isatty():
            stack.enter_context(redirect_stdout(stack.enter_context(_Above(sys.stdout, bar))))
        yield bar


class _Above(io.TextIOBase):
    """A terminal's stream whose lines, each when it is complete, appear above a bar."""

    def __init__(self, stream: TextIO, bar: Any) -> None:
        self._stream, self._bar = stream, bar
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._bar.clear()
            self._stream.writelines(line + "\n" for line in lines)
            self._stream.flush()
            self._bar.refresh()
        return len(text)

    def isatty(self) -> bool:
        return True

    def close(self) -> None:
        if self._begun:
            self.write("\n")
        super().close()
