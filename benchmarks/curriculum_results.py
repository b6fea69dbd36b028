"""docs/results/curriculum.{md,json,png}, from the rows of benchmarks/curriculum.py. The unit is the training seed.

Figures of an arm are means over its seeds with Student's 95 % interval; medians and interquartile means over seeds have
percentile bootstraps. Arms are compared by Welch's t-test on the seeds' mean scores, p-values corrected after Holm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from curriculum_experts import experts_section
from curriculum_plan import Arm, Plan, Run
from curriculum_plot import draw
from curriculum_statistics import Comparison, compared, over_seeds, resampled, shown
from results import Measured, machine, write

from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.statistics import interquartile_mean

SHUFFLED = "gates shuffled between scenes"
Rows = list[dict[str, Any]]


def read_rows(plan: Plan, folder: Path) -> dict[str, Rows]:
    """Rows of each arm, in the plan's order, failures too. Raises UserError for one of another plan."""
    refuse_other_plans(plan, folder)
    found: dict[str, Rows] = {arm.name: [] for arm in plan.arms}
    for run in plan.runs():
        file = folder / f"{run.name}.json"
        if file.exists():
            found[run.arm.name].append(json.loads(file.read_text()))
    return found


def refuse_other_plans(plan: Plan, folder: Path) -> None:
    """Raises UserError where a row is not of this plan as it stands: then it would be judged by what came after it."""
    runs: dict[str, Run] = {f"{run.name}.json": run for run in plan.runs()}
    for file in sorted(folder.glob("*.json")):
        if file.name not in runs:
            raise UserError(f"{file}: there is no such run in {plan.file}; move it away")
        if json.loads(file.read_text())["plan"] != plan.fingerprint(runs[file.name]):
            raise UserError(f"{file}: made by another plan than {plan.file} is now; move it away and run it again")


def finished(rows: Rows) -> Rows:
    return [row for row in rows if row["status"] == "finished"]


def evaluated(rows: Rows, key: str) -> list[float]:
    """A figure of the evaluation for every finished run; what cannot be (a spread of zero scores) is not a number."""
    found = [row["evaluation"][key] for row in finished(rows)]
    return [math.nan if value is None else float(value) for value in found]


def scene_information(rows: Rows) -> Measured:
    return over_seeds([row["evaluation"]["specialisation"]["scene_information"]["value"] for row in finished(rows)])


def goals_of(plan: Plan, rows: Mapping[str, Rows], headline: Arm) -> dict[str, Measured]:
    """What is held against goals.yaml: the headline's figures over its seeds."""
    own = finished(rows[headline.name])
    known, frozen = scene_information(own), scene_information(rows[plan.frozen])
    costs = [row["evaluation"]["ablations"][SHUFFLED]["beyond_perturbation"]["value"] for row in own]
    return {
        "curriculum_minutes": over_seeds([row["minutes"] for row in own]),
        "curriculum_frames": over_seeds([row["frames"] / 1e6 for row in own]),
        **{key: over_seeds(evaluated(own, key)) for key in ("mean_score", "median_score", "score_cv")},
        "alpha_entropy_in_band": over_seeds([row["alpha_entropy_in_band"] for row in own]),
        **{key: over_seeds(evaluated(own, key)) for key in ("usage_entropy", "smallest_share")},
        "scene_information": Measured(known.value - frozen.value, known.low - frozen.high, known.high - frozen.low),
        "between_scene_shuffle_cost": over_seeds(costs),
    }


def publish(plan: Plan, out: Path, command: str) -> int:
    """Writes page, figures and drawing from the rows that there are; returns the exit code.

    Raises:
        UserError: the headline has no finished run yet, or a row is of another plan.
    """
    rows = read_rows(plan, out / "curriculum")
    headline = next(arm for arm in plan.arms if arm.ablate)
    if not finished(rows[headline.name]):
        raise UserError(f"no page yet: {headline.name} has no finished run")
    scores = {name: evaluated(own, "mean_score") for name, own in rows.items()}
    against = {name: own for name, own in scores.items() if name != headline.name}
    comparisons = compared(against, plan.compare_with)
    means = {name: over_seeds(own) for name, own in scores.items()}
    draw(plan, {name: finished(own) for name, own in rows.items()}, scores, means, out / "curriculum.png")
    about = machine()
    commits = sorted({row["machine"]["commit"] for own in rows.values() for row in own})
    judged = write(
        "curriculum",
        title="The curriculum",
        measured=goals_of(plan, rows, headline),
        sections=[
            _introduction(plan, headline),
            "![Scores while training, and of held-out episodes](curriculum.png)",
            "## Arms\n\n" + _arms_table(plan, rows, comparisons),
            "## What the arms say\n\n" + _answers(plan, comparisons),
            "## What the experts do\n\n" + experts_section(headline.name, finished(rows[headline.name])),
            "## Every run\n\n" + _runs_table(plan, rows),
        ],
        raw={"rows": "curriculum/ARM-SEED.json", "runs": sum(map(len, rows.values())), "mean_scores": scores},
        commands=["python benchmarks/curriculum.py", command],
        about={**about, "commit": " and ".join(commits)},
        folder=out,
    )
    for goal in judged:
        print(f"{goal['goal']}: {goal['measured']} ({'met' if goal['met'] else 'missed'})")
    return 0


def _introduction(plan: Plan, headline: Arm) -> str:
    config = Path(plan.config).stem
    rules = (
        f"`{config}` trained with {len(plan.seeds)} seeds. Goals are of the arm `{headline.name}`, met when the whole"
        " 95 % interval over training seeds keeps the bound. Every final snapshot plays the same"
        f" {plan.episodes:,} held-out episodes: drawn actions, unshaped score. The other arms are the same"
        f" configuration, shorter and with the settings that {plan.file.name} gives them, and are compared with"
        f" `{plan.compare_with}`: Welch's t-test on the seeds' mean scores, p after Holm. Alpha entropy in band counts"
        " single updates of the last phase."
    )
    return " ".join([rules, *plan.remarks])


def _arms_table(plan: Plan, rows: Mapping[str, Rows], comparisons: Mapping[str, Comparison]) -> str:
    lines = [
        f"| arm | seeds | mean score | median over seeds | interquartile mean over seeds | median episode | sd/mean "
        f"| alpha entropy | usage entropy | scene information | less `{plan.compare_with}` | p |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in plan.arms:
        own = finished(rows[arm.name])
        scores = evaluated(own, "mean_score")
        cells = [arm.name, f"{len(own)} of {len(plan.seeds)}", shown(over_seeds(scores))]
        cells += [shown(resampled(scores, statistic)) for statistic in (_median, interquartile_mean)]
        keys = ("median_score", "score_cv", "alpha_entropy", "usage_entropy")
        cells += [shown(over_seeds(evaluated(own, key))) for key in keys]
        cells += [shown(scene_information(own))]
        beside = comparisons.get(arm.name)
        cells += [shown(beside.difference), beside.shown_p] if beside else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _answers(plan: Plan, comparisons: Mapping[str, Comparison]) -> str:
    """One line an arm: its question, and what the test says of it; plainly also where nothing was shown."""
    lines = []
    for arm in plan.arms:
        found = comparisons.get(arm.name)
        if found is not None:
            figures = f"{found.verdict} ({shown(found.difference)} points, p {found.shown_p})"
            lines.append(f"* `{arm.name}`: {arm.asks}: {figures}.")
    return "\n".join(lines) or "No arm to compare has been run yet."


def _runs_table(plan: Plan, rows: Mapping[str, Rows]) -> str:
    lines = [
        "| arm | seed | ended | frames | minutes | sittings | mean score | median | in band | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (row for arm in plan.arms for row in rows[arm.name]):
        start, commit = f"| {row['arm']} | {row['seed']} |", row["machine"]["commit"]
        if row["status"] != "finished":
            reason = " ".join(row["reason"].split())[-200:].replace("|", "/")
            lines.append(f"{start} failed: {reason} | | | | | | | {commit} |")
            continue
        played = row["evaluation"]
        lines.append(
            f"{start} well | {row['frames']:,} | {row['minutes']:.1f} | {row['sittings']} | {played['mean_score']:.1f}"
            f" | {played['median_score']:.1f} | {row['alpha_entropy_in_band']:.3f} | {commit} |"
        )
    missing = [run.name for run in plan.runs() if all(row["seed"] != run.seed for row in rows[run.arm.name])]
    return "\n".join(lines) + (f"\n\nNot yet run: {', '.join(missing)}." if missing else "")


def _median(sample: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.median(sample, axis=-1))
