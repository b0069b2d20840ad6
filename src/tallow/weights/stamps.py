"""Remembers what was found out about files that have not changed since, in ``~/.cache/tallow/stamps.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any


def remembered(path: str, find_out: Callable[[str], str]) -> str:
    """What ``find_out(path)`` says, asked again only if the file's size, times or inode have changed.

    A cache that cannot be read or written is no error: the file is then looked at each time.
    """
    status = os.stat(path)
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    key = os.path.realpath(path)
    known = _load()
    entry = known.get(key)
    if isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp and isinstance(entry[1], str):
        return entry[1]
    answer = find_out(path)
    known[key] = [stamp, answer]
    _save({name: value for name, value in known.items() if os.path.exists(name)})
    return answer


def cache_folder() -> str:
    """Tallow's own cache: ``$XDG_CACHE_HOME/tallow`` or ``~/.cache/tallow``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "tallow")


def _load() -> dict[str, Any]:
    try:
        with open(os.path.join(cache_folder(), "stamps.json"), "rb") as file:
            known = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _save(known: dict[str, Any]) -> None:
    path = os.path.join(cache_folder(), "stamps.json")
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(cache_folder(), mode=0o700, exist_ok=True)
        with open(temporary, "w") as file:
            json.dump(known, file)
        os.replace(temporary, path)
    except OSError:
        pass
