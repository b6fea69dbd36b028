"""What a run keeps and tells of itself: snapshots, metrics, evaluations, and the targets that its report judges by."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from polybeast_moe.config.base import Section
from polybeast_moe.errors import nearest

TARGET_FIGURES = ("mean_score", "median_score", "max_score", "score_sd", "alpha_entropy", "usage_entropy")
"""Figures of a phase, as the report's table has them, that `targets` may name."""


def _known(name: str) -> str:
    if name not in TARGET_FIGURES:
        raise ValueError(f"is no figure that a target can have{nearest(name, TARGET_FIGURES)}")
    return name


TargetFigure = Annotated[str, AfterValidator(_known)]


class Bound(Section):
    """A target on one figure of the report: at least, at most, or within two values."""

    at_least: float | None = None
    at_most: float | None = None
    within: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Bound:
        if sum(value is not None for value in (self.at_least, self.at_most, self.within)) != 1:
            raise ValueError("give exactly one of at_least, at_most, within")
        if self.within is not None and self.within[0] > self.within[1]:
            raise ValueError("within: the first must not be above the second")
        return self


class SnapshotConfig(Section):
    """When snapshots are written and which are kept. Each phase's end and the run's end write one too, and stay."""

    every_seconds: PositiveFloat = 30.0
    keep_last: PositiveInt = 3
    keep_every: PositiveInt | None = Field(None, description="also keep every n-th snapshot for good")
    replay_steps: NonNegativeInt = Field(
        100_000, description="inline: longest episode, in steps, that is kept to be gone on with after a resume"
    )


class MonitoringConfig(Section):
    """Cadence of metrics rows (seconds), which sinks get them beside the CSV files, and how many replays are kept."""

    every_seconds: PositiveFloat = 5.0
    tensorboard: bool = True
    wandb: str | None = Field(None, min_length=1, description="project of Weights & Biases; needs the package wandb")
    replays: NonNegativeInt = 10


class EvaluationConfig(Section):
    """What is measured beside training: held-out episodes of snapshots, and a uniformly random policy.

    Every `every_seconds` the newest snapshot plays `episodes` held-out games in a process of its own, less often where
    that would take more than `share` of the machine.
    """

    random_episodes: NonNegativeInt = 0
    every_seconds: PositiveFloat | None = Field(None, description="None: no evaluation during training")
    episodes: PositiveInt = 100
    seed: int = Field(1_000_003, ge=0, lt=2**63)
    share: float = Field(0.1, gt=0, le=1, description="of the machine's processor time, at most")
    threads: PositiveInt = 1
