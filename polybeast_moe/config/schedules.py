"""Scalars of a phase: a number, or one that moves over the phase."""

from __future__ import annotations

from itertools import pairwise
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


class Piecewise(Section):
    """A scalar that moves in straight lines between points of (share of the phase, value)."""

    points: tuple[tuple[float, float], ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _from_beginning_to_end(self) -> Piecewise:
        shares = [share for share, _ in self.points]
        if shares[0] != 0 or shares[-1] != 1 or any(b <= a for a, b in pairwise(shares)):
            raise ValueError("points are [share of the phase, value], their shares growing from 0 to 1")
        return self


def number_or_ramp(value: Any) -> str:
    """Chooses the form that the user meant, so that an error speaks of that form alone."""
    if isinstance(value, Piecewise) or (isinstance(value, dict) and "points" in value):
        return "<points>"
    return "<ramp>" if isinstance(value, Ramp | dict) else "<number>"


Number = Annotated[float, Tag("<number>")]
RampForm = Annotated[Ramp, Tag("<ramp>")]
PiecewiseForm = Annotated[Piecewise, Tag("<points>")]
Schedule = Annotated[Number | RampForm | PiecewiseForm, Discriminator(number_or_ramp)]


def moves(schedule: object) -> bool:
    """Whether a scalar's value depends on how far its phase has come."""
    return isinstance(schedule, Ramp | Piecewise)


def ends(schedule: Schedule) -> tuple[float, float]:
    """Returns a schedule's lowest and highest value."""
    if isinstance(schedule, Piecewise):
        values = [value for _, value in schedule.points]
    else:
        values = [schedule.from_, schedule.to] if isinstance(schedule, Ramp) else [schedule]
    return min(values), max(values)


def _no_less_than_zero(schedule: Schedule) -> Schedule:
    low, _ = ends(schedule)
    if low < 0:
        raise ValueError(f"must not be below 0 (got {low:g})")
    return schedule


Weight = Annotated[Schedule, AfterValidator(_no_less_than_zero)]
