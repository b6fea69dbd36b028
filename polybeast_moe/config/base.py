"""What every section of the configuration is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

MISFIT = "misfit"


def misfit(at: tuple[str | int, ...], what: str) -> PydanticCustomError:
    """Returns the error for values that are each valid but do not go together; `at` is the key to blame."""
    return PydanticCustomError(MISFIT, "{what}", {"at": at, "what": what})


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
