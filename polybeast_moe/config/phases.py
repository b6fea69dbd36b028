"""The curriculum: phases and their settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, field_validator, model_validator

from polybeast_moe.config.base import Section
from polybeast_moe.config.metrics import Metric
from polybeast_moe.config.schedules import (
    Number,
    PiecewiseForm,
    RampForm,
    Schedule,
    Weight,
    ends,
    moves,
    number_or_ramp,
)
from polybeast_moe.config.weights import LossWeights, RewardWeights


def _number_ramp_or_target(value: Any) -> str:
    if isinstance(value, EntropyTarget) or (isinstance(value, dict) and "target_alpha_entropy" in value):
        return "<target>"
    return number_or_ramp(value)


class EntropyTarget(Section):
    """Closed loop: the temperature is steered so that alpha entropy (nats) follows this schedule.

    Each update takes the logarithm of the temperature `gain` of the way to where the next batch is expected to meet the
    target, within `bounds` (`learning.temperature`).
    """

    target_alpha_entropy: Schedule
    gain: float = Field(0.7, gt=0, le=1)
    bounds: tuple[PositiveFloat, PositiveFloat] = (0.05, 10.0)

    @model_validator(mode="after")
    def _bounds_ordered(self) -> EntropyTarget:
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError("bounds: the first must be below the second")
        return self


Temperature = Annotated[
    Number | RampForm | PiecewiseForm | Annotated[EntropyTarget, Tag("<target>")], Discriminator(_number_ramp_or_target)
]


class Until(Section):
    """When a phase ends: exactly one of a total of episodes, a total of frames, or a metric's threshold."""

    episodes: PositiveInt | None = None
    frames: PositiveInt | None = None
    metric: Metric | None = None
    above: float | None = None
    below: float | None = None
    patience: PositiveInt = Field(1, description="updates in a row that the threshold must hold")

    @model_validator(mode="after")
    def _one_rule(self) -> Until:
        if sum(value is not None for value in (self.episodes, self.frames, self.metric)) != 1:
            raise ValueError("give exactly one of episodes, frames, metric")
        if (self.metric is not None) != (self.above is not None or self.below is not None):
            raise ValueError("a metric goes with above or below, and they go with a metric")
        if self.above is not None and self.below is not None:
            raise ValueError("give above or below, not both")
        if self.patience > 1 and self.metric is None:
            raise ValueError("patience goes with a metric")
        return self


class PhaseConfig(Section):
    """A named stretch of the run with its own routing, temperature, learning rate and loss weights."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    until: Until
    routing: Literal["softmax", "sparsemax"]
    temperature: Temperature = 1.0
    learning_rate: Weight = 5e-4
    losses: LossWeights = LossWeights()
    reward: RewardWeights = RewardWeights()

    @field_validator("temperature")
    @classmethod
    def _above_zero(cls, value: Temperature) -> Temperature:
        if not isinstance(value, EntropyTarget) and ends(value)[0] <= 0:
            raise ValueError(f"must stay above 0 (got {ends(value)[0]:g})")
        return value

    @model_validator(mode="after")
    def _no_fight(self) -> PhaseConfig:
        if isinstance(self.temperature, EntropyTarget) and self.losses.alpha_entropy is not None:
            raise ValueError("a target_alpha_entropy and an alpha_entropy loss fight each other: keep one")
        return self

    @model_validator(mode="after")
    def _ramps_need_a_known_end(self) -> PhaseConfig:
        ramps = [key for key, schedule in self.schedules().items() if moves(schedule)]
        if self.until.metric is not None and ramps:
            raise ValueError(
                f"{ramps[0]} is a ramp, but a phase that ends at a metric's threshold has no length known in advance: "
                "use a constant, or end the phase at a total of frames or episodes"
            )
        return self

    def schedules(self) -> dict[str, Schedule]:
        """Returns every scalar of the phase that may move, by dotted key."""
        temperature = self.temperature
        return {
            "temperature": temperature.target_alpha_entropy if isinstance(temperature, EntropyTarget) else temperature,
            "learning_rate": self.learning_rate,
            **{f"losses.{name}": weight for name, weight in self.losses.schedules().items()},
            **{f"reward.{term}": getattr(self.reward, term) for term in RewardWeights.model_fields},
        }
