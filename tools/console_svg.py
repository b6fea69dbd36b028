"""Draws the console's screen, as it stood at one row of a run's metrics.csv, as an SVG for the documentation.

    python tools/console_svg.py runs/first docs/images/console.svg

Every number is the run's own. Snapshots come and go, so the moment is the last row while the newest one was already
written, or an earlier one by --at, as far as the snapshot before it is still there.
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path
from typing import Any

from svg import draw

from polybeast_moe.config import RunConfig
from polybeast_moe.evaluation.report_data import DataTable, read_run
from polybeast_moe.monitoring.metrics import LAST_EPISODES
from polybeast_moe.monitoring.screen import WIDTH, status_screen
from polybeast_moe.monitoring.status import Status, TimeLeft


def main() -> None:
    """Reads the arguments and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--at", type=float, default=1.0, help="how far the run had come (default: to its end)")
    arguments = parser.parse_args()
    run = read_run(arguments.run_dir)
    config = RunConfig.model_validate(run.config)
    rows = [_row(run.metrics, i) for i in range(run.metrics.length)]
    fractions = [_fraction(config, row) for row in rows]
    chosen = min(range(len(rows)), key=lambda i: abs(fractions[i] - arguments.at))
    left = TimeLeft()
    for row, fraction in zip(rows[: chosen + 1], fractions, strict=False):
        seconds = left.read(fraction, row["wall_seconds"])
    age = _snapshot_age(arguments.run_dir, rows, rows[chosen], config.snapshots.every_seconds)
    status = _status(config, rows[chosen], fractions[chosen], run.episodes, age)
    draw(status_screen(status, seconds), WIDTH, f"polybeast-moe train {arguments.run_dir.name}", arguments.output)


def _snapshot_age(run_dir: Path, rows: list[dict[str, Any]], row: dict[str, Any], every: float) -> float:
    """Seconds since the newest snapshot before a row; the run's clock at a snapshot is that of the row after it."""
    frames = [int(path.name.removeprefix("step-")) for path in (run_dir / "snapshots").glob("step-*")]
    newest = max((count for count in frames if count < row["frames"]), default=0)
    written = next(one["wall_seconds"] for one in rows if one["frames"] >= newest)
    age: float = row["wall_seconds"] - written
    if not frames or age > 2 * every:
        raise SystemExit("the snapshots of that moment are gone: choose a later one with --at")
    return age


def _row(table: DataTable, index: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: float(texts[index]) for name, texts in table.columns.items() if _is_number(texts[index])
    }
    row |= {name: table.columns[name][index] for name in ("phase", "routing")}
    return row | {name: int(row[name]) for name in ("frames", "episodes", "restarts", "memory_bytes") if name in row}


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?", text) is not None


def _fraction(config: RunConfig, row: dict[str, Any]) -> float:
    until = config.phases[-1].until
    return row["frames"] / until.frames if until.frames else row["episodes"] / (until.episodes or 1)


def _status(config: RunConfig, row: dict[str, Any], fraction: float, episodes: DataTable, age: float) -> Status:
    ends = [(phase.name, phase.until.frames or phase.until.episodes or 0) for phase in config.phases]
    index = [name for name, _ in ends].index(row["phase"])
    count = row["frames"] if config.phases[index].until.frames else row["episodes"]
    begin = ends[index - 1][1] if index else 0
    past = episodes.floats("frames") <= row["frames"]
    scores, returns = (episodes.floats(name)[past][-LAST_EPISODES:].tolist() for name in ("score", "return"))
    return Status.from_row(
        row,
        config.policy.expert_names,
        fraction=fraction,
        phase_fraction=(count - begin) / (ends[index][1] - begin),
        median_score=statistics.median(scores) if scores else None,
        median_return=statistics.median(returns) if returns else None,
        parts_take_turns=config.runtime.mode == "inline",
        snapshot_age_seconds=age,
    )


if __name__ == "__main__":
    main()
