"""Measures whole training runs: frames a second, and what a frame costs in engine, inference and update.

    python benchmarks/end_to_end.py                                    # configs/quickstart.yaml, one round
    python benchmarks/end_to_end.py --rounds 3 --variant inline=runtime.mode=inline,runtime.groups=1 # in turns
    python benchmarks/end_to_end.py configs/debug.yaml --seconds 5 --warm-up 3 runtime.unroll=32

Each round is `polybeast-moe train` in a process of its own, stopped by SIGTERM when its time is up: what is measured is
what a user gets, snapshots and CSV files included. Figures are medians over the windows of the run's own `metrics.csv`
that began after the warm-up; the last window, which the signal cut short, does not count. Variants take turns within a
round, so that a noisy machine is noisy for all. `us/frame` is wall time, with all the threads that torch uses.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results import machine

PARTS = ("engine", "inference", "update")
LONGEST_START = 120.0  # seconds until the first row of metrics, compiling included
SHORTEST_SHARE = 0.5  # of a window's nominal length; a change of phase cuts windows short

Window = dict[str, Any]


def train_command(config: str, overrides: list[str], run_dir: Path, window_seconds: float) -> list[str]:
    """The command line of a measured run."""
    measured = [f"monitoring.every_seconds={window_seconds}", "evaluation.random_episodes=0"]
    command = [sys.executable, "-m", "polybeast_moe", "train", config, "--run-dir", str(run_dir)]
    return [*command, *overrides, *measured]


def run(command: list[str], run_dir: Path, seconds: float, code_when_stopped: int = 128 + signal.SIGTERM) -> None:
    """Trains until its wall clock says `seconds`, or its end if that comes first.

    `code_when_stopped` is what the command ends with after a SIGTERM. Raises SystemExit with the run's last words when
    it fails.
    """
    fine = {0}
    # What it says goes into a file: nobody reads a pipe meanwhile, and a full one would hold the run up.
    with (
        tempfile.TemporaryFile("w+", errors="replace") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        try:
            started = time.monotonic()
            while process.poll() is None:
                trained = last_wall_seconds(run_dir)
                if trained >= seconds or time.monotonic() - started > seconds + LONGEST_START:
                    fine.add(code_when_stopped)
                    process.send_signal(signal.SIGTERM)
                    break
                time.sleep(0.1)
            process.wait()
        except BaseException:
            process.terminate()
            raise
        if process.returncode not in fine:
            said.seek(0)
            last_words = said.read()[-2_000:]
            raise SystemExit(f"the run failed with exit code {process.returncode}: {' '.join(command)}\n{last_words}")


def read_rows(file: Path) -> list[dict[str, str]]:
    """The whole rows of a CSV file that may be growing; none while there is no file."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def read_metrics(run_dir: Path) -> list[dict[str, str]]:
    """The rows of a run's `metrics.csv` so far."""
    return read_rows(run_dir / "metrics.csv")


def last_wall_seconds(run_dir: Path) -> float:
    """Training time at the last row written."""
    rows = read_metrics(run_dir)
    return float(rows[-1]["wall_seconds"]) if rows else 0.0


def windows(rows: list[dict[str, str]], warm_up: float, window_seconds: float) -> list[Window]:
    """The windows that count, in plain numbers."""
    found = []
    for before, row in itertools.pairwise(rows[:-1]):
        begin, end = float(before["wall_seconds"]), float(row["wall_seconds"])
        if begin < warm_up or end - begin < SHORTEST_SHARE * window_seconds:
            continue
        frames_per_second = float(row["frames_per_second"])
        costs = {part: float(row[f"{part}_us_per_frame"]) for part in PARTS}
        found.append(
            {
                "phase": row["phase"],
                "seconds": end - begin,
                "frames": int(row["frames"]) - int(before["frames"]),
                "frames_per_second": frames_per_second,
                "us_per_frame": {**costs, "rest": 1e6 / frames_per_second - sum(costs.values())},
            }
        )
    return found


def summary(measured: list[Window]) -> dict[str, Any]:
    """Medians over windows, with the 10th and 90th percentile of frames a second."""
    speeds = sorted(window["frames_per_second"] for window in measured)
    costs = {part: [window["us_per_frame"][part] for window in measured] for part in (*PARTS, "rest")}
    return {
        "frames_per_second": {
            "median": statistics.median(speeds),
            "p10": speeds[round(0.1 * (len(speeds) - 1))],
            "p90": speeds[round(0.9 * (len(speeds) - 1))],
            "overall": sum(window["frames"] for window in measured) / sum(window["seconds"] for window in measured),
        },
        "us_per_frame": {part: statistics.median(values) for part, values in costs.items()},
        "phases": list(dict.fromkeys(window["phase"] for window in measured)),
        "windows": len(measured),
        "seconds": sum(window["seconds"] for window in measured),
    }


def show(results: dict[str, dict[str, Any]]) -> None:
    """Prints one row a variant."""
    header = ["variant", "frames/s", "p10", "p90", *(f"{part} us" for part in (*PARTS, "rest")), "windows"]
    print("".join(f"{name:>14s}" for name in header))
    for name, result in results.items():
        speed = result["frames_per_second"]
        cells = [f"{speed[key]:,.0f}" for key in ("median", "p10", "p90")]
        cells += [f"{cost:.1f}" for cost in result["us_per_frame"].values()]
        print("".join(f"{cell:>14s}" for cell in (name, *cells, str(result["windows"]))))


def measure(arguments: argparse.Namespace, variants: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Runs every variant in every round; returns figures, commands and raw windows by variant."""
    measured: dict[str, list[Window]] = {name: [] for name in variants}
    commands = {}
    for turn in range(1, arguments.rounds + 1):
        for name, overrides in variants.items():
            print(f"round {turn} of {arguments.rounds}: {name}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="end-to-end-") as directory:
                run_dir = Path(directory) / "run"
                command = train_command(arguments.config, overrides, run_dir, arguments.window)
                run(command, run_dir, arguments.warm_up + arguments.seconds)
                counted = windows(read_metrics(run_dir), arguments.warm_up, arguments.window)
            if not counted:
                raise SystemExit(f"{name}: no whole window after the warm-up; give more --seconds, or a longer run")
            measured[name] += [{"round": turn, **window} for window in counted]
            commands[name] = ["polybeast-moe", *command[3:5], *command[7:]]
    return {
        name: {**summary(found), "command": commands[name], "raw_windows": found} for name, found in measured.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=KEY=VALUE[,KEY=VALUE...]",
        help="measure the same with these settings too, in turns; may be given several times",
    )
    parser.add_argument("--rounds", type=int, default=1, help="runs of each variant")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured training time of a round")
    parser.add_argument("--warm-up", type=float, default=20.0, help="training time of a round that does not count")
    parser.add_argument("--window", type=float, default=2.0, help="seconds a window")
    parser.add_argument("--json", type=Path, help="also write figures and raw windows here")
    arguments = parser.parse_intermixed_args()
    if "=" in arguments.config:
        arguments.overrides.insert(0, arguments.config)
        arguments.config = parser.get_default("config")

    variants = {"configured": arguments.overrides}
    for variant in arguments.variant:
        name, _, settings = variant.partition("=")
        variants[name] = [*arguments.overrides, *settings.split(",")]
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, torch {about['versions']['torch']}, nle {about['versions']['nle']}")
    results = measure(arguments, variants)
    show(results)
    report = {"benchmark": "end_to_end", "config": arguments.config, "machine": about, "variants": results}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    else:
        brief = {name: {k: v for k, v in result.items() if k != "raw_windows"} for name, result in results.items()}
        print(json.dumps({**report, "variants": brief}))


if __name__ == "__main__":
    main()
