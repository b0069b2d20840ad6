"""What a run has done so far, in a file beside its output, so that the next run goes on where it was interrupted."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tallow.errors import ArgumentError

Array = np.ndarray[Any, Any]

_STARTED = time.time_ns()


class Journal:
    """Vectors of files, appended to ``<output>.partial`` as they are made.

    A file that has changed since, by its size or its time, counts as not done.

    Args:
        output: the path of the output.
        settings: what the vectors depend on beside the files.

    Raises:
        ArgumentError: if there is a journal of a run with other settings.
    """

    def __init__(self, output: str, settings: dict[str, Any]) -> None:
        self.path = f"{output}.partial"
        self._places: dict[str, tuple[list[int], int]] = {}  # of each file: its stamp, and where its line begins
        self._file = open(self.path, "a+b")  # noqa: SIM115
        self._end = self._read(settings)
        if self._end == 0:
            self._append(settings)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def has(self, name: str) -> bool:
        """Whether the vector of a file, as it is now, is there."""
        return name in self._places and self._places[name][0] == _stamp(name)

    def add(self, names: Iterable[str], vectors: Iterable[Array]) -> None:
        """Keep vectors of files."""
        for name, vector in zip(names, vectors, strict=True):
            stamp = _stamp(name)
            self._places[name] = (stamp, self._end)
            data = base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
            self._append({"file": name, "stamp": stamp, "vector": data})
        self._file.flush()

    def vectors(self, names: Iterable[str]) -> Iterator[tuple[str, Array]]:
        """The files among these that have a vector, and their vectors, (dim,) float32."""
        for name in names:
            if name in self._places:
                self._file.seek(self._places[name][1])
                data = json.loads(self._file.readline())["vector"]
                yield name, np.frombuffer(base64.b64decode(data), "<f4")

    def remove(self) -> None:
        """The run is over."""
        self._file.close()
        os.remove(self.path)

    def _append(self, entry: dict[str, Any]) -> None:
        self._end += self._file.write(json.dumps(entry).encode() + b"\n")

    def _read(self, settings: dict[str, Any]) -> int:
        """Where new lines begin: behind the last whole one."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):  # the run ended as it was written
                break
            entry = json.loads(line)
            if end == 0 and entry != settings:
                raise ArgumentError(
                    f"{self.path} is of an interrupted run with other settings ({json.dumps(entry)}); "
                    "repeat that run to finish it, or delete the file to begin anew"
                )
            if end:
                self._places[entry["file"]] = (entry["stamp"], end)
            end += len(line)
        self._file.truncate(end)
        return end


def _stamp(name: str) -> list[int]:
    """Size and time of a file; zeros for none. The standard input is another one in each run."""
    if name == "-":
        return [os.getpid(), _STARTED]
    try:
        status = os.stat(name)
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]
