"""What the report of one run says, section by section. A section without data is left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polybeast_moe.evaluation import plots, plots_training
from polybeast_moe.evaluation.breakdowns import endings, score_parts, segments
from polybeast_moe.evaluation.report_data import RunData
from polybeast_moe.evaluation.report_experts import expert_sections
from polybeast_moe.evaluation.report_page import Picture, Section
from polybeast_moe.evaluation.report_text import (
    bucket_grid,
    deaths_grid,
    endings_grid,
    event_grid,
    parts_grid,
    phase_grid,
    plus_minus,
    segment_grid,
    verdict_grid,
)
from polybeast_moe.evaluation.tables import (
    RANDOM_POLICY,
    PhaseRow,
    phase_rows,
    row_spans,
    scores_by_phase,
    verdicts,
)

MAX_EVENTS = 300


def run_sections(run: RunData) -> list[Section]:
    """Returns the sections of a run's report. Raises UserError for a target that the report does not know."""
    rows = phase_rows(run)
    judged = verdicts(run, rows)
    found = [Section("Summary", _summary(run, rows, [verdict.result for verdict in judged]))]
    if judged:
        found.append(Section("Targets", (), [verdict_grid(judged)]))
    found.append(_phases(rows))
    if run.episodes.length:
        found += [_score(run), _segments(run)]
    if any(len(scores) for scores in scores_by_phase(run).values()):
        found.append(_distribution(run))
    found += [*_score_parts(run), *_endings(run), *_training(run), *expert_sections(run), *_events(run)]
    if run.config_text:
        note = "The whole configuration of the run, every default filled in."
        found.append(Section("Configuration", (note,), appendix=run.config_text))
    return found


PHASE_NOTE = (
    "Score: the last in-game score before an episode's end. se: standard error of the mean, sd / sqrt(episodes). "
    "Entropies and routing information in nats, means over the phase weighted by frames: alpha entropy is the mean "
    "over states of H(alpha), usage entropy is H(mean alpha), routing information their difference. The random policy "
    "chooses actions uniformly, under the same protocol."
)


def _summary(run: RunData, rows: Sequence[PhaseRow], results: Sequence[str]) -> list[str]:
    frames, seconds = row_spans(run)
    task = run.config.get("env", {})
    lines = [
        f"{run.episodes.length:,} episodes and {int(frames.sum()):,} frames in {seconds.sum() / 60:.1f} minutes"
        + (f" on {task['task']} as {task['character']}" if {"task", "character"} <= task.keys() else "")
        + (f", seed {run.config['seed']}" if "seed" in run.config else "")
        + "."
    ]
    if results:
        unsure = len(results) - results.count("met") - results.count("missed")
        lines.append(
            f"Verdict: {results.count('met')} of {len(results)} targets met, {results.count('missed')} missed"
            + (f", {unsure} not judged for want of episodes." if unsure else ".")
        )
    else:
        lines.append("Verdict: none, the configuration sets no targets.")
    played = [row for row in rows if row.mean_score is not None and row.phase != RANDOM_POLICY]
    if played:
        lines.append(f"Mean score of the last phase played, {played[-1].phase}: {_mean_score(played[-1])}.")
        lines += [f"Mean score of the random policy: {_mean_score(row)}." for row in rows if row.phase == RANDOM_POLICY]
    return lines


def _mean_score(row: PhaseRow) -> str:
    return f"{plus_minus(row.mean_score, row.standard_error, '.1f')} (± standard error, {row.episodes:,} episodes)"


def _phases(rows: Sequence[PhaseRow]) -> Section:
    pictures = []
    if any(row.mean_score is not None for row in rows):
        caption = "The phases beside each other. Bars end at the figure in the table, whiskers at its error or spread."
        pictures.append(Picture("phases", caption, lambda: plots.phases_plot(rows)))
    return Section("Phases", (PHASE_NOTE,), [phase_grid(rows)], pictures)


def _score(run: RunData) -> Section:
    caption = (
        "Score of every episode, the last score before its end (dots), and the mean of the last "
        f"{plots.RUNNING_EPISODES} (line); squares: snapshots in held-out games, if any were played. "
        "The axis is logarithmic above 10. Grey bands are phases."
    )
    return Section("Score over time", pictures=[Picture("score", caption, lambda: plots.score_plot(run))])


def _segments(run: RunData) -> Section:
    found = segments(run)
    size = found[0].last - found[0].first + 1
    note = f"Consecutive episodes, {size:,} at a time, in the order in which they were counted; se as above."
    caption = "Mean score ± standard error and median of each segment."
    picture = Picture("segments", caption, lambda: plots.segments_plot(run, found))
    return Section("Score by segments of episodes", (note,), [segment_grid(found)], [picture])


def _distribution(run: RunData) -> Section:
    note = "Each bucket holds its lower bound; the first also holds scores below zero."
    pictures = [
        Picture(
            "score_distribution", "Share of episodes by score, in each phase.", lambda: plots.distribution_plot(run)
        ),
        Picture(
            "score_cdf",
            "Share of episodes with at most so many points, in each phase: the further right, the better. The axis is "
            "logarithmic above 10.",
            lambda: plots.cdf_plot(run),
        ),
    ]
    return Section("Score distribution", (note,), [bucket_grid(run)], pictures)


def _score_parts(run: RunData) -> list[Section]:
    found = score_parts(run)
    if not found:
        return []
    note = (
        "NetHack's score is experience (kills, first uses, discoveries), 50 points for each level below the first that "
        "was reached, and the gold gained. Means over the episodes of a phase, in points, with the share of the whole."
    )
    picture = Picture("score_parts", "Mean score of each phase by its parts.", lambda: plots.parts_plot(found))
    return [Section("What scores are made of", (note,), [parts_grid(found)], [picture])]


def _endings(run: RunData) -> list[Section]:
    found = endings(run)
    if not found:
        return []
    note = "Depth: the deepest level of an episode. Length in steps."
    grids = [endings_grid(found)]
    if any(group.deaths for group in found):
        note += " Causes of death are NetHack's own words, as shares of all episodes."
        grids.append(deaths_grid(found))
    return [Section("How games ended", (note,), grids)]


def _training(run: RunData) -> list[Section]:
    if not run.metrics.length:
        return []
    router = (
        "Above: alpha entropy (mean of H over states), usage entropy (H of the mean) and routing information, their "
        "difference; shaded boxes are targets for alpha entropy. Below: the router's temperature."
    )
    found = [
        Section("Routing over time", pictures=[Picture("router", router, lambda: plots_training.router_plot(run))])
    ]
    if run.experts:
        caption = "Share of each expert in the router's mean weights."
        picture = Picture("experts", caption, lambda: plots_training.experts_plot(run))
        found.append(Section("Experts over time", pictures=[picture]))
    if plots_training.has_learner_plot(run):
        caption = (
            "The learner: losses as they are minimised, entropy of the actions, share of the value targets' variance "
            "that the baseline explains, share of V-trace ratios above their clip, gradient norm before clipping."
        )
        picture = Picture("learner", caption, lambda: plots_training.learner_plot(run))
        found.append(Section("Learning over time", pictures=[picture]))
    if plots_training.has_machine_plot(run):
        caption = (
            "Frames a second; how busy engine, policy worker (inference) and learner (update) were: the busiest is "
            "what the others wait for; updates between the policy that acted and the one that learns; memory; restarts."
        )
        picture = Picture("machine", caption, lambda: plots_training.machine_plot(run))
        found.append(Section("Throughput", _throughput(run), pictures=[picture]))
    return found


def _throughput(run: RunData) -> list[str]:
    frames, seconds = row_spans(run)
    lines = []
    if seconds.sum() > 0:
        lines.append(f"{frames.sum() / seconds.sum():,.0f} frames/s over the whole run.")
    restarts = run.metrics.floats("restarts")
    restarts = restarts[np.isfinite(restarts)]
    if len(restarts):
        lines.append(f"Processes that died and were replaced: {restarts[-1]:.0f}.")
    return lines


def _events(run: RunData) -> list[Section]:
    if not run.events:
        return []
    shown = run.events[-MAX_EVENTS:]
    note = "What the phase controller, guards and human operators changed, and when."
    if len(shown) < len(run.events):
        note += f" The last {MAX_EVENTS} of {len(run.events):,}; phases.jsonl has all of them."
    return [Section("Events", (note,), [event_grid(shown)])]
