"""Scalars of a phase: a number, or one that moves over the phase."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

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


def number_or_ramp(value: Any) -> str:
    """Chooses the form that the user meant, so that an error speaks of that form alone."""
    return "<ramp>" if isinstance(value, Ramp | dict) else "<number>"


Number = Annotated[float, Tag("<number>")]
RampForm = Annotated[Ramp, Tag("<ramp>")]
Schedule = Annotated[Number | RampForm, Discriminator(number_or_ramp)]


def ends(schedule: Schedule) -> tuple[float, float]:
    """Returns a schedule's lowest and highest value."""
    values = (schedule.from_, schedule.to) if isinstance(schedule, Ramp) else (schedule, schedule)
    return min(values), max(values)


def _no_less_than_zero(schedule: Schedule) -> Schedule:
    low, _ = ends(schedule)
    if low < 0:
        raise ValueError(f"must not be below 0 (got {low:g})")
    return schedule


Weight = Annotated[Schedule, AfterValidator(_no_less_than_zero)]
