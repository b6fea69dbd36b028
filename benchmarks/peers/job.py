"""What an adapter is asked to do."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One measurement of one system. Seconds are of wall time.

    Attributes:
        folder: scratch, the job's own; episodes are written there.
        began: `time.time()` when the command was started.
        seconds: how long is measured after the warm-up; where `learning`, how long after `began`.
        warm_up: seconds after the first update that do not count.
        network: `shared`, the one of `network.py`, or the system's `own` defaults.
        engine: `stock`, NLE itself, or `ours`, this project's engine in the peer's loop.
        steps: of an episode, at most.
        kill: seconds that are watched after one worker is killed, after the measurement; 0: none is.
        settings: in the system's own words.
    """

    folder: Path
    began: float
    seconds: float
    warm_up: float = 0.0
    network: str = "shared"
    engine: str = "stock"
    steps: int = 500
    seed: int = 1
    learning: bool = False
    kill: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def episodes(self) -> Path:
        """Where finished episodes are written, a file a process."""
        return self.folder / "episodes"

    def write(self) -> Path:
        """Writes it into its folder; returns the file."""
        file = self.folder / "job.json"
        file.write_text(json.dumps({**vars(self), "folder": str(self.folder)}))
        return file


def read_job(file: str | None = None) -> Job:
    """Reads the job that the command line names."""
    kept = json.loads(Path(file or sys.argv[1]).read_text())
    return Job(**{**kept, "folder": Path(kept["folder"])})
