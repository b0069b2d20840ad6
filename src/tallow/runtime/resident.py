"""Models that stay loaded, so that asking for one again costs nothing.

``tl.load`` keeps here what it has loaded. Task methods run inside ``with use(self):``, which is how ``unload`` knows
that calls are in flight; both are a dictionary look-up for a model that is not kept here.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from tallow.errors import ArgumentError


class Resident(NamedTuple):
    """One loaded model, as ``tl.resident()`` lists it.

    Attributes:
        name: what was asked for.
        model: the model itself.
        options: device, dtype and quantisation.
        nbytes: bytes that its weights take.
    """

    name: str
    model: Any
    options: tuple[str, ...]
    nbytes: int

    def __repr__(self) -> str:  # a line, without the tree of modules
        kind = type(self.model).__name__
        return f"Resident(name={self.name!r}, model={kind}(…), options={self.options}, nbytes={self.nbytes})"


class _Entry:
    """A model that is being loaded (``model`` is None) or is there."""

    def __init__(self, name: str, options: tuple[str, ...]) -> None:
        self.name = name
        self.options = options
        self.model: Any = None
        self.calls = 0
        self.leaving = False


_UNLOADED = "this model has been unloaded; load it again with tl.load"
_changed = threading.Condition()
_entries: dict[Hashable, _Entry] = {}
_unloaded: weakref.WeakSet[Any] = weakref.WeakSet()


def keep(key: Hashable, name: str, options: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """The model kept under ``key``; made, and then kept, if there is none.

    Threads that ask for the same at once wait for the one that makes it. A ``make`` that fails is not remembered: its
    error goes to its caller, and the next in line tries.

    Args:
        key: what tells models apart.
        name: for ``resident``.
        options: for ``resident``.
        make: loads the model.
    """
    with _changed:
        while (entry := _entries.get(key)) is not None:
            if entry.model is not None and not entry.leaving:
                return entry.model
            _changed.wait()
        entry = _entries[key] = _Entry(name, options)
    try:
        model = make()
    except BaseException:
        with _changed:
            del _entries[key]
            _changed.notify_all()
        raise
    with _changed:
        entry.model = model
        _changed.notify_all()
    return model


class use:  # noqa: N801  (reads as a statement)
    """``with use(model):`` says that a call on a model is in flight, so that ``unload`` waits for its end.

    May be entered again and again, also by several calls at once: what makes many short calls looks the model up once.

    Raises:
        ArgumentError: if the model has been unloaded.
    """

    __slots__ = ("_entry",)

    def __init__(self, model: Any) -> None:
        with _changed:
            self._entry = next((entry for entry in _entries.values() if entry.model is model), None)
            if model in _unloaded:
                raise ArgumentError(_UNLOADED)

    def __enter__(self) -> None:
        if self._entry is not None:
            with _changed:
                if self._entry.leaving:
                    raise ArgumentError(_UNLOADED)
                self._entry.calls += 1

    def __exit__(self, *error: object) -> None:
        if self._entry is not None:
            with _changed:
                self._entry.calls -= 1
                if self._entry.leaving:
                    _changed.notify_all()


def unload(model: Any = None) -> None:
    """Free the memory of a model that ``tl.load`` gave, even where variables still hold it.

    Waits for calls in flight to end, and lets no new one begin. Using the model afterwards is an ArgumentError; asking
    ``tl.load`` for it loads it again. Must not be called from inside a call on that model.

    Args:
        model: the model, or None for all that are loaded.

    Raises:
        ArgumentError: if it is not one that ``tl.load`` has given and that is still loaded.
    """
    with _changed:
        leaving = {
            key: entry
            for key, entry in _entries.items()
            if entry.model is not None and not entry.leaving and (model is None or entry.model is model)
        }
        if model is not None and not leaving:
            raise ArgumentError("tl.unload: not a model that tl.load gave and that is still loaded")
        for entry in leaving.values():
            entry.leaving = True
        try:
            _changed.wait_for(lambda: not any(entry.calls for entry in leaving.values()))
        except BaseException:  # Ctrl-C while waiting: they stay
            for entry in leaving.values():
                entry.leaving = False
            _changed.notify_all()
            raise
        for key, entry in leaving.items():
            del _entries[key]
            _unloaded.add(entry.model)
            vars(entry.model).clear()  # the weights go, whoever still holds the shell
        _changed.notify_all()


def resident() -> list[Resident]:
    """The models that are loaded, with the bytes that their weights take, in the order in which they were asked for."""
    with _changed:
        entries = [entry for entry in _entries.values() if entry.model is not None and not entry.leaving]
        return [Resident(entry.name, entry.model, entry.options, entry.model.nbytes) for entry in entries]
