"""Which of many files are a model in GGUF: by content, by their names' quantisation, with all parts of a split one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from tallow.errors import ModelNotFoundError

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)  # a projector of pictures, statistics for quantising
_TAG = re.compile(r"[\w.-]+")


def is_gguf(path: str) -> bool:
    """Whether a file begins as GGUF does, whatever its name is."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def split_tag(name: str) -> tuple[str, str | None]:
    """``"org/name-GGUF:Q4_K_M"`` -> the part before the colon, and the quantisation; None for a name without one.

    A Windows path is no such name: what follows its colon has a separator in it.
    """
    base, colon, tag = name.rpartition(":")
    return (base, tag) if colon and len(base) > 1 and _TAG.fullmatch(tag) else (name, None)


def gguf_models(files: Iterable[str]) -> dict[str, list[str]]:
    """The models among some files: the first file of each -> all of its files, in order.

    Projectors of pictures (``mmproj``) and ``imatrix`` files are none, nor are models that lack a part.
    """
    models: dict[str, list[str]] = {}
    found = {file for file in files if file.lower().endswith(".gguf") and not _NO_MODEL.search(os.path.basename(file))}
    for file in sorted(found):
        part = _PART.fullmatch(file)
        if part is None:
            models[file] = [file]
        elif int(part[2]) == 1:
            ending = file[-len(".gguf") :]
            parts = [f"{part[1]}-{number:05}-of-{part[3]}{ending}" for number in range(1, int(part[3]) + 1)]
            if found.issuperset(parts):
                models[file] = parts
    return models


def choose_gguf(files: Iterable[str], tag: str | None) -> list[str]:
    """The files of the one model that is meant.

    Args:
        files: names of files, with ``/`` between folders.
        tag: how its name ends (``Q4_K_M``, in any case), or the name of its folder; None for the only one.

    Raises:
        ModelNotFoundError: if there is none, or more than one; the message lists them.
    """
    models = gguf_models(files)
    fitting = {first: parts for first, parts in models.items() if tag is None or has_tag(first, tag)}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    wanted = "" if tag is None else f" for {tag!r}"
    listed = ", ".join(fitting or models) or "none that is whole"
    if fitting:
        raise ModelNotFoundError(
            f"holds several GGUF files{wanted}; load one of {listed}: name the file, or its quantisation after a colon "
            "(name:Q4_K_M)"
        )
    raise ModelNotFoundError(f"holds no GGUF model{wanted}; it has {listed}")


def has_tag(file: str, tag: str) -> bool:
    """Whether a file's name ends in a quantisation, or its folder's is one, in any case."""
    part = _PART.fullmatch(file)
    stem = (part[1] if part else file[: -len(".gguf")]).lower()
    folder, _, name = stem.rpartition("/")
    tag = tag.lower().removesuffix(".gguf")
    return name == tag or name.endswith(("-" + tag, "." + tag, "_" + tag)) or folder.rpartition("/")[2] == tag


def files_under(folder: str) -> list[str]:
    """Names of the files in a folder and those below it, with ``/`` between."""
    found = []
    for place, _, files in os.walk(folder):
        inner = os.path.relpath(place, folder).replace(os.sep, "/")
        found += [file if inner == "." else f"{inner}/{file}" for file in files
                  if os.path.isfile(os.path.join(place, file))]  # fmt: skip
    return found
