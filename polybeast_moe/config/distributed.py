"""Several ranks that train one policy."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from polybeast_moe.config.base import Section


class DistributedConfig(Section):
    """How ranks that torchrun starts wait for each other."""

    patience: PositiveFloat = Field(
        10.0, description="seconds that an update waits for a rank's rollouts before it goes on without them"
    )
