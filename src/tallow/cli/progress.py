"""A progress bar in seconds of audio, on a terminal only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[float, float | None], None]


@contextmanager
def progress_bar(recording: str) -> Iterator[Progress | None]:
    """Show how far a recording has been transcribed, on stderr while the block runs; None if that is no terminal.

    Args:
        recording: its file name.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} s"),
        TextColumn("of {task.fields[length]}"),
        TimeRemainingColumn(),
    )
    # Text printed meanwhile goes above the bar if it goes to the same terminal, and must not if it goes to a file.
    shared = sys.stdout.isatty()
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=shared, redirect_stderr=True
    ) as bar:
        task = bar.add_task(os.path.basename(recording), total=None, length="?")

        def update(seconds: float, total: float | None) -> None:
            length = "?" if total is None else f"{total:.0f} s"
            bar.update(task, completed=seconds, total=total, length=length)

        yield update
