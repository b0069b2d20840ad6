"""Models that stay loaded, so that asking for one again costs nothing.

``tl.load`` keeps here what it has loaded. Task methods run inside ``with use(self):``, which is how ``unload`` knows
that calls are in flight; both are a dictionary look-up for a model that is not kept here.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import Counter
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
        self.callers: Counter[int] = Counter()  # threads inside calls on it, with how many each
        self.leaving = False


class _UnloadedError(ArgumentError, AttributeError):
    """An ArgumentError for which ``hasattr`` is False."""


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

    May be entered again and again, also by several calls at once and inside one another: what makes many short calls
    looks the model up once. No generator may yield inside, or ``unload`` would wait for one that nobody reads on.

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
                thread, callers = threading.get_ident(), self._entry.callers
                if self._entry.leaving and thread not in callers:  # what is part of a call in flight may still begin
                    raise ArgumentError(_UNLOADED)
                callers[thread] += 1

    def __exit__(self, *error: object) -> None:
        if self._entry is not None:
            with _changed:
                thread, callers = threading.get_ident(), self._entry.callers
                callers[thread] -= 1
                if not callers[thread]:
                    del callers[thread]
                if self._entry.leaving:
                    _changed.notify_all()


def unload(model: Any = None) -> None:
    """Free the memory of a model that ``tl.load`` gave, even where variables still hold it.

    Waits for calls of other threads to end, however long they take (Ctrl-C ends the waiting, and the model stays), and
    lets no new one begin. A stream that is being read is waited for until its next piece is there; reading on, as any
    other use of the model afterwards, is an ArgumentError. Asking ``tl.load`` for it loads it again.

    Args:
        model: the model, or None for all that are loaded.

    Raises:
        ArgumentError: if it is not one that ``tl.load`` has given and that is still loaded; or from inside a call on
            it, such as a ``progress`` function, which would wait for itself.
    """
    with _changed:
        leaving = {
            key: entry
            for key, entry in _entries.items()
            if entry.model is not None and not entry.leaving and (model is None or entry.model is model)
        }
        if model is not None and not leaving:
            raise ArgumentError("tl.unload: not a model that tl.load gave and that is still loaded")
        if any(threading.get_ident() in entry.callers for entry in leaving.values()):
            raise ArgumentError("tl.unload: called from inside a call on the model; unload it when the call has ended")
        for entry in leaving.values():
            entry.leaving = True
        try:
            _changed.wait_for(lambda: not any(entry.callers for entry in leaving.values()))
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
    if "tallow.runtime.encoding" in sys.modules:
        from tallow.runtime.encoding import forget_unloaded

        forget_unloaded()


def resident() -> list[Resident]:
    """The models that are loaded, with the bytes that their weights take, in the order in which they were asked for."""
    with _changed:
        entries = [entry for entry in _entries.values() if entry.model is not None and not entry.leaving]
        return [Resident(entry.name, entry.model, entry.options, entry.model.nbytes) for entry in entries]


def missing(model: Any, name: str) -> AttributeError | None:
    """The error for an attribute that a model lacks because it has been unloaded; None if it has not been."""
    return _UnloadedError(f"{_UNLOADED} (its {name!r} was asked for)") if model in _unloaded else None


def _start_over() -> None:
    """In a process that was forked off: of the threads that use or load models, this one alone is there."""
    global _changed
    _changed = threading.Condition()
    for key, entry in list(_entries.items()):
        entry.leaving = False
        if entry.model is None:
            del _entries[key]
        for thread in set(entry.callers) - {threading.get_ident()}:
            del entry.callers[thread]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
