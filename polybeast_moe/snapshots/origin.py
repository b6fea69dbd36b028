"""The snapshot of another run that a new run begins with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polybeast_moe.snapshots.contents import Snapshot, load
from polybeast_moe.snapshots.directory import SnapshotError, find_snapshot


@dataclass(frozen=True)
class Origin:
    """A snapshot, and whether its weights alone are taken or everything that it holds."""

    snapshot: Snapshot
    weights_only: bool

    @classmethod
    def open(cls, path: Path, *, weights_only: bool) -> Origin:
        """Loads a snapshot, or the newest good one of a run directory.

        Raises:
            SnapshotError: it cannot be used.
        """
        return cls(load(find_snapshot(path)), weights_only)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of its run, without the directory of that run.

        Raises:
            SnapshotError: the snapshot holds none.
        """
        config = self.snapshot.state.get("config")
        if not isinstance(config, dict):
            raise SnapshotError(f"snapshot {self.snapshot.path}: its state holds no configuration")
        plain: dict[str, Any] = json.loads(json.dumps(config))
        plain.pop("run_dir", None)
        return plain

    def describe(self) -> str:
        """Returns one line for the records."""
        return f"{'weights of ' if self.weights_only else ''}{self.snapshot.path.resolve()}"
