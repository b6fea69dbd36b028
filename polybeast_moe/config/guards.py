"""Guards: what is done, not only said, when a run goes wrong."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from polybeast_moe.config.base import Section
from polybeast_moe.config.metrics import Metric


class Guard(Section):
    """A metric that must not stay beyond a limit, and a setting of the phase that is moved while it does.

    After `patience` updates in a row beyond the limit the guard rises a level, and again after as many more; once the
    metric is back behind `release` it sinks in the same way. Each level multiplies the setting, or adds to it.
    """

    metric: Metric = Field(description="of an update, as metrics.csv names it")
    below: float | None = None
    above: float | None = None
    release: float | None = Field(None, description="None: the limit itself")
    patience: PositiveInt = 20
    setting: str = Field(description="temperature, learning_rate, losses.NAME or reward.NAME")
    multiply: PositiveFloat | None = None
    add: float | None = None
    levels: PositiveInt = Field(4, description="the highest level")

    @model_validator(mode="after")
    def _one_limit_and_one_action(self) -> Guard:
        if (self.below is None) == (self.above is None):
            raise ValueError("give exactly one of below, above")
        if (self.multiply is None) == (self.add is None):
            raise ValueError("give exactly one of multiply, add")
        if self.add is not None and self.add < 0 and self.setting in ("temperature", "learning_rate"):
            raise ValueError(f"add would take {self.setting} below 0: multiply it by less than 1")
        low, high = self.below, self.above
        if self.release is not None and (
            (low is not None and self.release < low) or (high is not None and self.release > high)
        ):
            raise ValueError("release must lie on the good side of the limit")
        return self


class RollbackConfig(Section):
    """What happens after updates whose loss or gradient was not finite, each of which is skipped."""

    after: PositiveInt = Field(10, description="skipped updates in a row until the last good weights come back")
    copy_every: PositiveInt = Field(100, description="updates between copies of the weights")
    give_up_after: PositiveInt = Field(5, description="returns without an update applied in between")
