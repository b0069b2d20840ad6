"""What the commands for sounds and pictures share: which files, and what becomes of those that cannot be read."""

from __future__ import annotations

import functools
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, BinaryIO

from tallow.cli import complain
from tallow.cli.language import interruptible
from tallow.errors import ArgumentError, MediaError

STDIN = "-"  # the name that means the standard input

# What counts in a folder; a file that is named itself is read whatever it is called.
ENDINGS = {
    "photos": "avif bmp gif jfif jpeg jpg png tif tiff webp",
    "sounds": """3gp aac ac3 aif aifc aiff amr ape au avi caf eac3 flac flv g722 gsm m2ts m4a m4b mka mkv mov mp2 mp3
        mp4 mpeg mpg mts oga ogg opus ra sln swf ts tta voc vob w64 wav weba webm wma wmv wv""",
}


def find_files(paths: Sequence[str], kind: str) -> list[str]:
    """Files as they are named, and those of folders and the folders within, in order; each once.

    Args:
        paths: files and folders. Hidden ones within folders are left out. ``-`` is the standard input.
        kind: of ``ENDINGS``, which a folder's files must have.

    Raises:
        MediaError: for a folder that has no such file, or for a standard input that holds nothing.
        ArgumentError: for a standard input that is a terminal.
    """
    endings = tuple(f".{ending}" for ending in ENDINGS[kind].split())
    found: dict[str, None] = {}
    for path in paths:
        if path == STDIN:
            opened(path)  # what is wrong with it is told before a model is loaded
        if path == STDIN or not os.path.isdir(path):
            found[path] = None
            continue
        inside = [name for name in _walk(path) if name.lower().endswith(endings)]
        if not inside:
            raise MediaError(f"{path}: a folder without {kind}: no file in it ends in {', '.join(endings)}")
        found.update(dict.fromkeys(inside))
    return list(found)


def opened(name: str) -> str | BinaryIO:
    """What is read for a name: the file of that name; for ``-`` all of the standard input, from its beginning.

    Raises:
        MediaError: for a standard input that holds nothing.
        ArgumentError: for one that is a terminal.
    """
    if name != STDIN:
        return name
    whole = _spooled(sys.stdin)
    whole.seek(0)
    return whole


@functools.cache
def _spooled(stream: Any) -> BinaryIO:
    """A stream's bytes as a temporary file, for many formats are read with jumps."""
    if stream is None or stream.isatty():
        raise ArgumentError("- reads the standard input, which is a terminal; pipe a file into it, or name a file")
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream.buffer, file, 1 << 20)
        if not file.tell():
            raise MediaError("standard input: nothing in it; pipe a file into it, or name a file")
        file.flush()
        raw = io.FileIO(os.dup(file.fileno()))
    raw.name = "standard input"  # what messages call it
    return io.BufferedReader(raw)


def _walk(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(files) if not name.startswith("."))


class Streaming:
    """Files that a model works on without a pause, of which those that cannot be read are told and left out.

    Args:
        stream: takes the names of files; gives the number of each, in any order, and its result or a MediaError.
        batch_size: results at once.
    """

    def __init__(
        self, stream: Callable[[Sequence[str]], Generator[tuple[int, Any], None, None]], batch_size: int
    ) -> None:
        self._stream, self._batch_size = stream, batch_size
        self.failed = 0

    def results(self, files: Sequence[str], count: Callable[[int], None]) -> Iterator[tuple[list[str], Sequence[Any]]]:
        """Names and results of a batch after another, without those of files that cannot be read.

        Ctrl-C ends it behind the next result; a second Ctrl-C ends it at once.

        Args:
            files: their names.
            count: called with how many are done.
        """
        names: list[str] = []
        results: list[Any] = []
        with interruptible() as stop, closing(self._stream(files)) as found:
            for done, (i, result) in enumerate(found, 1):
                if isinstance(result, MediaError):
                    complain(result)
                    self.failed += 1
                else:
                    names.append(files[i])
                    results.append(result)
                count(done)
                if len(names) >= self._batch_size or (names and stop.is_set()):
                    yield names, results
                    names, results = [], []
                if stop.is_set():
                    raise KeyboardInterrupt
            if names:
                yield names, results


class Reading:
    """Files in batches, of which those that cannot be read are told and left out.

    Args:
        work: takes the names of several files, and a function to be called with the number of each that is done; gives
            a result for each. Raises MediaError or OSError if one cannot be read.
        batch_size: files at once.
    """

    def __init__(self, work: Callable[[list[str], Callable[[int], None]], Sequence[Any]], batch_size: int) -> None:
        self._work, self._batch_size = work, batch_size
        self.failed = 0

    def results(self, files: Sequence[str], count: Callable[[int], None]) -> Iterator[tuple[list[str], Sequence[Any]]]:
        """Names and results of a batch after another, without those of files that cannot be read.

        Ctrl-C ends it behind the file that is being read, since a decoder that is interrupted takes its file for a
        broken one; a second Ctrl-C ends it at once.

        Args:
            files: their names.
            count: called with how many are done.
        """
        with interruptible() as stop:
            for begin in range(0, len(files), self._batch_size):
                batch = list(files[begin : begin + self._batch_size])

                def done(i: int, begin: int = begin) -> None:
                    count(begin + i + 1)
                    if stop.is_set():
                        raise KeyboardInterrupt

                try:
                    results = self._work(batch, done)
                except (MediaError, OSError):  # one of them; which, is seen when each is read alone
                    batch, results = self._one_by_one(batch, done)
                if batch:
                    yield batch, results
                if stop.is_set():
                    raise KeyboardInterrupt

    def _one_by_one(self, batch: Sequence[str], done: Callable[[int], None]) -> tuple[list[str], Sequence[Any]]:
        good, results = [], []
        for i, name in enumerate(batch):
            try:
                results.append(self._work([name], lambda _: None)[0])
                good.append(name)
            except (MediaError, OSError) as error:
                complain(error)
                self.failed += 1
            done(i)
        return good, results
