"""Snapshots in the background: in order, none half-there, failures told, the wanted ones kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from waiting import PATIENCE

from polybeast_moe.snapshots import SnapshotWriter, load, newest_good, verify, writer
from polybeast_moe.snapshots.directory import all_snapshots


def take(snapshots: SnapshotWriter, frames: int, kind: str = "periodic", size: int = 8):
    weights = {"w": torch.full((size,), float(frames))}
    return snapshots.take(frames, weights, {"state": {0: {"m": weights["w"]}}}, {"kind": kind})


def frames_in(root: Path) -> list[int]:
    return [int(path.name[5:]) for path in all_snapshots(root)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one mebibyte."""
    root = tmp_path / "disk"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], capture_output=True).returncode:
        pytest.skip("only root can mount a small file system here")
    yield root
    subprocess.run(["umount", str(root)], check=True)


def test_training_goes_on_while_one_is_written_and_does_not_change_it(tmp_path: Path, monkeypatch) -> None:
    go_on = threading.Event()
    genuine = writer.write
    monkeypatch.setattr(writer, "write", lambda *arguments: go_on.wait(PATIENCE) and genuine(*arguments))
    snapshots = SnapshotWriter(tmp_path, keep_last=3)
    weights = torch.ones(4)
    state = {"step": torch.tensor(1.0)}
    future = snapshots.take(1, {"w": weights}, {"state": state}, {"kind": "periodic"})
    weights += 1  # the next update
    state["step"] += 1
    assert snapshots.busy
    go_on.set()
    saved = load(future.result(PATIENCE))
    assert saved.weights["w"].tolist() == [1] * 4
    assert saved.optimizer["state"]["step"] == 1
    snapshots.close()
    assert snapshots.newest == tmp_path / "step-000000000001"


def test_they_come_in_the_order_in_which_they_were_taken(tmp_path: Path) -> None:
    snapshots = SnapshotWriter(tmp_path, keep_last=100)
    written = [take(snapshots, frames).result for frames in range(1, 9)]
    snapshots.close()
    times = [result().stat().st_mtime_ns for result in written]
    assert times == sorted(times)
    assert [load(result()).state["number"] for result in written] == list(range(1, 9))


def test_a_full_disk_costs_snapshots_until_there_is_space_again(small_disk: Path) -> None:
    said: list[str] = []
    root = small_disk / "snapshots"
    snapshots = SnapshotWriter(root, keep_last=3, log=said.append)
    first = take(snapshots, 1).result(PATIENCE)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2 << 20))
    for frames in (2, 3):
        assert isinstance(take(snapshots, frames, size=20_000).exception(PATIENCE), OSError)
    assert not snapshots.busy
    assert [line.startswith("no snapshot: [Errno 28] No space left on device") for line in said] == [True, True]
    verify(first)
    assert list(root.iterdir()) == [first]
    filler.unlink()
    take(snapshots, 4, size=20_000).result(PATIENCE)
    snapshots.close()
    assert frames_in(root) == [1, 4]


def test_the_wanted_ones_stay(tmp_path: Path) -> None:
    snapshots = SnapshotWriter(tmp_path, keep_last=2, keep_every=4)
    for frames in range(1, 14):
        if frames == 7:
            snapshots.kept = frozenset({"step-000000000006"})  # the evaluation of its weights has come in
        take(snapshots, frames, kind="phase_end" if frames == 3 else "periodic").result(PATIENCE)
    snapshots.close()
    assert frames_in(tmp_path) == [3, 4, 6, 8, 12, 13]  # a phase's end, every fourth, the best, the last two


def test_counting_goes_on_after_a_resume(tmp_path: Path) -> None:
    snapshots = SnapshotWriter(tmp_path, keep_last=1, keep_every=2)
    for frames in (1, 2, 3):
        take(snapshots, frames).result(PATIENCE)
    snapshots.close()
    resumed = SnapshotWriter(tmp_path, keep_last=1, keep_every=2)
    resumed.go_on(load(tmp_path / "step-000000000003"))
    for frames in (4, 5):
        take(resumed, frames).result(PATIENCE)
    resumed.close()
    assert frames_in(tmp_path) == [2, 4, 5]


def test_each_is_hashed_once_and_a_damaged_one_is_still_found(tmp_path: Path, monkeypatch) -> None:
    hashed: list[str] = []
    genuine = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: hashed.append(file.name) or genuine(file, kind))
    snapshots = SnapshotWriter(tmp_path, keep_last=3)
    for frames in range(1, 6):
        take(snapshots, frames).result(PATIENCE)
    assert hashed == []  # it has just written them itself
    for frames in (4, 5):
        (tmp_path / f"step-{frames:012d}" / "weights.safetensors").write_bytes(b"damaged")
    take(snapshots, 6).result(PATIENCE)
    snapshots.close()
    assert frames_in(tmp_path) == [3, 4, 5, 6]  # keeping 4 and 5 is no reason to let go of 3, and 2 had to go
    assert newest_good(tmp_path)[0].name == "step-000000000006"


def test_files_that_a_snapshot_counts_on_are_on_the_disk_first(tmp_path: Path, monkeypatch) -> None:
    table = tmp_path / "metrics.csv"
    table.write_text("1,2\n")
    synced: list[str] = []
    genuine = os.fsync
    name_of = Path("/proc/self/fd")
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str((name_of / str(fd)).readlink())) or genuine(fd))
    snapshots = SnapshotWriter(tmp_path / "snapshots", keep_last=1, before=(table, tmp_path / "not written yet"))
    take(snapshots, 1).result(PATIENCE)
    snapshots.close()
    assert synced[0] == str(table)
    assert any("weights.safetensors" in name for name in synced[1:])
