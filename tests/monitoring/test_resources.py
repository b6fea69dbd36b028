"""What the process uses and may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from polybeast_moe.monitoring import resources
from polybeast_moe.monitoring.resources import FamilyMemory, cgroup_cores, cgroup_memory, usable_cores


def test_the_familys_memory_is_looked_at_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every update a look would cost more than the row does."""
    moments = [1000.0, 1000.5, 1000.9, 1001.0, 1001.9, 1002.1]
    monkeypatch.setattr(resources, "time", SimpleNamespace(monotonic=iter(moments).__next__))
    monkeypatch.setattr(resources, "family_bytes", iter([10, 20, 30]).__next__)
    memory = FamilyMemory()
    assert [memory.read() for _ in moments] == [10, 10, 10, 20, 20, 30]


PARENT = """
import subprocess, sys
from polybeast_moe.monitoring.resources import family_bytes

HOLDER = "block = bytearray(64 << 20); block[::4096] = b'1' * (16 << 10); print(flush=True); input()"
found = [family_bytes()]
with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
    child.stdout.readline()
    found.append(family_bytes())
    child.communicate(b"\\n")
print(*found, family_bytes())
"""


def test_the_family_holds_what_its_children_hold() -> None:
    """In a process of its own: what other tests have left, and who shares whose libraries, comes and goes."""
    told = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=True).stdout
    before, beside, after = map(int, told.split())
    assert beside - before > 60 << 20
    assert after - before < 30 << 20


def test_there_is_a_core_to_use() -> None:
    assert usable_cores() in range(1, len(os.sched_getaffinity(0)) + 1)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_tightest_group_above_the_process_limits_it(tmp_path: Path) -> None:
    root, membership = tmp_path / "fs", tmp_path / "cgroup"
    membership.write_text("0::/pod/box/inner\n")
    assert cgroup_cores(root, membership) is None
    write(root / "pod" / "cpu.max", "150000 100000\n")
    write(root / "pod" / "box" / "inner" / "cpu.max", "max 100000\n")
    assert cgroup_cores(root, membership) == 1.5
    write(root / "pod" / "box" / "cpu.max", "50000 100000\n")
    assert cgroup_cores(root, membership) == 0.5


def test_version_one_groups_are_read_too(tmp_path: Path) -> None:
    root, membership = tmp_path / "fs", tmp_path / "cgroup"
    membership.write_text("4:memory:/other\n3:cpu,cpuacct:/box\n")
    write(root / "cpu" / "cpu.cfs_quota_us", "-1\n")
    write(root / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert cgroup_cores(root, membership) is None
    write(root / "cpu" / "box" / "cpu.cfs_quota_us", "300000\n")
    write(root / "cpu" / "box" / "cpu.cfs_period_us", "100000\n")
    assert cgroup_cores(root, membership) == 3.0


def test_the_memory_of_a_job_is_limited_by_its_own_group(tmp_path: Path) -> None:
    """A batch system's limit is that of a group far below the root, in either version."""
    root, membership = tmp_path / "fs", tmp_path / "cgroup"
    membership.write_text("0::/slurm/job_7/step_0\n4:memory:/box\n")
    assert cgroup_memory(root, membership) is None
    write(root / "slurm" / "job_7" / "memory.max", "8589934592\n")
    write(root / "slurm" / "job_7" / "step_0" / "memory.max", "max\n")
    assert cgroup_memory(root, membership) == 8 << 30
    write(root / "memory" / "box" / "memory.limit_in_bytes", "4294967296\n")
    assert cgroup_memory(root, membership) == 4 << 30
