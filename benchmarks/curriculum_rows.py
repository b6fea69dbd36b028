"""What one training run of the curriculum's result left behind, as its row holds it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polybeast_moe.errors import RunFailed
from polybeast_moe.snapshots import load, newest_good

BINS = 50  # of a learning curve


def row_of(
    run_dir: Path, last_phase: str, band: tuple[float, float], sittings: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """Figures of training, from a run's own files.

    Args:
        run_dir: of a run that wrote a row of metrics at every update.
        last_phase: its name.
        band: bounds of alpha entropy in that phase, nats.
        sittings: when each of its training commands began and ended, seconds since 1970.

    Raises:
        RunFailed: it has no good snapshot.
    """
    path, _ = newest_good(run_dir / "snapshots")
    if path is None:
        raise RunFailed(f"run directory {run_dir}: no good snapshot")
    state = load(path).state
    written = json.loads((path / "manifest.json").read_text())["written"]
    metrics, episodes = _columns(run_dir / "metrics.csv"), _columns(run_dir / "episodes.csv")
    return {
        "finished": state["controller"]["finished"],
        "minutes": seconds_until(written, sittings) / 60,
        "frames": int(state["counters"]["frames"]),
        "episodes": int(state["counters"]["episodes"]),
        "updates": int(state["counters"]["updates"]),
        **_in_band(metrics, last_phase, band),
        "curve": _curve(episodes),
    }


def seconds_until(written: float, sittings: Sequence[tuple[float, float]]) -> float:
    """What the sittings took together until the final snapshot was written; what came after it does not count."""
    return sum(max(0.0, min(ended, written) - began) for began, ended in sittings)


def _in_band(metrics: dict[str, list[str]], last_phase: str, band: tuple[float, float]) -> dict[str, Any]:
    """Of the last phase's updates, how many, and the share whose alpha entropy was within the band.

    An update that was skipped counts and is not within; a phase without updates has a share of 0.
    """
    pairs = zip(metrics["phase"], metrics["alpha_entropy"], strict=True)
    values = [float(value or "nan") for phase, value in pairs if phase == last_phase]
    within = sum(band[0] <= value <= band[1] for value in values)
    return {"last_phase_updates": len(values), "alpha_entropy_in_band": within / max(1, len(values))}


def _curve(episodes: dict[str, list[str]]) -> dict[str, list[float]]:
    """Mean training score of each fiftieth of the episodes, over the number of its last one."""
    score = np.array(episodes["score"], dtype=np.float64)
    parts = [part for part in np.array_split(np.arange(len(score)), BINS) if len(part)]
    return {
        "episode": [float(part[-1] + 1) for part in parts],
        "score": [round(float(score[part].mean()), 3) for part in parts],
    }


def _columns(file: Path) -> dict[str, list[str]]:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {key: [row[key] for row in rows] for key in rows[0]}
