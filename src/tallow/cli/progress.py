"""A progress bar in seconds of audio, on a terminal only."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

Progress = Callable[[float, float | None], None]

_LENGTH_KNOWN = "{desc}: {percentage:3.0f} % |{bar}| {n:.0f} of {total:.0f} s, {remaining} left"
_LENGTH_UNKNOWN = "{desc}: {n:.0f} s"


@contextmanager
def progress_bar(recording: str) -> Iterator[Progress | None]:
    """Show how far a recording has been transcribed, on stderr while the block runs; None if that is no terminal.

    Args:
        recording: its file name.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own is one between processes, for which Python 3.14 starts another process
    with ExitStack() as stack:
        bar = tqdm(desc=os.path.basename(recording), bar_format=_LENGTH_UNKNOWN, leave=False, dynamic_ncols=True)
        stack.callback(bar.close)
        # Text printed meanwhile goes above the bar if it goes to the same terminal, and must not if it goes to a file.
        stack.enter_context(redirect_stderr(stack.enter_context(_Above(sys.stderr, bar))))
        if sys.stdout.isatty():
            stack.enter_context(redirect_stdout(stack.enter_context(_Above(sys.stdout, bar))))

        def update(seconds: float, total: float | None) -> None:
            if total is not None:
                bar.total, bar.bar_format = max(total, seconds), _LENGTH_KNOWN
            bar.update(seconds - bar.n)

        yield update


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
