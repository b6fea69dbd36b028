"""What the process uses and may use."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polybeast_moe.monitoring import resources
from polybeast_moe.monitoring.resources import ProcessMeter, cgroup_cores, usable_cores


def test_a_reading_sees_memory_that_the_process_takes() -> None:
    meter = ProcessMeter()
    before = meter.read()
    with mmap.mmap(-1, 64 << 20) as block:  # from the system, whatever the allocator has kept
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        after = meter.read()
        assert after.rss_bytes - before.rss_bytes > len(block) // 2
        pss = meter.pss_bytes()
        assert pss is None or len(block) < pss <= after.rss_bytes * 1.1


def test_the_family_is_looked_at_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = ProcessMeter()
    first = meter.family_bytes()
    with mmap.mmap(-1, 32 << 20) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        assert meter.family_bytes() == first  # at every update it would cost more than the row does
        monkeypatch.setattr(resources, "FAMILY_SECONDS", 0.0)
        assert meter.family_bytes() - first > 16 << 20


def test_the_family_holds_what_its_children_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "FAMILY_SECONDS", 0.0)
    meter = ProcessMeter()
    before = meter.family_bytes()
    script = "block = bytearray(64 << 20); block[::4096] = b'1' * (16 << 10); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert meter.family_bytes() - before > 60 << 20
        child.communicate(b"\n")
    assert meter.family_bytes() - before < 30 << 20


def test_processor_time_is_counted_since_the_last_reading() -> None:
    meter = ProcessMeter()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert meter.read().cpu_cores > 0.0
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
