"""The sections of a report about what the experts do, from an evaluation's figures in the run directory.

`polybeast-moe evaluate RUN_DIR --specialisation --ablate --json RUN_DIR/specialisation.json` writes them; every part
that the file has not is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polybeast_moe.evaluation import plots_experts
from polybeast_moe.evaluation.report_data import RunData
from polybeast_moe.evaluation.report_page import Picture, Section
from polybeast_moe.evaluation.report_text import NONE, Grid, number

Figures = Mapping[str, Any]

_INFORMATION = {
    "scene_information": "scene",
    "previous_action_information": "previous action",
    "step_information": "time in the episode",
}


def expert_sections(run: RunData) -> list[Section]:
    """Returns the sections that the run's `specialisation.json` has figures for; none without one."""
    evaluation = _evaluation(run.specialisation or {})
    found = evaluation.get("specialisation", {})
    sections = []
    if found.get("scene_expert_matrix"):
        sections.append(_scenes(evaluation, found))
    if found.get("expert_actions"):
        actions = found["expert_actions"]
        idle = [name for name in run.experts if name not in actions]
        caption = (
            "The likeliest actions of each expert, in the states where the router trusts it (weighted by alpha)."
            + (f" Never trusted, so not shown: {', '.join(idle)}." if idle else "")
        )
        picture = Picture(
            "expert_actions", caption, lambda: plots_experts.actions_plot(actions, run.experts or list(actions))
        )
        sections.append(Section("What each expert does", pictures=[picture]))
    if found.get("scene_operators"):
        caption = (
            "Attention of the graph's readout to its operators, mean over heads and over the states of a scene: the "
            "operators with the largest share in any scene."
        )
        picture = Picture("operators", caption, lambda: plots_experts.operators_plot(found["scene_operators"]))
        sections.append(Section("Most active operators", pictures=[picture]))
    if evaluation.get("ablations"):
        sections.append(_ablations(evaluation["ablations"]))
    return sections


def _evaluation(written: Figures) -> Figures:
    """The first evaluation of a trained policy in what `evaluate --json` writes."""
    candidates = [one for one in written.get("evaluations", [written]) if isinstance(one, Mapping)]
    return next((one for one in candidates if "specialisation" in one or "ablations" in one), {})


def _scenes(evaluation: Figures, found: Figures) -> Section:
    matrix = found["scene_expert_matrix"]
    note = (
        f"From {evaluation.get('episodes', 0):,} held-out episodes after {evaluation.get('trained_frames', 0):,} "
        "frames of training. A row is the typical alpha of a scene: its mean over the scene's states. Scenes are "
        "defined on raw observations, not on what the router reads. Information: I(category; expert) in nats, bias "
        "taken off, with 95 % intervals over episodes; scenes should tell more than the action before or the time in "
        "the episode."
    )
    picture = Picture(
        "scene_experts", "Mean alpha of each expert in each scene.", lambda: plots_experts.scene_plot(matrix)
    )
    return Section("Experts by scene", (note,), [_scene_grid(found), *_information_grid(found)], [picture])


def _scene_grid(found: Figures) -> Grid:
    matrix, shares = found["scene_expert_matrix"], found.get("scene_shares", {})
    experts = list(next(iter(matrix.values())))
    rows = [
        [scene, f"{100 * shares[scene]:.1f} %" if scene in shares else NONE, *(f"{row[name]:.3f}" for name in experts)]
        for scene, row in matrix.items()
    ]
    return [["scene", "states", *experts], *rows]


def _information_grid(found: Figures) -> list[Grid]:
    rows = [[label, *_with_interval(found[key], ".3f")] for key, label in _INFORMATION.items() if key in found]
    if "jensen_shannon" in found:
        rows.append(["experts' actions (Jensen-Shannon)", *_with_interval(found["jensen_shannon"], ".3f")])
    return [[["what the expert has to do with", "nats", "95 %"], *rows]] if rows else []


def _ablations(ablations: Figures) -> Section:
    note = (
        "The same games again with one thing changed, and with noise that moves the policy as far: only what the "
        "change costs beyond that noise shows that it matters what was changed. Points, paired 95 % intervals over "
        "episodes."
    )
    grid = [["change", "mean score", "score lost", "95 %", "beyond noise", "95 %", "KL (nats)"]]
    for name, one in ablations.items():
        lost, beyond = _with_interval(one["score_lost"], ".1f"), _with_interval(one["beyond_perturbation"], ".1f")
        grid.append([name, number(one.get("mean_score"), ".1f"), *lost, *beyond, number(one.get("divergence"), ".3f")])
    caption = "What each change costs, and what as much noise costs."
    picture = Picture("ablations", caption, lambda: plots_experts.ablation_plot(ablations))
    return Section("What is lost without them", (note,), [grid], [picture])


def _with_interval(figure: Figures, form: str) -> list[str]:
    return [format(figure["value"], form), f"[{figure['low']:{form}}, {figure['high']:{form}}]"]
