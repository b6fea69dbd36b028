"""Snapshots: everything needed to go on, in directories that are complete or absent. Importing this costs no torch."""

from polybeast_moe.snapshots.contents import Snapshot, load, save
from polybeast_moe.snapshots.directory import SnapshotError, find_snapshot, newest_good, prune, sweep, verify
from polybeast_moe.snapshots.origin import Origin
from polybeast_moe.snapshots.writer import SnapshotWriter

__all__ = [
    "Origin",
    "Snapshot",
    "SnapshotError",
    "SnapshotWriter",
    "find_snapshot",
    "load",
    "newest_good",
    "prune",
    "save",
    "sweep",
    "verify",
]
