"""Values that a human operator holds against a phase's schedules, until they are released or the phase ends. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polybeast_moe.config import AlphaEntropyLoss, EntropyTarget, PhaseConfig

TARGET = "target_alpha_entropy"


def holdable(phase: PhaseConfig) -> tuple[str, ...]:
    """Returns the keys of the phase's scalars, as phases and events name them."""
    target = (TARGET,) if isinstance(phase.temperature, EntropyTarget) else ()
    return (*phase.schedules(), *target)


def held(phase: PhaseConfig, holds: Mapping[str, float]) -> PhaseConfig:
    """Returns the phase with every held value in place of its schedule.

    A held temperature suspends the closed loop; once released, the loop goes on from there.
    """
    for key in sorted(holds, key=lambda key: key == "temperature"):  # last: it takes the place of a target
        phase = _with(phase, key, holds[key])
    return phase


def _with(phase: PhaseConfig, key: str, value: float) -> PhaseConfig:
    changed: Any = value
    if key == TARGET:
        if not isinstance(phase.temperature, EntropyTarget):
            return phase
        key, changed = "temperature", phase.temperature.model_copy(update={TARGET: value})
    section, _, name = key.rpartition(".")
    if not section:
        return phase.model_copy(update={name: changed})
    if key == "losses.alpha_entropy":
        penalty = phase.losses.alpha_entropy or AlphaEntropyLoss(weight=value)
        changed = penalty.model_copy(update={"weight": value})
    inner = getattr(phase, section)
    return phase.model_copy(update={section: inner.model_copy(update={name: changed})})
