"""Guards: settings that move while a metric stays beyond its limit. Pure; the controller's state has their levels.

They act on what the phase controller has decided, so schedules and the closed loop go on underneath as if there were no
guard, and everything is as they want it once a guard is back at level 0. What an operator holds they leave alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from polybeast_moe.config import Guard
from polybeast_moe.learning.phases import ControllerState, Counters, GuardState, PhaseEvent, Settings


def guarded(
    guards: Mapping[str, Guard],
    state: ControllerState,
    settings: Settings,
    metrics: Mapping[str, float],
    counters: Counters,
) -> tuple[ControllerState, Settings, list[PhaseEvent]]:
    """Moves every guard by one update, if there are metrics of one, and applies their levels to the settings.

    Returns:
        The state with the guards' levels, the settings to use, and one event for every change of level. Of a guard
        that a resume has taken away nothing is kept.
    """
    states, events = dict[str, GuardState](), []
    for name, guard in guards.items():
        before = state.guards.get(name, GuardState())
        within = replace(before, level=min(before.level, guard.levels))  # a resume may have lowered the highest
        states[name] = now = _moved(guard, within, metrics.get(guard.metric, math.nan))
        settings = _applied(guard, now.level, settings, state.holds)
        if now.level != before.level:
            levels = (float(before.level), float(now.level))
            events.append(
                PhaseEvent(counters.frames, counters.episodes, settings.phase, f"guards.{name}", *levels, by="guard")
            )
    return replace(state, guards=states), settings, events


def _moved(guard: Guard, state: GuardState, value: float) -> GuardState:
    """The guard after one more update; a value that is not a number leaves it as it is."""
    if math.isnan(value):
        return state
    release = guard.release if guard.release is not None else guard.below if guard.below is not None else guard.above
    assert release is not None
    bad = value < guard.below if guard.below is not None else value > (guard.above or 0.0)
    good = not bad and (value >= release if guard.below is not None else value <= release)
    direction = 1 if bad else -1 if good else 0
    if direction == 0 or not 0 <= state.level + direction <= guard.levels:
        return replace(state, updates=0)
    updates = direction * max(0, direction * state.updates) + direction  # a run the other way begins anew
    if abs(updates) < guard.patience:
        return replace(state, updates=updates)
    return GuardState(level=state.level + direction, updates=0)


def _applied(guard: Guard, level: int, settings: Settings, holds: Mapping[str, float]) -> Settings:
    if level == 0 or guard.setting in holds:
        return settings
    section, _, name = guard.setting.rpartition(".")
    if section == "losses":
        weight = _changed(guard, level, getattr(settings.losses, name))
        if name != "alpha_entropy":  # below 0 that is a bonus, any other would be turned round
            weight = max(weight, 0.0)
        return replace(settings, losses=replace(settings.losses, **{name: weight}))
    if section == "reward":
        return replace(settings, reward={**settings.reward, name: _changed(guard, level, settings.reward[name])})
    if name == "temperature":
        return replace(settings, temperature=_changed(guard, level, settings.temperature))
    return replace(settings, learning_rate=_changed(guard, level, settings.learning_rate))


def _changed(guard: Guard, level: int, value: float) -> float:
    return value * guard.multiply**level if guard.multiply is not None else value + (guard.add or 0.0) * level
