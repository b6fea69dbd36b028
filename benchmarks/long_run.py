"""docs/results/long_run.{md,json,png}: the curve of one long run, and its newest snapshot on whole held-out games.

    polybeast-moe train score --run-dir runs/score
    polybeast-moe evaluate runs/score --episodes 1000 --seed 7000003 --json evaluation.json
    python benchmarks/long_run.py runs/score evaluation.json

One run of one seed: it shows what is reached, not how surely.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from end_to_end import read_rows
from results import RESULTS, Measured, machine, write

from polybeast_moe.errors import UserError

ROWS = 20  # of the curve's table

# What others published of agents that learn NetHack. Protocols differ: characters, tasks, actions, limits of steps.
PUBLISHED = (
    ("nle-sample-factory-baseline, all roles, Challenge", "2 billion", "22 h, one GPU, 16 cores", "700-800", "400"),
    ("Sample Factory's documentation, human Monk, Challenge", "2 billion", "not stated", "3,245", "-"),
    ("Wołczyk et al. 2024 (2402.02868), human Monk, from demonstrations", "not stated", "not stated", "10,588", "-"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("evaluation", type=Path, metavar="JSON", help="what `polybeast-moe evaluate --json` wrote")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the pages go (its goals.yaml is read)")
    arguments = parser.parse_args()
    try:
        publish(arguments.run, arguments.evaluation, arguments.folder)
    except UserError as error:
        print(f"long_run.py: {error}", file=sys.stderr)
        return 2
    return 0


def publish(run_dir: Path, evaluation: Path, folder: Path) -> None:
    """Writes the pages. Raises UserError where a file is missing, or the evaluation is another snapshot's."""
    about = machine()
    episodes = read_episodes(run_dir / "episodes.csv")
    last_row = rows_of(run_dir / "metrics.csv")[-1]
    try:
        played = json.loads(evaluation.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{evaluation}: {error}; write it with polybeast-moe evaluate --json") from error
    if played["trained_frames"] != int(last_row["frames"]):
        raise UserError(
            f"{evaluation}: played by a snapshot of {played['trained_frames']:,} frames, but the run has "
            f"{int(last_row['frames']):,}: evaluate its newest snapshot"
        )
    points = curve(episodes)
    hours = float(last_row["wall_seconds"]) / 3600
    draw(points, folder / "long_run.png")
    write(
        "long_run",
        title="A long run",
        measured={"long_run_frames": Measured(*[played["trained_frames"] / 1e6] * 3)},
        sections=[
            "![mean and median score over frames](long_run.png)",
            f"One run of `score.yaml`: {played['trained_frames']:,} frames in "
            f"{hours:.2f} hours ({played['trained_frames'] / hours / 3600:,.0f} frames a second), "
            f"{len(episodes):,} episodes.",
            "## The curve\n\n" + curve_table(points),
            "## Held-out games, to their end or 5,000 steps\n\n" + evaluation_table(played),
            "## Beside published figures\n\nFor the scale only: protocols differ in character, task, actions and "
            "limits.\n\n" + published_table(played, hours, about),
        ],
        raw={"curve": points, "evaluation": {key: value for key, value in played.items() if key != "records"}},
        commands=[
            "polybeast-moe train score --run-dir runs/score",
            f"polybeast-moe evaluate runs/score --episodes {played['episodes']} --seed {played['seed']} "
            "--json evaluation.json",
            "python benchmarks/long_run.py runs/score evaluation.json",
        ],
        about=about,
        folder=folder,
    )


def rows_of(file: Path) -> list[dict[str, str]]:
    """Rows of a CSV of the run. Raises UserError where there are none."""
    rows = read_rows(file) if file.is_file() else []
    if not rows:
        raise UserError(f"{file}: no rows: is {file.parent} a run directory, and has the run begun?")
    return rows


def read_episodes(file: Path) -> list[dict[str, float]]:
    """What each episode of training reached."""
    wanted = ("frames", "score", "depth", "length", "turns")
    return [{key: float(row[key]) for key in wanted} for row in rows_of(file)]


def curve(episodes: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Training episodes, by equal spans of the frames at which they ended."""
    span = (episodes[-1]["frames"] + 1) / ROWS
    points = []
    for row in range(ROWS):
        ended = [episode for episode in episodes if row <= episode["frames"] / span < row + 1]
        if len(ended) < 2:
            continue
        scores = [episode["score"] for episode in ended]
        means = {f"mean_{key}": statistics.fmean(e[key] for e in ended) for key in ("depth", "length", "turns")}
        points.append(
            {
                "frames": (row + 1) * span,
                "episodes": len(ended),
                "mean_score": statistics.fmean(scores),
                "standard_error": statistics.stdev(scores) / len(scores) ** 0.5,
                "median_score": statistics.median(scores),
                **means,
            }
        )
    return points


def curve_table(points: Sequence[dict[str, float]]) -> str:
    """The curve in Markdown."""
    lines = [
        "| until, M frames | episodes | mean score ± se | median | depth | steps | turns |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p['frames'] / 1e6:.1f} | {p['episodes']:.0f} | {p['mean_score']:.0f} ± {p['standard_error']:.0f} | "
        f"{p['median_score']:.0f} | {p['mean_depth']:.2f} | {p['mean_length']:,.0f} | {p['mean_turns']:,.0f} |"
        for p in points
    ]
    return "\n".join(lines)


def evaluation_table(played: dict[str, Any]) -> str:
    """Held-out figures in Markdown."""
    low, high = played["mean_score_interval"]
    first, third = played["score_quartiles"]
    parts = ", ".join(f"{name} {value:.0f}" for name, value in played["score_parts"].items())
    deaths = sorted(played["deaths"].items(), key=lambda item: -item[1])[:8]
    rows = (
        ("episodes, seed", f"{played['episodes']:,}, {played['seed']}"),
        ("mean score, 95 % interval", f"{played['mean_score']:.0f} ({low:.0f} to {high:.0f})"),
        (
            "median, quartiles, most",
            f"{played['median_score']:.0f}, {first:.0f} and {third:.0f}, {played['max_score']:.0f}",
        ),
        ("of the mean", parts),
        ("deepest level, mean and most", f"{played['mean_depth']:.2f}, {played['max_depth']}"),
        ("steps", f"{played['mean_length']:,.0f}"),
        ("commonest deaths", "; ".join(f"{name} {count}" for name, count in deaths)),
        ("alpha entropy, usage entropy", f"{played['alpha_entropy']:.2f}, {played['usage_entropy']:.2f}"),
        ("smallest share of an expert", f"{played['smallest_share']:.3f}"),
    )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def published_table(played: dict[str, Any], hours: float, about: dict[str, Any]) -> str:
    """Ours among what others published."""
    ours = (
        "**this run**, human Monk, NetHackScore, 5,000 steps",
        f"{played['trained_frames'] / 1e6:.0f} million",
        f"{hours:.1f} h, no GPU, {about['cores']} cores",
        f"{played['mean_score']:,.0f}",
        f"{played['median_score']:,.0f}",
    )
    lines = ["| who | frames | time and machine | mean score | median |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in (ours, *PUBLISHED))])


def draw(points: Sequence[dict[str, float]], path: Path) -> None:
    """Mean with its standard error and median over frames."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4), constrained_layout=True)
    frames = [point["frames"] / 1e6 for point in points]
    axis.errorbar(
        frames, [p["mean_score"] for p in points], [p["standard_error"] for p in points], label="mean ± standard error"
    )
    axis.plot(frames, [p["median_score"] for p in points], linestyle="--", label="median")
    axis.set_xlabel("frames, million")
    axis.set_ylabel("in-game score of training episodes")
    axis.set_ylim(bottom=0)
    axis.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
