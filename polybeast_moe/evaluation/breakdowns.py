"""Scores looked at more closely: over segments of episodes, by what they are made of, by how games ended."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from polybeast_moe.evaluation import score
from polybeast_moe.evaluation.endings import count_deaths, ending
from polybeast_moe.evaluation.report_data import DataTable, RunData
from polybeast_moe.evaluation.statistics import Floats, standard_error
from polybeast_moe.evaluation.tables import RANDOM_POLICY

SEGMENT_EPISODES = 500
MAX_SEGMENTS = 30


@dataclass(frozen=True)
class Segment:
    """Consecutive episodes: numbers of the first and the last, the phases they fell in, and their figures."""

    first: int
    last: int
    phases: tuple[str, ...]
    frames: float
    """Of the run, when the last one was counted."""
    mean_score: float
    standard_error: float | None
    median_score: float
    max_score: float
    alpha_entropy: float | None
    """Mean over episodes of their means over states of H(alpha), in nats."""


@dataclass(frozen=True)
class ScoreParts:
    """What the mean score of a group of episodes is made of, in points."""

    phase: str
    episodes: int
    mean_score: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Endings:
    """How the episodes of a group ended (ending -> share), what heroes died of (NetHack's words -> episodes), how long
    the episodes were and how deep they went."""

    phase: str
    episodes: int
    shares: dict[str, float]
    deaths: dict[str, int]
    mean_length: float | None
    mean_depth: float | None
    max_depth: float | None


def segments(run: RunData) -> list[Segment]:
    """Returns segments of 500 episodes in the order of `episodes.csv`; of a multiple of 500 in a long run."""
    scores = run.episodes.floats("score")
    size = SEGMENT_EPISODES * max(1, math.ceil(len(scores) / (SEGMENT_EPISODES * MAX_SEGMENTS)))
    return [_segment(run, begin, min(begin + size, len(scores))) for begin in range(0, len(scores), size)]


def score_parts(run: RunData) -> list[ScoreParts]:
    """Returns what scores are made of in each phase, and the random policy's; none where gold was not recorded."""
    return [found for phase, table in _groups(run) if (found := _parts(phase, table)) is not None]


def endings(run: RunData) -> list[Endings]:
    """Returns how games ended in each phase, and those of the random policy; none where that was not recorded."""
    return [found for phase, table in _groups(run) if (found := _endings(phase, table)) is not None]


def ending_names(groups: list[Endings]) -> list[str]:
    """Returns the endings that occur, the most frequent first."""
    names = dict.fromkeys(name for group in groups for name in group.shares)
    return sorted(names, key=lambda name: -sum(group.shares.get(name, 0.0) * group.episodes for group in groups))


def _groups(run: RunData) -> list[tuple[str, DataTable]]:
    phases = run.episodes.strings("phase")
    groups = [(phase, run.episodes.where(phases == phase)) for phase in run.phases]
    if run.random_episodes is not None:
        groups.append((RANDOM_POLICY, run.random_episodes))
    return [(phase, table) for phase, table in groups if table.length]


def _segment(run: RunData, begin: int, end: int) -> Segment:
    part = slice(begin, end)
    scores = run.episodes.floats("score")[part]
    known = scores[np.isfinite(scores)]
    count = len(known)
    return Segment(
        first=begin + 1,
        last=end,
        phases=tuple(dict.fromkeys(str(phase) for phase in run.episodes.strings("phase")[part])),
        frames=float(run.episodes.floats("frames")[end - 1]),
        mean_score=float(known.mean()) if count else math.nan,
        standard_error=standard_error(known),
        median_score=float(np.median(known)) if count else math.nan,
        max_score=float(known.max()) if count else math.nan,
        alpha_entropy=_mean(run.episodes.floats("alpha_entropy")[part]),
    )


def _parts(phase: str, table: DataTable) -> ScoreParts | None:
    scores, depth, gold = (table.floats(name) for name in ("score", "depth", "gold"))
    known = np.isfinite(scores) & np.isfinite(depth) & np.isfinite(gold)
    if not known.any():
        return None
    parts = score.score_parts(scores[known], depth[known], gold[known])
    means = {name: float(points.mean()) for name, points in parts.items()}
    return ScoreParts(phase, int(known.sum()), float(scores[known].mean()), means)


def _endings(phase: str, table: DataTable) -> Endings | None:
    how = table.floats("how_done")
    known = how[np.isfinite(how)]
    if not len(known):
        return None
    depth = table.floats("depth")
    shares: dict[str, float] = {}
    for code in known:
        name = ending(int(code))
        shares[name] = shares.get(name, 0.0) + 1 / len(known)
    return Endings(
        phase,
        len(known),
        shares,
        count_deaths((int(code), death) for code, death in zip(how, table.strings("death"), strict=True) if code >= 0),
        mean_length=_mean(table.floats("length")),
        mean_depth=_mean(depth),
        max_depth=float(np.nanmax(depth)) if np.isfinite(depth).any() else None,
    )


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
