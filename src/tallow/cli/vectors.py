"""Vectors as files: NumPy's, Parquet, or JSON lines."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tallow.errors import ArgumentError

Array = np.ndarray[Any, Any]
Rows = Iterable[tuple[str, Array]]  # names and their vectors, (dim,) float32

FORMATS = (".npy", ".parquet", ".jsonl")
_GROUP = 4096  # rows of a Parquet file that are written at once


def check_output(path: str) -> None:
    """Raise ArgumentError for a file in a folder that is not there, or for Parquet without pyarrow to write it."""
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise ArgumentError(f"{path}: there is no folder {folder}; make it first")
    if path.endswith(".parquet"):
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ArgumentError(
                f"{path}: to write Parquet takes pyarrow, which is not installed; 'pip install pyarrow', "
                "or write *.npy or *.jsonl"
            ) from None


def write(path: str, key: str, rows: Rows, count: int) -> None:
    """Write a file of ``FORMATS``, whole or not at all.

    Args:
        path: its ending says the format. Beside a ``.npy``, which holds vectors only, ``<path>.txt`` names the rows.
        key: what names are called in the other formats: ``"file"`` or ``"text"``.
        rows: at least one.
        count: how many.
    """
    temporary = f"{path}.writing"
    try:
        if path.endswith(".npy"):
            _write_numpy(temporary, f"{path}.txt" if key == "file" else None, rows, count)
        elif path.endswith(".parquet"):
            _write_parquet(temporary, key, rows)
        else:
            with open(temporary, "w", encoding="utf-8") as file:
                file.writelines(json_line(key, name, vector) + "\n" for name, vector in rows)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def json_line(key: str, name: str, vector: Array) -> str:
    """A row as JSON."""
    entry = {key: name, "vector": [round(float(x), 7) for x in vector]}
    return json.dumps(entry, ensure_ascii=not _is_unicode(name))


def _write_numpy(path: str, names_path: str | None, rows: Rows, count: int) -> None:
    iterator = iter(rows)
    first = next(iterator)
    names = []
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, len(first[1]))}
        np.lib.format.write_array_header_1_0(file, header)
        for name, vector in itertools.chain([first], iterator):
            names.append(name)
            file.write(np.asarray(vector, "<f4").tobytes())
    if names_path is not None:
        with open(names_path, "w", encoding="utf-8", errors="surrogateescape") as text:
            text.writelines(name + "\n" for name in names)


def _write_parquet(path: str, key: str, rows: Rows) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    writer = None
    try:
        for group in _groups(rows):
            vectors = np.stack([vector for _, vector in group])
            names = [name if _is_unicode(name) else os.fsencode(name).decode(errors="replace") for name, _ in group]
            lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
            table = pa.table({key: pa.array(names, pa.string()), "vector": lists})
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _groups(rows: Rows) -> Iterator[list[tuple[str, Array]]]:
    iterator = iter(rows)
    while group := list(itertools.islice(iterator, _GROUP)):
        yield group


def _is_unicode(name: str) -> bool:
    """Whether a file's name is text; on POSIX it may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
