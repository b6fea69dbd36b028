"""What a benchmark claims: goals of docs/results/goals.yaml, the pair docs/results/NAME.{md,json}, the README's table.

A benchmark hands over what it measured by the goals' names; whether a goal is met is decided here and nowhere else:

    measured = {"reset_ms": spread(samples), "speed_up": Measured(3.2, 3.0, 3.4)}
    write("engine", title="The engine", measured=measured, sections=["## Steps a second\\n\\n| ... |"], raw=figures,
          commands=["python benchmarks/engine.py --results"])

    python benchmarks/results.py    # the README's table again, from the results as they are
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
README = ROOT / "README.md"
PACKAGES = ("polybeast-moe", "torch", "nle", "gymnasium", "numba", "numpy")

# What the README shows of the results, page by page; what a page would hold is said where there is none yet.
SHOWN = {
    "benchmarks": (
        "this project next to Monobeast, Sample Factory and others (`make benchmark`)",
        ("same_net_sample_factory", "same_net_monobeast", "default_sample_factory", "default_monobeast", "score_30min"),
    ),
    "pipeline": (
        "whole runs (`make results`)",
        ("frames_per_second", "async_over_inline", "pipeline_efficiency", "recovery_seconds"),
    ),
    "engine": (
        "the engine (`make results`)",
        ("engine_sync_32", "engine_sync_128", "engine_async_32", "reset_ms"),
    ),
    "graph": ("graph attention (`make benchmark`)", ("graph_in_all",)),
    "ops": ("the expert mixture (`make benchmark`)", ("ops_numba_torch_e4",)),
    "chaos_runs": ("runs that are killed (`make chaos`)", ("chaos_runs_kills", "chaos_runs_differences")),
    "curriculum": (
        "scores over training seeds (`make results-learning`)",
        (
            *("curriculum_minutes", "mean_score", "median_score", "score_cv", "usage_entropy"),
            *("scene_information", "between_scene_shuffle_cost"),
        ),
    ),
    "soak": ("an hour of training (`make soak`)", ("soak_memory_drift", "soak_speed_drift")),
}
_BLOCK = re.compile(r"(<!-- results: [^>]*-->\n).*?(<!-- end of results -->\n)", re.DOTALL)


class Measured(NamedTuple):
    """A figure with its spread or interval; a goal says which of both it judges. Not a number where there is none."""

    value: float
    low: float
    high: float


def spread(samples: Sequence[float]) -> Measured:
    """The median of samples, the least and the greatest beside it."""
    return Measured(statistics.median(samples), min(samples), max(samples))


@dataclass(frozen=True)
class Goal:
    """One entry of goals.yaml: what is measured, and the bounds it must keep: the figure, or its whole `interval`."""

    text: str
    at_least: float | None = None
    at_most: float | None = None
    within: tuple[float, float] | None = None
    interval: bool = False

    def __post_init__(self) -> None:
        if [self.at_least, self.at_most, self.within].count(None) != 2:
            raise ValueError(f"goal {self.text!r} needs one of at_least, at_most, within")

    @property
    def bound(self) -> str:
        """The bound as one reads it."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        assert self.within is not None
        return f"{self.within[0]:g} to {self.within[1]:g}"

    def met(self, figure: Measured) -> bool:
        """Whether a figure, or both ends of its interval, keep the bound."""
        ends = (figure.low, figure.high) if self.interval else (figure.value,)
        return all(self._keeps(end) for end in ends)

    def _keeps(self, value: float) -> bool:
        """Whether a value keeps the bound; what is not a number does not."""
        if self.at_least is not None:
            return value >= self.at_least
        if self.at_most is not None:
            return value <= self.at_most
        assert self.within is not None
        return self.within[0] <= value <= self.within[1]


def read_goals(path: Path = RESULTS / "goals.yaml") -> dict[str, Goal]:
    """The goals by name. Raises ValueError where an entry has no bound or more than one."""
    entries = yaml.safe_load(path.read_text())
    return {
        name: Goal(
            entry["goal"],
            entry.get("at_least"),
            entry.get("at_most"),
            tuple(entry["within"]) if "within" in entry else None,
            entry.get("interval", False),
        )
        for name, entry in entries.items()
    }


def judge(measured: Mapping[str, Measured], goals: Mapping[str, Goal]) -> list[dict[str, Any]]:
    """Every measured figure beside its goal. Raises KeyError for a figure that has none."""
    return [
        {
            "name": name,
            "goal": f"{goals[name].text} {goals[name].bound}",
            "measured": _known(figure.value),
            "low": _known(figure.low),
            "high": _known(figure.high),
            "met": goals[name].met(figure),
        }
        for name, figure in measured.items()
    ]


def write(
    name: str,
    *,
    title: str,
    measured: Mapping[str, Measured],
    sections: Sequence[str],
    raw: Mapping[str, Any],
    commands: Sequence[str],
    about: Mapping[str, Any] | None = None,
    folder: Path = RESULTS,
) -> list[dict[str, Any]]:
    """Writes `folder`/NAME.md and NAME.json and returns the judged goals.

    `sections` are Markdown, one after the other below the table of goals; `raw` is whatever the figures were made of;
    `about` is `machine()` as it was before the measurement (the load average is of then). The README's table follows.
    """
    judged = judge(measured, read_goals(folder / "goals.yaml"))
    about = dict(about or machine())
    report = {"name": name, "goals": judged, "commands": list(commands), "machine": about, "raw": raw}
    table = [
        "| goal | measured | lowest | highest | met |",
        "|---|---|---|---|---|",
        *(
            f"| {goal['goal']} | {_number(goal['measured'])} | {_number(goal['low'])} | {_number(goal['high'])} |"
            f" {'yes' if goal['met'] else 'no'} |"
            for goal in judged
        ),
    ]
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    written_by = [
        "Written by",
        "",
        "```",
        *commands,
        "```",
        "",
        f"on {about['cpu']}, {about['cores']} cores, load average {about['load_average_before']:.2f} before,"
        f" Python {about['python']}, {versions}, commit {about['commit']}. Raw figures are in {name}.json.",
    ]
    parts = [f"# {title}", "\n".join(table), *(section.strip() for section in sections), "\n".join(written_by)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n")
    if folder == RESULTS:
        refresh(README)
    return judged


def refresh(page: Path, folder: Path = RESULTS) -> None:
    """Puts the table of `folder`'s results between the marks of a page, `README.md`."""
    page.write_text(_BLOCK.sub(lambda block: f"{block[1]}\n{summary(folder)}\n{block[2]}", page.read_text()))


def summary(folder: Path) -> str:
    """The goals of `SHOWN` as `folder` has them measured, as a Markdown table, and what has not been measured."""
    rows, missing = ["| goal | measured | lowest to highest | met |", "|---|---|---|---|"], []
    for name, (what, shown) in SHOWN.items():
        if not (folder / f"{name}.json").exists():
            missing.append(what)
            continue
        goals = {goal["name"]: goal for goal in json.loads((folder / f"{name}.json").read_text())["goals"]}
        for goal in (goals[key] for key in shown if key in goals):
            low, high = _number(goal["low"]), _number(goal["high"])
            rows.append(
                f"| [{goal['goal']}](docs/results/{name}.md) | {_number(goal['measured'])} |"
                f" {low if low == high else f'{low} to {high}'} | {'yes' if goal['met'] else 'no'} |"
            )
    tail = ["", f"Not measured yet: {'; '.join(missing)}."] if missing else []
    return "\n".join([*rows, *tail]) + "\n"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What figures depend on beside the code."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": commit(),
    }


def commit() -> str:
    """The checked-out commit, with a mark when files that results do not write differ from it; empty where none is."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs/results", ":(exclude)README.md"
    )
    return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")


if __name__ == "__main__":
    refresh(README)
