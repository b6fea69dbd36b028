"""Writes docs/results/pipeline.md and pipeline.json from the pipeline's benchmarks.

    python benchmarks/pipeline_results.py                        # everything, about a quarter of an hour, then the page
    python benchmarks/pipeline_results.py --steps joints modes   # these again; the page from the newest files of all

Each step is a benchmark in a process of its own; its raw figures are kept in build/results/pipeline/STEP.json, so that
the steps can be made one by one on a machine that is idle for a few minutes at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import results

RAW = results.ROOT / "build" / "results" / "pipeline"
ONE_GROUP = (
    "runtime.mode=inline,runtime.groups=1"  # an update takes every group's rollout: as many rows as in the other
)
INLINE = {"inline": ONE_GROUP, "inline, one thread": f"{ONE_GROUP},runtime.threads=1"}
STEPS: dict[str, list[str]] = {
    "efficiency": ["pipeline.py", "--rounds", "3", "--seconds", "10"],
    "modes": ["end_to_end.py", "--rounds", "3", "--seconds", "20", "--warm-up", "15"]
    + [word for name, settings in INLINE.items() for word in ("--variant", f"{name}={settings}")],
    "joints": ["queues.py", "--rounds", "20", "--seconds", "1.5"],
    "recovery": ["chaos.py", "--kills", "0", "--recoveries", "6"],
}
NEVER = 1e9  # seconds, in place of a recovery that was not seen


def run_step(step: str) -> None:
    """Runs one benchmark and keeps its figures."""
    RAW.mkdir(parents=True, exist_ok=True)
    about = results.machine()
    aside = RAW / f"{step}.part"
    script, *arguments = STEPS[step]
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments, "--json", str(aside)]
    print(" ".join(["python", f"benchmarks/{script}", *arguments]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, cwd=results.ROOT)
    figures = {"about": about, "figures": json.loads(aside.read_text())}
    aside.write_text(json.dumps(figures))
    aside.replace(RAW / f"{step}.json")


def by_round(variant: Mapping[str, Any]) -> list[float]:
    """Frames a second of each round of a variant of end_to_end.py: the median of its windows."""
    rounds: dict[int, list[float]] = {}
    for window in variant["raw_windows"]:
        rounds.setdefault(window["round"], []).append(window["frames_per_second"])
    return [statistics.median(speeds) for _, speeds in sorted(rounds.items())]


def async_over_inline(variants: Mapping[str, Any]) -> results.Measured:
    """The asynchronous mode over the better inline one, round by round."""
    inline = [max(speeds) for speeds in zip(*(by_round(variants[name]) for name in INLINE), strict=True)]
    return results.spread([a / b for a, b in zip(by_round(variants["configured"]), inline, strict=True)])


def measured_goals(raw: Mapping[str, Any]) -> dict[str, results.Measured]:
    """The goals' figures from the raw ones."""
    modes = raw["modes"]["variants"]
    asynchronous = by_round(modes["configured"])
    joints = raw["joints"]
    shares = [entry["pipeline"] / entry["alone"] for entry in joints["throughput"]["rounds"]]
    quartiles = statistics.quantiles(shares, n=4)
    recoveries = [entry["seconds"] or NEVER for entry in raw["recovery"]["recoveries"]]
    return {
        "pipeline_efficiency": results.spread([entry["efficiency"] for entry in raw["efficiency"]["rounds"]]),
        "async_over_inline": async_over_inline(modes),
        "frames_per_second": results.spread(asynchronous),
        "free_policy_share": results.Measured(statistics.median(shares), quartiles[0], quartiles[2]),
        "wakeup_us": results.spread(joints["wake_up"]["medians_us"]),
        "pss_per_actor_mb": results.spread(
            [entry["pss_with_all_pages_of_private_files_mib"] * 1.048576 for entry in joints["memory"]]
        ),
        "recovery_seconds": results.Measured(max(recoveries), min(recoveries), max(recoveries)),
    }


def costs(rounds: list[Mapping[str, Any]], cores: int) -> dict[str, float]:
    """Core-microseconds a frame of each part alone: medians over rounds."""
    return {
        part: statistics.median(1e6 * cores / entry["alone"][part] for entry in rounds) for part in rounds[0]["alone"]
    }


def model(cost: Mapping[str, float], cores: int) -> tuple[float, float]:
    """Frames a second of the asynchronous and of the inline mode on so many cores, nothing lost (docs/pipeline.md).

    The inline mode steps its games on one core, torch uses them all.
    """
    total = sum(cost.values())
    return 1e6 * cores / total, 1e6 / (cost["engine"] + (total - cost["engine"]) / cores)


def model_table(cost: Mapping[str, float], cores: int, asynchronous: float, inline: float) -> str:
    """What the model says for other machines: both modes lose there what they were seen to lose on `cores` cores."""
    best = model(cost, cores)
    lines = ["| cores | asynchronous | inline | ratio |", "|---|---|---|---|"]
    for others in (1, 2, 4, 8, 16, 32):
        first, second = (
            m * seen / b for m, seen, b in zip(model(cost, others), (asynchronous, inline), best, strict=True)
        )
        lines.append(f"| {others} | {first:,.0f} | {second:,.0f} | {first / second:.2f} |")
    return "\n".join(lines)


def write_page(raw: Mapping[str, Any], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """docs/results/pipeline.md and pipeline.json."""
    measured = measured_goals(raw)
    cost = costs(raw["efficiency"]["rounds"], about["cores"])
    modes = raw["modes"]["variants"]
    best_inline = max(statistics.median(by_round(modes[name])) for name in INLINE)
    seen = measured["frames_per_second"].value, best_inline
    speeds = ["| mode | frames/s | lowest round | highest round |", "|---|---|---|---|"]
    for name, variant in modes.items():
        cells = " | ".join(f"{value:,.0f}" for value in results.spread(by_round(variant)))
        speeds.append(f"| {'asynchronous' if name == 'configured' else name} | {cells} |")
    recoveries = [
        (entry["process"], "not within 20 s" if entry["seconds"] is None else f"{entry['seconds']:.1f} s")
        for entry in raw["recovery"]["recoveries"]
    ]
    parts = ", ".join(f"{part} {value:.0f}" for part, value in cost.items())
    return results.write(
        "pipeline",
        title="The pipeline",
        measured=measured,
        sections=[
            "Spreads are lowest and highest rounds; of the share with a free policy, the quartiles of "
            f"{len(raw['joints']['throughput']['rounds'])} pairs of windows; of the recovery, all kills, of which the "
            "slowest is held against the goal.",
            "## Both modes on the same cores, taking turns\n\n" + "\n".join(speeds),
            f"## What a frame costs\n\nEach part alone, in core-microseconds a frame: {parts}.",
            "## More cores: what the model says\n\n" + model_table(cost, about["cores"], *seen) + "\n\n"
            "Frames a second from the costs above, by the formula in [pipeline.md](../pipeline.md), each mode times "
            f"the share of it that was measured on {about['cores']} cores; the other rows are not measured.",
            "## Recovery from single kills\n\n" + "; ".join(" ".join(pair) for pair in recoveries) + ".",
        ],
        raw=raw,
        commands=[" ".join(["python", f"benchmarks/{words[0]}", *words[1:]]) for words in STEPS.values()],
        about=about,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", nargs="*", choices=list(STEPS), default=list(STEPS))
    chosen = parser.parse_args()
    for step in chosen.steps:
        run_step(step)
    missing = [step for step in STEPS if not (RAW / f"{step}.json").exists()]
    if missing:
        print(f"no page yet: {', '.join(missing)} to be run", file=sys.stderr)
        return 1
    kept = {step: json.loads((RAW / f"{step}.json").read_text()) for step in STEPS}
    commits = {entry["about"]["commit"] for entry in kept.values()}
    about = kept["efficiency"]["about"] | {"commit": " and ".join(sorted(commits))}
    for goal in write_page({step: entry["figures"] for step, entry in kept.items()}, about):
        print(f"{goal['goal']}: {goal['measured']:.3g} ({'met' if goal['met'] else 'missed'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
