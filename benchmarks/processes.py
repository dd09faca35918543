"""What a process and its children use: processor time and resident memory, from /proc."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_PROC = Path("/proc")


def reset_peak(pid: int) -> None:
    """Let the kernel count the peaks of resident memory anew (proc(5), clear_refs)."""
    for one in _family(pid):
        with contextlib.suppress(OSError):  # it has ended
            (_PROC / str(one) / "clear_refs").write_text("5")


def peak(pid: int) -> int:
    """Return the peak of resident memory since `reset_peak`, in bytes (VmHWM).

    Where a process has children that work for it, it is that of the largest one.
    """
    return max(_high_water(one) for one in _family(pid))


def cpu(pid: int) -> float:
    """Return the processor time used so far, in seconds, system calls included.

    Children count, also those that have ended.
    """
    seconds = 0.0
    for one in _family(pid):
        with contextlib.suppress(OSError):
            user, system, childrens_user, childrens_system = map(int, _stat(one)[11:15])
            ticks = user + system + childrens_user + childrens_system
            seconds += ticks / os.sysconf("SC_CLK_TCK")
    return seconds


def _family(pid: int) -> list[int]:
    """Return a process, and below it whoever is there, ended but not yet waited for included."""
    parents: dict[int, int] = {}
    for path in _PROC.iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(path.name)] = int(_stat(int(path.name))[1])
    found = [pid]
    for one in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of proc(5) ``stat`` after the name, which may hold anything."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _high_water(pid: int) -> int:
    try:
        status = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0  # none: it has ended
