"""How much memory there is, and how much of a prompt is read at a time."""

from __future__ import annotations

import os

from tallow.device import CPU, Device

CHUNK = {"cpu": 512, "cuda": 2048}
"""Tokens of each prompt that are read at a time: more only where so many cores have too little to do with fewer."""


def free_bytes(device: Device = CPU) -> int | None:
    """Bytes that a device has free for a model; None if it cannot be told.

    On the CPU: what the kernel says is available, or what the control group (container) of this process leaves, if that
    is less. Pages of cached files, which can be dropped, count as free.
    """
    if device.kind != "cpu":
        from tallow.runtime.gpu import memory_info

        return memory_info(device).free
    available = _meminfo("MemAvailable")
    limits = [available] if available is not None else []
    limits += _cgroup_rooms()
    return min(limits, default=None)


def _meminfo(key: str, path: str = "/proc/meminfo") -> int | None:
    for line in _read(path).splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None


def _cgroup_rooms(process: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> list[int]:
    """What every control group that this process is in leaves it, for those that have a limit."""
    rooms = []
    for line in _read(process).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, usage = os.path.join(root, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            folder = os.path.join(base, *parts[:depth])
            most, used = _read(os.path.join(folder, limit)).strip(), _read(os.path.join(folder, usage)).strip()
            if most.isdigit() and used.isdigit():
                rooms.append(max(0, int(most) - int(used) + _droppable(folder)))
    return rooms


def _droppable(folder: str) -> int:
    """Bytes of cached files in a control group, which the system gives up before it runs out."""
    fields = dict(line.split() for line in _read(os.path.join(folder, "memory.stat")).splitlines())
    return sum(int(fields.get(name, 0)) for name in ("inactive_file", "active_file"))


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
