"""Lets a run train for an hour and watches what it holds: memory, descriptors, mappings, threads, and its speed.

    python benchmarks/soak.py --results                  # 60 minutes; writes docs/results/soak.{md,json,png}
    python benchmarks/soak.py --minutes 1 --every 2      # a short one, to see that it works
    python benchmarks/soak.py --config score --keep runs/score --results    # its own curriculum; the run is kept
    python benchmarks/soak.py --config score --from-weights runs/score --results phases.soak.temperature=0.02 \
        phases.soak.learning_rate=1e-12             # a trained policy that stays as it is: its play does not change

The run is `polybeast-moe train quickstart` with a curriculum that does not end, or another run with its own
(`--keep`). Every few seconds the proportional memory (PSS), open descriptors, mappings and threads of each of its
processes are read from /proc, and its frames from its control socket. An actor and the policy worker are killed once
each on the way (`--kills 0`: nobody): they have to come back, and nobody else may. Once a minute the router
temperature is set by hand to what it is, the answer timed, and the value released: the answer comes when the next
step inferred knows the value. Drift is the least-squares slope over what follows the warm-up, as a share of the mean
and hour; its interval is that of slopes over samples drawn again in blocks of a minute, 1,000 times. The minute after
a kill does not count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from results import RESULTS, Measured, machine, write

from polybeast_moe.control.client import send
from polybeast_moe.control.protocol import Command
from polybeast_moe.errors import UserError
from polybeast_moe.monitoring.resources import pss_bytes

KINDS = ("pss_bytes", "descriptors", "mappings", "threads")
LONGEST_START = 300.0
SET_EVERY = 60.0  # seconds between two values set by hand
AFTER_A_KILL = 60.0  # seconds that do not count, a tenth of a short run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between samples")
    parser.add_argument("--warm-up", type=float, default=5.0, help="minutes that do not count (at most a third)")
    parser.add_argument(
        "--kills", type=int, default=2, help="an actor at a third of the time, the policy worker at two"
    )
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--keep", type=Path, metavar="RUN_DIR", help="keep the run there, with its own curriculum")
    parser.add_argument("--from-weights", metavar="SNAPSHOT", help="begin with a trained policy")
    parser.add_argument("--json", type=Path, help="also write samples and figures here")
    parser.add_argument("--results", action="store_true", help="write docs/results/soak.{md,json,png}")
    return parser.parse_intermixed_args()


def main() -> int:
    arguments = parse()
    about = machine()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        samples, kills, restarts = soak(arguments, Path(folder))
    figures = judge(samples, kills, min(arguments.warm_up, arguments.minutes / 3) * 60)
    figures["unexpected_restarts"] = restarts - len(kills)
    for name, figure in figures.items():
        print(f"{name.replace('_', ' '):28s}{figure}")
    if arguments.json:
        found = {"figures": figures, "kills": kills, "samples": samples}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.results:
        publish(arguments, samples, kills, figures, about)
    return 0 if figures["unexpected_restarts"] == 0 else 1


def soak(arguments: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Runs and watches; returns the samples, the kills and how many processes were replaced."""
    run_dir = arguments.keep or folder / "run"
    endless = "phases=[{name: soak, until: {frames: 1_000_000_000_000}, routing: sparsemax, temperature: 0.5}]"
    command = [sys.executable, "-m", "polybeast_moe", "train", arguments.config, "--run-dir", str(run_dir)]
    command += ["--from-weights", arguments.from_weights] if arguments.from_weights else []
    command += [] if arguments.keep else [endless, "targets={}"]
    command += ["evaluation.random_episodes=0", *arguments.overrides]
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(folder)})
    try:
        began = wait_for_start(process, run_dir, folder / "output.log")
        samples: list[dict[str, Any]] = []
        kills: list[dict[str, Any]] = []
        while (passed := time.monotonic() - began) < arguments.minutes * 60:
            if len(kills) < arguments.kills and passed > (len(kills) + 1) * arguments.minutes * 60 / (
                arguments.kills + 1
            ):
                kills.append(
                    {"seconds": passed, "process": kill(process.pid, "actor" if len(kills) % 2 == 0 else "policy")}
                )
            samples.append({"seconds": passed, **look(process.pid, run_dir)})
            if len(samples) % max(1, round(SET_EVERY / arguments.every)) == 1 or arguments.every >= SET_EVERY:
                samples[-1]["answer_seconds"] = set_by_hand(run_dir)
            time.sleep(max(0.0, arguments.every - (time.monotonic() - began - passed)))
        restarts = status(run_dir)["restarts"]
        process.send_signal(signal.SIGTERM)
        code = process.wait(120)
        if code != 128 + signal.SIGTERM:
            raise SystemExit(f"the run ended with {code}:\n{(folder / 'output.log').read_text()[-2000:]}")
        return samples, kills, int(restarts)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for_start(process: subprocess.Popen[bytes], run_dir: Path, log: Path) -> float:
    """Waits for the first frames; returns when that was."""
    deadline = time.monotonic() + LONGEST_START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the run ended:\n{log.read_text()[-2000:]}")
        try:
            if status(run_dir)["frames"] > 0:
                return time.monotonic()
        except UserError:
            pass
        time.sleep(0.5)
    raise SystemExit("the run does not begin")


def status(run_dir: Path) -> dict[str, Any]:
    return send(run_dir, Command("status"))


def set_by_hand(run_dir: Path) -> float:
    """Sets the temperature to what it is and releases it; returns the seconds until the change had taken hold."""
    temperature = status(run_dir)["router_temperature"]
    asked = time.monotonic()
    send(run_dir, Command("set", "router_temperature", temperature))
    answered = time.monotonic() - asked
    send(run_dir, Command("release", "router_temperature"))
    return answered


def look(trainer: int, run_dir: Path) -> dict[str, Any]:
    """One sample: frames, and what each process holds, by its name."""
    now = status(run_dir)
    found = {}
    for process in [psutil.Process(trainer), *psutil.Process(trainer).children(recursive=True)]:
        try:
            name = Path(f"/proc/{process.pid}/comm").read_text().strip()
            memory = pss_bytes(process.pid)
            if memory is None:
                continue
            found[name] = {
                "pid": process.pid,
                "pss_bytes": memory,
                "descriptors": process.num_fds(),
                "mappings": len(Path(f"/proc/{process.pid}/maps").read_text().splitlines()),
                "threads": process.num_threads(),
            }
        except (OSError, psutil.Error):  # it has just died
            continue
    own = ("frames", "wall_seconds", "snapshot_wait_seconds")
    return {**{name: now[name] for name in own}, "processes": found}


def kill(trainer: int, kind: str) -> str:
    """Kills one process of a kind; returns its name."""
    for child in psutil.Process(trainer).children():
        name = Path(f"/proc/{child.pid}/comm").read_text().strip()
        if name.startswith(f"pbm-{kind}"):
            child.kill()
            return name
    raise SystemExit(f"there is no {kind} to kill")


def judge(samples: Sequence[dict[str, Any]], kills: Sequence[dict[str, Any]], warm_up: float) -> dict[str, Any]:
    """Drift an hour of memory (all processes together) and of speed, and the largest counts."""
    rest = min(AFTER_A_KILL, samples[-1]["seconds"] / 10)
    quiet = [s for s in samples if s["seconds"] >= warm_up and not _after(s["seconds"], kills, rest)]
    hours = np.array([s["seconds"] for s in quiet]) / 3600
    memory = np.array([sum(p["pss_bytes"] for p in s["processes"].values()) for s in quiet], dtype=float)
    pairs = [
        (a, b)
        for a, b in itertools.pairwise(samples)
        if a["seconds"] >= warm_up and not _after(b["seconds"], kills, rest)
    ]
    middles = np.array([(a["seconds"] + b["seconds"]) / 2 for a, b in pairs]) / 3600
    speed = np.array([(b["frames"] - a["frames"]) / (b["seconds"] - a["seconds"]) for a, b in pairs])
    waited = samples[-1]["snapshot_wait_seconds"] / samples[-1]["wall_seconds"]
    answers = sorted(sample["answer_seconds"] for sample in samples if "answer_seconds" in sample)
    figures: dict[str, Any] = {
        "snapshot_wait_share": Measured(waited, waited, waited),
        "answer_seconds": Measured(answers[-1], answers[0], answers[-1]),
        "memory_drift": drift(hours, memory),
        "speed_drift": drift(middles, speed),
        "mean_memory_bytes": float(memory.mean()),
        "mean_frames_per_second": float(speed.mean()),
    }
    for kind in KINDS[1:]:
        totals = [sum(p[kind] for p in s["processes"].values()) for s in quiet]
        figures[f"{kind}_first_last_most"] = [totals[0], totals[-1], max(totals)]
    return figures


def _after(seconds: float, kills: Sequence[dict[str, Any]], rest: float) -> bool:
    return any(0 <= seconds - death["seconds"] < rest for death in kills)


def drift(hours: np.ndarray, values: np.ndarray) -> Measured:
    """The slope as a share of the mean, an hour, in per cent, with a 95 % interval."""

    def slope(chosen: np.ndarray) -> float:
        x, y = hours[chosen] - hours[chosen].mean(), values[chosen]
        return float((x * y).sum() / max((x * x).sum(), 1e-12) / values.mean() * 100)

    everything = np.arange(len(values))
    wanted = max(4, round((hours[-1] - hours[0]) * 60)) if len(values) else 0
    blocks = np.array_split(everything, max(1, min(wanted, len(values) // 2)))
    if len(values) < 2:  # a short run whose kills left nothing
        return Measured(math.nan, math.nan, math.nan)
    dice = np.random.default_rng(0)
    drawn = [
        slope(np.concatenate([blocks[i] for i in dice.integers(len(blocks), size=len(blocks))])) for _ in range(1000)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Measured(slope(everything), float(low), float(high))


def publish(
    arguments: argparse.Namespace,
    samples: Sequence[dict[str, Any]],
    kills: Sequence[dict[str, Any]],
    figures: dict[str, Any],
    about: dict[str, Any],
) -> None:
    """Writes docs/results/soak.{md,json,png}."""
    draw(samples, kills, RESULTS / "soak.png")
    last = samples[-1]["processes"]
    first = next(s for s in samples if s["seconds"] >= min(arguments.warm_up * 60, samples[-1]["seconds"] / 3))[
        "processes"
    ]
    table = ["| process | PSS, MiB | descriptors | mappings | threads |", "|---|---|---|---|---|"]
    for name in last:
        cells = [
            f"{first[name][kind] / scale:,.0f} → {last[name][kind] / scale:,.0f}" if name in first else "-"
            for kind, scale in zip(KINDS, (2**20, 1, 1, 1), strict=True)
        ]
        table.append(f"| {name} | {' | '.join(cells)} |")
    count = float(figures["unexpected_restarts"])
    command = f"python benchmarks/soak.py --results --minutes {arguments.minutes:g} --every {arguments.every:g}"
    command += f" --config {arguments.config} --warm-up {arguments.warm_up:g}"
    command += f" --keep {arguments.keep}" if arguments.keep else ""
    write(
        "soak",
        title="An hour of training",
        measured={
            "soak_minutes": Measured(*[samples[-1]["seconds"] / 60] * 3),
            "soak_memory_drift": figures["memory_drift"],
            "soak_speed_drift": figures["speed_drift"],
            "soak_unexpected_restarts": Measured(count, count, count),
            "soak_snapshot_wait": figures["snapshot_wait_share"],
            "soak_answer_seconds": figures["answer_seconds"],
        },
        sections=[
            "![memory, descriptors, mappings, threads and frames a second over time](soak.png)",
            "## What each process held after the warm-up, and at the end\n\n" + "\n".join(table),
            f"Killed on the way: {', '.join(death['process'] for death in kills) or 'nobody'}.",
        ],
        raw={"figures": figures, "kills": list(kills), "samples": list(samples)},
        commands=[" ".join([command, *arguments.overrides])],
        about=about,
    )


def draw(samples: Sequence[dict[str, Any]], kills: Sequence[dict[str, Any]], path: Path) -> None:
    """One figure: what each process held, and how fast the run was."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({name for sample in samples for name in sample["processes"]})
    figure, axes = pyplot.subplots(5, 1, figsize=(8, 11), sharex=True, constrained_layout=True)
    for axis, kind in zip(axes, KINDS, strict=False):
        for name in names:
            points = [(s["seconds"] / 60, s["processes"][name][kind]) for s in samples if name in s["processes"]]
            scale = 2**20 if kind == "pss_bytes" else 1
            axis.plot([x for x, _ in points], [y / scale for _, y in points], label=name)
        axis.set_ylabel("PSS, MiB" if kind == "pss_bytes" else kind)
        axis.set_ylim(bottom=0)
    axes[0].legend(fontsize="small")
    pairs = list(itertools.pairwise(samples))
    axes[4].plot(
        [b["seconds"] / 60 for _, b in pairs],
        [(b["frames"] - a["frames"]) / (b["seconds"] - a["seconds"]) for a, b in pairs],
        color="black",
    )
    axes[4].set_ylabel("frames/s")
    axes[4].set_ylim(bottom=0)
    axes[4].set_xlabel("minutes")
    for axis in axes:
        for death in kills:
            axis.axvline(death["seconds"] / 60, color="grey", linestyle=":")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
