"""Who lives, and what this process has open."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended and waits to be buried."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def open_files() -> list[str]:
    """The names of the files that this process has open, memory files among them."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found.append(str(entry.readlink()))
    return found


def of_session(leader: int) -> list[int]:
    """The processes of a session, those that have ended and are not yet buried among them."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
        except ProcessLookupError:
            continue
    return found
