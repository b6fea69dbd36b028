"""The curriculum: phases, their settings, and schedules over them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from polybeast_moe.config.base import Section


class Ramp(Section):
    """A scalar that moves from one value to another over its phase."""

    from_: float = Field(alias="from")
    to: float
    shape: Literal["linear", "cosine", "exponential"] = "linear"

    @model_validator(mode="after")
    def _exponential_needs_positive(self) -> Ramp:
        if self.shape == "exponential" and (self.from_ <= 0 or self.to <= 0):
            raise ValueError("an exponential ramp needs both ends above zero")
        return self


def _number_or_ramp(value: Any) -> str:
    """Chooses the form that the user meant, so that an error speaks of that form alone."""
    return "<ramp>" if isinstance(value, Ramp | dict) else "<number>"


def _number_ramp_or_target(value: Any) -> str:
    if isinstance(value, EntropyTarget) or (isinstance(value, dict) and "target_alpha_entropy" in value):
        return "<target>"
    return _number_or_ramp(value)


_Number = Annotated[float, Tag("<number>")]
_Ramp = Annotated[Ramp, Tag("<ramp>")]
Schedule = Annotated[_Number | _Ramp, Discriminator(_number_or_ramp)]


class EntropyTarget(Section):
    """Closed loop: the temperature is steered so that alpha entropy (nats) follows this schedule.

    Each update multiplies the temperature by exp(gain * (target - alpha entropy)), kept within `bounds`.
    """

    target_alpha_entropy: Schedule
    gain: PositiveFloat = 0.1
    bounds: tuple[PositiveFloat, PositiveFloat] = (0.05, 10.0)

    @model_validator(mode="after")
    def _bounds_ordered(self) -> EntropyTarget:
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError("bounds: the first must be below the second")
        return self


Temperature = Annotated[
    _Number | _Ramp | Annotated[EntropyTarget, Tag("<target>")], Discriminator(_number_ramp_or_target)
]


def ends(schedule: Schedule) -> tuple[float, float]:
    """Returns a schedule's lowest and highest value."""
    values = (schedule.from_, schedule.to) if isinstance(schedule, Ramp) else (schedule, schedule)
    return min(values), max(values)


class Until(Section):
    """When a phase ends: exactly one of a total of episodes, a total of frames, or a metric's threshold."""

    episodes: PositiveInt | None = None
    frames: PositiveInt | None = None
    metric: str | None = None
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Until:
        if sum(value is not None for value in (self.episodes, self.frames, self.metric)) != 1:
            raise ValueError("give exactly one of episodes, frames, metric")
        if (self.metric is not None) != (self.above is not None or self.below is not None):
            raise ValueError("a metric goes with above or below, and they go with a metric")
        if self.above is not None and self.below is not None:
            raise ValueError("give above or below, not both")
        return self


def _no_less_than_zero(schedule: Schedule) -> Schedule:
    low, _ = ends(schedule)
    if low < 0:
        raise ValueError(f"must not be below 0 (got {low:g})")
    return schedule


Weight = Annotated[Schedule, AfterValidator(_no_less_than_zero)]


class AlphaEntropyLoss(Section):
    """A penalty on (minimize) or bonus for (maximize) the mean alpha entropy."""

    weight: Weight
    direction: Literal["minimize", "maximize"] = "minimize"


class LossWeights(Section):
    """Weights of the losses in a phase; each may be a constant or a schedule over the phase."""

    policy: Weight = 1.0
    baseline: Weight = 0.5
    entropy: Weight = 0.01
    alpha_entropy: AlphaEntropyLoss | None = None
    load_balance: Weight = 0.0


class PhaseConfig(Section):
    """A named stretch of the run with its own routing, temperature, learning rate and loss weights."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    until: Until
    routing: Literal["softmax", "sparsemax"]
    temperature: Temperature = 1.0
    learning_rate: Weight = 5e-4
    losses: LossWeights = LossWeights()

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
        ramps = [key for key, schedule in self.schedules().items() if isinstance(schedule, Ramp)]
        if self.until.metric is not None and ramps:
            raise ValueError(
                f"{ramps[0]} is a ramp, but a phase that ends at a metric's threshold has no length known in advance: "
                "use a constant, or end the phase at a total of frames or episodes"
            )
        return self

    def schedules(self) -> dict[str, Schedule]:
        """Returns every scalar of the phase that may move, by dotted key."""
        temperature, losses = self.temperature, self.losses
        return {
            "temperature": temperature.target_alpha_entropy if isinstance(temperature, EntropyTarget) else temperature,
            "learning_rate": self.learning_rate,
            "losses.policy": losses.policy,
            "losses.baseline": losses.baseline,
            "losses.entropy": losses.entropy,
            "losses.alpha_entropy": losses.alpha_entropy.weight if losses.alpha_entropy is not None else 0.0,
            "losses.load_balance": losses.load_balance,
        }
