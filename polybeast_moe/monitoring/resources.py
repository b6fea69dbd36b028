"""What a process uses and what it may use: memory, cores."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path

import psutil

FAMILY_SECONDS = 1.0


def family_bytes() -> int:
    """Returns the memory of this process and all its descendants, shared pages divided among their users.

    Resident memory where the kernel does not tell that. It walks every page for it, milliseconds in a large process:
    not for every update.
    """
    total, own = 0, psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            total += pss_bytes(process.pid) or process.memory_info().rss
    return total


class FamilyMemory:
    """`family_bytes`, looked at once in `FAMILY_SECONDS` at most, so that it may be asked for at every update."""

    def __init__(self) -> None:
        self._bytes, self._at = 0, -math.inf

    def read(self) -> int:
        """Returns the memory now or a moment ago."""
        now = time.monotonic()
        if now - self._at >= FAMILY_SECONDS:
            self._bytes, self._at = family_bytes(), now
        return self._bytes


def pss_bytes(pid: int) -> int | None:
    """Returns the proportional set size of a process: shared pages divided among their users. None: not to be known."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def usable_cores() -> int:
    """Returns how many cores this process can keep busy: its affinity, or less where a cgroup limits its time."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup_cores()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def cgroup_cores(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Returns the processor time, in cores, that the control groups grant this process; None: no limit.

    Reads `cpu.max` (version 2) of the process's group and of every group above it, or version 1's
    `cpu.cfs_quota_us`, as the kernel's Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst define them.
    """
    limits = []
    for group in _groups("cpu", root, membership):
        try:
            quota, period = (group / "cpu.max").read_text().split()
        except (OSError, ValueError):
            try:
                quota = (group / "cpu.cfs_quota_us").read_text().strip()
                period = (group / "cpu.cfs_period_us").read_text()
            except OSError:
                continue
        if quota not in ("max", "-1"):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def cgroup_memory(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Returns the bytes of memory that the control groups grant this process; None: no limit.

    Reads `memory.max` (version 2) or `memory.limit_in_bytes` (version 1, whose "no limit" is a number beyond any
    machine's memory) of the process's group and of every group above it, by the kernel's documentation of both.
    """
    limits = []
    for group in _groups("memory", root, membership):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # there is none, or it says "max"
                limits.append(int((group / name).read_text()))
    return min(limits, default=None)


def _groups(controller: str, root: Path, membership: Path) -> list[Path]:
    """The directories that may limit this process, from its own group up to the root of each hierarchy."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    found = [root, root / controller]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        group = base / path.lstrip("/")
        found += [group, *(parent for parent in group.parents if parent.is_relative_to(base))]
    return list(dict.fromkeys(found))
