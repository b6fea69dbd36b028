"""Writes docs/results/benchmarks.md, benchmarks.json and benchmarks.png from the rows that there are."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import results
from results import Measured

from peers import environments, plot
from peers.compare import (
    Row,
    best_per_round,
    equal_frames,
    figures,
    finished,
    last_scores,
    mean_over_seeds,
    ratios,
    scores_at,
    worst_ratio,
)
from peers.plan import Measurement, Plan, Rows, read_rows, refuse_other_plans
from polybeast_moe.errors import UserError

OURS = "ours"
INLINE = ("inline", "inline_one_thread")
SHOWN = ("sample-factory", "stable_baselines3", "nle", "gymnasium", "numpy", "torch")
ELSEWHERE = {  # goals that other benchmarks measure: page -> what it is
    "engine": "The engine alone",
    "ops": "The mixture",
    "graph": "The graph",
}


def goals(plan: Plan, rows: Rows) -> dict[str, Measured]:
    """Figures by the names of goals.yaml; those without rows are left out."""
    same, own, learnt = (rows.get(name, ()) for name in ("same_network", "defaults", "learning"))
    inline = best_per_round(own, INLINE, "inline")
    found = {
        "same_net_sample_factory": ratios(same, OURS, "sample_factory"),
        "same_net_monobeast": ratios(same, OURS, "monobeast"),
        "default_sample_factory": ratios(own, OURS, "sample_factory"),
        "default_monobeast": ratios(own, OURS, "monobeast"),
        "plain_loop_reference": ratios(own, OURS, "plain_loop"),
        "async_over_inline": ratios([*(row for row in own if row["arm"] == OURS), *inline], OURS, "inline"),
        "memory_per_env": memory(same, peers_of(plan, "same_network")),
        "score_30min": worst_ratio(learnt, OURS, peers_of(plan, "learning"), at_equal_frames=False),
        "score_equal_frames": worst_ratio(learnt, OURS, peers_of(plan, "learning"), at_equal_frames=True),
    }
    return {name: figure for name, figure in found.items() if not math.isnan(figure.value)}


def peers_of(plan: Plan, measurement: str) -> list[str]:
    """Arms that are not this project's, nor a peer with this project's engine in it."""
    arms = plan.measurement(measurement).arms
    return [arm.name for arm in arms if not arm.reference and arm.engine == "stock"]


def memory(rows: Sequence[Row], peers: Sequence[str]) -> Measured:
    """Ours an environment, over that of the peer that takes least."""
    found = [ratios(rows, OURS, peer, "pss_bytes_per_environment") for peer in peers]
    return max((ratio for ratio in found if not math.isnan(ratio.value)), default=Measured(*[math.nan] * 3))


def shown(figure: Measured, digits: int = 2) -> str:
    """A figure with its spread."""
    if math.isnan(figure.value):
        return "unmeasured"
    value = f"{figure.value:,.{digits}f}"
    return value if math.isnan(figure.low) else f"{value} ({figure.low:,.{digits}f} to {figure.high:,.{digits}f})"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])


def speed_section(measurement: Measurement, rows: Sequence[Row]) -> str:
    """Frames a second and memory of every arm, and how many times as fast ours is."""
    lines = []
    for arm in measurement.arms:
        own = finished(rows, arm.name)
        last: Row = list(own.values())[-1] if own else {}
        lines.append(
            [
                arm.name,
                shown(figures(rows, arm.name, "frames_per_second"), 0),
                "" if arm.name == OURS else shown(ratios(rows, OURS, arm.name)),
                f"{last['parameters']:,}" if own else "",
                f"{last['environments']}" if own else "",
                shown(scaled(figures(rows, arm.name, "pss_bytes_per_environment"), 1e-6), 1),
                f"{len(own)} of {measurement.rounds}" + failures(rows, arm.name),
            ]
        )
    head = ["arm", "frames/s", "ours is faster by", "parameters", "games", "PSS a game, MB", "rounds"]
    return f"{measurement.asks[0].upper()}{measurement.asks[1:]}.\n\n{table(head, lines)}"


def scaled(figure: Measured, by: float) -> Measured:
    """In another unit."""
    return Measured(*(by * value for value in figure))


def failures(rows: Sequence[Row], arm: str) -> str:
    """How many rows failed."""
    failed = sum(row["arm"] == arm and row["status"] == "failed" for row in rows)
    return f", {failed} failed" if failed else ""


def engine_section(plan: Plan, rows: Sequence[Row]) -> str:
    """What the engine alone gives the peers' loops."""
    found = {peer: ratios(rows, f"{peer}_our_engine", peer) for peer in peers_of(plan, "same_network")}
    said = [f"`{peer}` {shown(ratio)}" for peer, ratio in found.items() if not math.isnan(ratio.value)]
    if not said:
        return ""
    head = "\n\n### Engine and pipeline told apart\n\n"
    rest = "What is left of the ratios above is the pipeline."
    return (
        f"{head}Frames a second with this project's engine in the peer's loop, times its own: {', '.join(said)}. {rest}"
    )


def recovery_section(measurement: Measurement, rows: Sequence[Row]) -> str:
    """Every kill."""
    lines = []
    for arm in measurement.arms:
        for index, row in sorted(finished(rows, arm.name).items()):
            kill = row["kill"]
            if not kill["workers"]:
                lines.append([arm.name, str(index), "no worker to kill", "", ""])
                continue
            seconds = kill["seconds"]
            when = f"not within {kill['watched']:.0f} s" if seconds is None else f"{seconds:.1f}"
            workers = f"{kill['workers_at_the_end']} of {kill['workers']}"
            lines.append([arm.name, str(index), when, f"{kill['share_at_the_end']:.0%}", workers])
        lines += [
            [arm.name, str(row["index"]), "failed", row["reason"][:80].replace("\n", " ").replace("|", "/"), ""]
            for row in rows
            if row["arm"] == arm.name and row["status"] == "failed"
        ]
    head = [
        "arm",
        "round",
        "seconds to 90 % of the frames/s before",
        "frames/s at the end, of those before",
        "workers at the end",
    ]
    return f"One worker of several, or the only one, is killed by SIGKILL.\n\n{table(head, lines)}"


def learning_section(measurement: Measurement, rows: Sequence[Row], has_plot: bool) -> str:
    """Scores over seeds, when the time is up and at equal frames."""
    lines = []
    for arm in measurement.arms:
        frames = equal_frames(rows, [OURS, arm.name])
        own = finished(rows, arm.name)
        lines.append(
            [
                arm.name,
                f"{len(own)} of {measurement.rounds}" + failures(rows, arm.name),
                shown(mean_over_seeds(last_scores(rows, arm.name)), 1),
                shown(mean_over_seeds([row["curve"][-1]["frames"] / 1e6 for row in own.values()]), 2),
                "" if arm.name == OURS or not frames else f"{frames / 1e6:.2f}",
                "" if arm.name == OURS or not frames else shown(mean_over_seeds(scores_at(rows, arm.name, frames)), 1),
                "" if arm.name == OURS or not frames else shown(mean_over_seeds(scores_at(rows, OURS, frames)), 1),
            ]
        )
    head = ["arm", "seeds", "score at the end", "frames, millions", "equal frames, millions", "its score", "ours"]
    text = (
        "NetHackScore, a Monk, at most 500 steps an episode, the same reward for all: tanh(task reward / 10). A score "
        "is the mean of the last 500 training episodes; intervals are 95 % over seeds. Time is since the command.\n\n"
        + table(head, lines)
    )
    return text + ("\n\n![learning curves](benchmarks.png)" if has_plot else "")


def search_section(measurement: Measurement, rows: Sequence[Row]) -> str:
    """Every trial: the search log."""
    learning = measurement.learning
    lines = []
    for arm in measurement.arms:
        for row in (row for row in rows if row["arm"] == arm.name):
            settings = arm.trials[row["index"] - 1]
            words = ", ".join(f"{key} {value}" for key, value in settings.items())
            figure = (
                "failed"
                if row["status"] == "failed"
                else (f"{row['last_score']:.1f}" if learning else f"{row['frames_per_second']:,.0f}")
            )
            lines.append([arm.name, words, figure])
    return f"{measurement.asks[0].upper()}{measurement.asks[1:]}.\n\n" + table(
        ["arm", "settings", "score" if learning else "frames/s"], lines
    )


def elsewhere_section(folder: Path) -> str:
    """Goals of the parts, as their own pages have them."""
    lines = []
    for name, what in ELSEWHERE.items():
        file = folder / f"{name}.json"
        kept = json.loads(file.read_text())["goals"] if file.exists() else []
        lines += [
            [what, goal["goal"], "unknown" if goal["measured"] is None else f"{goal['measured']:.3g}", yes(goal["met"])]
            for goal in kept
        ] or [[what, "unmeasured", "", ""]]
    pages = ", ".join(f"[{name}.md]({name}.md)" for name in ELSEWHERE if (folder / f"{name}.md").exists())
    return table(["part", "goal", "measured", "met"], lines) + (f"\n\nFrom {pages}." if pages else "")


def versions_section() -> str:
    """What the peers' environments hold, by their requirements."""
    lines = []
    for system in environments.names():
        listed = environments.requirements(system).splitlines()
        pins = dict(line.split("==") for line in listed if not line.startswith("#"))
        lines.append([system, ", ".join(f"{name} {pins[name]}" for name in SHOWN if name in pins)])
    return table(["environment", "packages"], lines) + "\n\nAll pins are in `benchmarks/peers/requirements`."


def yes(met: bool) -> str:
    return "yes" if met else "no"


def missing_section(plan: Plan, rows: Rows) -> str:
    """What has not been run."""
    left: dict[str, int] = {}
    for task in plan.tasks():
        kept = rows.get(task.measurement.name, ())
        if not any((row["arm"], row["index"]) == (task.arm.name, task.index) for row in kept):
            left[task.measurement.name] = left.get(task.measurement.name, 0) + 1
    if not left:
        return ""
    return "Still to be run: " + ", ".join(f"{count} of {name}" for name, count in left.items()) + "."


TITLES = {
    "same_network": "One network, each system at its best",
    "defaults": "Each with its own defaults",
    "recovery": "After kill -9",
    "learning": "Learning",
    "search": "Search log",
    "learning_search": "Search log of learning settings",
}


def sections(plan: Plan, rows: Rows, folder: Path, has_plot: bool) -> list[str]:
    """The page below its table of goals."""
    found = [missing_section(plan, rows)]
    for name in TITLES:
        measurement, own = plan.measurement(name), rows.get(name, ())
        if not own:
            continue
        if name in ("search", "learning_search"):
            text = search_section(measurement, own)
        elif name == "recovery":
            text = recovery_section(measurement, own)
        elif name == "learning":
            text = learning_section(measurement, own, has_plot)
        else:
            text = speed_section(measurement, own) + (engine_section(plan, own) if name == "same_network" else "")
        found.append(f"## {TITLES[name]}\n\n{text}")
    found += [f"## Parts\n\n{elsewhere_section(folder)}", f"## Peers\n\n{versions_section()}"]
    return [text for text in found if text]


def publish(plan: Plan, folder: Path, command: str) -> int:
    """Writes the page of the rows in `folder`/peers. Raises UserError where there are none, or of another plan."""
    rows = read_rows(folder / "peers")
    if not any(rows.values()):
        raise UserError(f"{folder / 'peers'}: no rows yet: python benchmarks/side_by_side.py")
    refuse_other_plans(plan, rows)
    learnt = [row for row in rows.get("learning", ()) if row["status"] == "finished"]
    if learnt:
        plot.draw(plan.measurement("learning"), learnt, folder / "benchmarks.png")
    judged = results.write(
        "benchmarks",
        title="Side by side with the peers",
        measured=goals(plan, rows),
        sections=sections(plan, rows, folder, bool(learnt)),
        raw={name: summary(own) for name, own in rows.items()},
        commands=["python benchmarks/side_by_side.py", command],
        about=about(rows),
        folder=folder,
    )
    for goal in judged:
        print(f"{goal['goal']}: {goal['measured']} ({'met' if goal['met'] else 'missed'})")
    return 0


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows without what is long: the lines of peers/*.jsonl have everything."""
    return [{key: value for key, value in row.items() if key not in ("progress", "curve", "machine")} for row in rows]


def about(rows: Rows) -> Mapping[str, Any]:
    """The machine of the rows: one row's, with every commit and processor that took part."""
    machines = [row["machine"] for own in rows.values() for row in own]
    named = {key: " and ".join(sorted({machine[key] for machine in machines})) for key in ("cpu", "commit")}
    return {**machines[-1], **named, "load_average_before": max(one["load_average_before"] for one in machines)}


if __name__ == "__main__":
    sys.exit("python benchmarks/side_by_side.py --results")
