"""Whole runs in this process: trained, stopped by a real signal, gone on with, and compared with each other."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from run_files import newest, rows

from polybeast_moe import trainer
from polybeast_moe.config import RunConfig
from polybeast_moe.run_directory import RunDirectory
from polybeast_moe.runtime import loading
from polybeast_moe.snapshots import newest_good

FRAMES = 48  # of one update of the tiny configuration: 2 groups x 3 games x 8 steps
WALL_CLOCK = ("wall_seconds", "frames_per_second", "_us_per_frame")
PARTS = ("engine_share", "inference_share", "update_share", "memory_bytes")


def train(config: RunConfig, path: Path) -> int:
    with RunDirectory.create(path, config) as run:
        return trainer.train(config, run)


def resume(path: Path, *overrides: str) -> int:
    with RunDirectory.open(path) as run:
        snapshot, passed_over = newest_good(run.snapshots)
        assert not passed_over
        return trainer.train(run.config(overrides), run, snapshot)


def stop_after(monkeypatch, updates: int, number: signal.Signals = signal.SIGTERM) -> None:
    """A real signal arrives in the middle of that update."""
    genuine, calls = loading.make_batch, iter(range(1, 1_000_000))

    def counted(rollouts):
        if next(calls) == updates:
            os.kill(os.getpid(), number)
        return genuine(rollouts)

    monkeypatch.setattr(loading, "make_batch", counted)


def measured(path: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv without what a clock says."""
    return [
        {key: value for key, value in row.items() if not key.endswith(WALL_CLOCK) and key not in PARTS}
        for row in rows(path)
    ]


def same_weights(one: Path, other: Path) -> bool:
    first, second = newest(one).weights, newest(other).weights
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)
