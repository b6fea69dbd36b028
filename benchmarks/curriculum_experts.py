"""What the headline's experts do, as tables of docs/results/curriculum.md: who acts in which scene, and interventions.

Figures are means over training seeds, with Student's 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import getitem
from typing import Any

from curriculum_statistics import over_seeds, shown

INFORMATION = {
    "scene_information": "the scene",
    "previous_action_information": "the previous action",
    "step_information": "the step of the episode",
}


def experts_section(arm: str, rows: Sequence[dict[str, Any]]) -> str:
    """Both tables, of the evaluations of an arm's finished runs."""
    evaluations = [row["evaluation"] for row in rows]
    measures = [evaluation["specialisation"] for evaluation in evaluations]
    known = ", ".join(f"{_over(measures, key, 'value')} nats with {name}" for key, name in INFORMATION.items())
    return "\n\n".join(
        [
            f"Of `{arm}`; seeds finished: {len(rows)}. The expert that acts shares {known}. The experts' policies"
            f" differ by {_over(measures, 'jensen_shannon', 'value')} nats (Jensen-Shannon, in the same states; at most"
            " ln 4, 1.386).",
            _scenes_table(measures),
            "Interventions, each beside noise on the logits that changes the policy as much (by KL) in every state:"
            " points of score lost, in the same games.",
            _interventions_table([evaluation["ablations"] for evaluation in evaluations]),
        ]
    )


def _over(found: Sequence[dict[str, Any]], *keys: str, digits: int | None = None) -> str:
    """A nested figure of every seed, as one."""
    return shown(over_seeds([float(reduce(getitem, keys, one)) for one in found]), digits)


def _scenes_table(measures: Sequence[dict[str, Any]]) -> str:
    lines = ["| scene | share of states | share of its dominant expert | that expert, by seed |", "|---|---|---|---|"]
    for scene in measures[0]["scene_shares"]:
        met = [one for one in measures if scene in one["dominant_shares"]]
        dominant = ", ".join(one["dominant_shares"][scene]["expert"] for one in met)
        shares = _over(measures, "scene_shares", scene), _over(met, "dominant_shares", scene, "value")
        lines.append(f"| {scene} | {' | '.join(shares)} | {dominant} |")
    return "\n".join(lines)


def _interventions_table(ablations: Sequence[dict[str, Any]]) -> str:
    lines = ["| change | it costs | noise costs | difference |", "|---|---|---|---|"]
    costs = (("score_lost", "value"), ("perturbation", "score_lost", "value"), ("beyond_perturbation", "value"))
    for change in ablations[0]:
        lines.append(f"| {change} | {' | '.join(_over(ablations, change, *cost, digits=1) for cost in costs)} |")
    return "\n".join(lines)
