"""What a run leaves in its directory, read by the plainest means."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from polybeast_moe.snapshots import Snapshot, load
from polybeast_moe.snapshots.directory import all_snapshots


def rows(run: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    """The rows of a table; a line that is still being written is none, and a table that is not there has none."""
    if not (run / name).exists():
        return []
    text = (run / name).read_text()
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def events(run: Path) -> list[dict[str, Any]]:
    """What `phases.jsonl` tells."""
    return [json.loads(line) for line in (run / "phases.jsonl").read_text().splitlines()]


def newest_path(run: Path) -> Path:
    """The snapshot of the most frames."""
    return all_snapshots(run / "snapshots")[-1]


def newest(run: Path) -> Snapshot:
    """The snapshot of the most frames, verified and read."""
    return load(newest_path(run))
