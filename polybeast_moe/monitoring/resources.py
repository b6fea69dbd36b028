"""What a process uses and what it may use: memory, processor time, cores."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

FAMILY_SECONDS = 1.0


@dataclass(frozen=True)
class Usage:
    """A process's resources at one moment: resident memory, and the cores it kept busy since the previous reading."""

    rss_bytes: int
    cpu_cores: float


class ProcessMeter:
    """Reads the resources of one process (this one by default); each reading measures processor time since the last."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self._family, self._family_at = 0, -math.inf
        self._wall, self._cpu = time.monotonic(), self._cpu_seconds()

    def read(self) -> Usage:
        """Returns the resources now. Raises psutil.NoSuchProcess when the process has ended."""
        wall, cpu = time.monotonic(), self._cpu_seconds()
        cores = (cpu - self._cpu) / max(wall - self._wall, 1e-9)
        self._wall, self._cpu = wall, cpu
        return Usage(self._process.memory_info().rss, cores)

    def pss_bytes(self) -> int | None:
        """Returns resident memory with shared pages divided among their users; None where the kernel does not tell.

        The kernel walks every page for it, milliseconds in a large process: not for every update.
        """
        return _pss_bytes(self._process.pid)

    def family_bytes(self) -> int:
        """Returns the memory of the process and all its descendants: `pss_bytes`, resident memory where unknown.

        It is looked at once in `FAMILY_SECONDS` at most, so that it may be asked for at every update.
        """
        now = time.monotonic()
        if now - self._family_at < FAMILY_SECONDS:
            return self._family
        self._family_at, total = now, 0
        for process in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                total += _pss_bytes(process.pid) or process.memory_info().rss
        self._family = total
        return total

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def _pss_bytes(pid: int) -> int | None:
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
    for group in _groups(root, membership):
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


def _groups(root: Path, membership: Path) -> list[Path]:
    """The directories that may limit this process, from its own group up to the root of each hierarchy."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    found = [root, root / "cpu"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        group = base / path.lstrip("/")
        found += [group, *(parent for parent in group.parents if parent.is_relative_to(base))]
    return list(dict.fromkeys(found))
