"""The phase controller: from the run's counters and the latest metrics to the settings of the next update. Pure.

A phase begins where the one before it was left, so its schedules run from the counters of that moment to the phase's
`until`. A metric's threshold is looked at from the phase's first update on, never at figures measured in the phase
before; such a phase has no length known in advance, so it may not hold ramps (the configuration refuses them).

The closed loop (`target_alpha_entropy`) is `learning.temperature`: it begins with the temperature in force and takes
one step an update, from the `matching_temperature` that the learner has measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from polybeast_moe.config import EntropyTarget, PhaseConfig, RewardWeights, Until, moves
from polybeast_moe.errors import UserError, nearest
from polybeast_moe.learning.holds import held
from polybeast_moe.learning.schedules import describe, value_at
from polybeast_moe.learning.temperature import clamped, steered
from polybeast_moe.ops.mixture import Routing


@dataclass(frozen=True)
class Counters:
    """What the learner has consumed since the run began."""

    frames: int = 0
    episodes: int = 0
    updates: int = 0


@dataclass(frozen=True)
class LossSettings:
    """Weights of the losses; `alpha_entropy` is positive to minimise alpha entropy and negative to maximise it."""

    policy: float
    baseline: float
    entropy: float
    alpha_entropy: float
    load_balance: float
    expert_diversity: float = 0.0
    semantic_orthogonality: float = 0.0
    graph_alignment: float = 0.0
    temporal_consistency: float = 0.0
    overlap: float = 0.0
    graph_smoothing: float = 0.0
    extra: float = 0.0


@dataclass(frozen=True)
class Settings:
    """What the controller decides: everything that a phase sets, at one moment."""

    phase: str
    phase_index: int
    routing: Routing
    temperature: float
    learning_rate: float
    losses: LossSettings
    reward: Mapping[str, float] = field(default_factory=lambda: {"task": 1.0})
    """Weights of the training reward: of `task` and of the engine's reward terms; 0 where there is none."""
    target_alpha_entropy: float | None = None
    """What the closed loop steers alpha entropy to, in nats; None where it is open."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        """Reverses `asdict`."""
        return cls(**{**data, "losses": LossSettings(**data["losses"])})


@dataclass(frozen=True)
class PhaseEvent:
    """One change by the controller or a human operator. A schedule is one event at its start and one at its end."""

    frames: int
    episodes: int
    phase: str
    key: str
    old: float | str | None
    new: float | str | None
    by: str = "controller"

    def to_dict(self) -> dict[str, Any]:
        """Returns the event as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class GuardState:
    """A guard's level, and for how many updates in a row it has been bad (or, below 0, good)."""

    level: int = 0
    updates: int = 0


@dataclass(frozen=True)
class ControllerState:
    """All that the controller remembers. `ControllerState()` is a run that has not begun.

    Attributes:
        start: the counters at which the current phase began.
        updates: the update whose metrics were used last.
        settings: what is in force; None before the first `advance`.
        finished: the last phase's end was reached.
        held_for: updates in a row at which the metric that ends the phase was beyond its threshold.
        matching: the matching temperature of the update before, where the loop is closed.
        holds: what an operator holds against the current phase's schedules; a phase's end forgets it.
        left: an operator asked for the current phase's end; stays if that ended the run.
        guards: how they stand, by name (`learning.guards`).
    """

    start: Counters = Counters()
    updates: int = 0
    settings: Settings | None = None
    finished: bool = False
    held_for: int = 0
    matching: float | None = None
    holds: Mapping[str, float] = field(default_factory=dict)
    left: bool = False
    guards: Mapping[str, GuardState] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the state as JSON holds it; `from_dict` continues exactly."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ControllerState:
        """Reverses `to_dict`."""
        settings = Settings.from_dict(data["settings"]) if data["settings"] is not None else None
        guards = {name: GuardState(**guard) for name, guard in data["guards"].items()}
        return cls(**{**data, "start": Counters(**data["start"]), "settings": settings, "guards": guards})


def advance(
    phases: Sequence[PhaseConfig], state: ControllerState, counters: Counters, metrics: Mapping[str, float]
) -> tuple[ControllerState, Settings, list[PhaseEvent]]:
    """Moves the controller to `counters`; several phases may be passed at once.

    Args:
        phases: the curriculum; may have changed since `state` was saved, as long as the state's phase is still in it.
        state: the state that the last call returned.
        counters: what has been consumed so far.
        metrics: figures of the latest update; the closed loop reads `matching_temperature`.

    Returns:
        The new state, the settings for the next update, and what changed.

    Raises:
        UserError: the state is in a phase that the curriculum no longer has.
    """
    begun, fresh = state.settings is not None, counters.updates > state.updates
    index = _current_index(phases, state)
    phases = (*phases[:index], held(phases[index], state.holds), *phases[index + 1 :])
    held_for = state.held_for
    if fresh and begun:
        held_for = held_for + 1 if _beyond(phases[index].until, metrics) else 0
    over = state.left or (state.finished and phases[index].until.metric is not None)  # whatever the counters say
    end = index + over
    while end < len(phases) and _reached(phases[end].until, counters, held_for if end == index else 0):
        end += 1
    finished = end == len(phases)
    end = min(end, len(phases) - 1)

    if not begun or end != index:
        settings = _settings(phases[end], end, 1.0 if finished else 0.0, state.settings)
        events = _events_of_entering(phases[index : end + 1], state.settings, settings, counters)
        entered = ControllerState(counters, counters.updates, settings, finished, guards=state.guards)
        return entered, settings, events

    before = _in_force(state)
    if finished:
        events = [] if state.finished else _events_of_leaving(phases[index], before, counters)
        return replace(state, updates=counters.updates, finished=True), before, events
    progress = _progress(phases[index].until, state.start, counters)
    settings = _settings(phases[index], index, progress, before)
    loop = phases[index].temperature
    matching = state.matching if isinstance(loop, EntropyTarget) else None
    if fresh and isinstance(loop, EntropyTarget):
        temperature, matching = steered(before.temperature, metrics.get("matching_temperature"), matching, loop)
        settings = replace(settings, temperature=temperature)
    events = _events_of_overrides(phases[index], before, settings, counters)
    state = replace(state, held_for=held_for, matching=matching)
    return replace(state, updates=counters.updates, settings=settings, finished=False), settings, events


def phase_progress(phases: Sequence[PhaseConfig], state: ControllerState, counters: Counters) -> float:
    """Returns how far the current phase has come, in [0, 1]; 0 throughout where its length is not known."""
    if state.finished:
        return 1.0
    return _progress(phases[_current_index(phases, state)].until, state.start, counters)


def run_progress(phases: Sequence[PhaseConfig], state: ControllerState, counters: Counters) -> float:
    """Returns how far the whole run has come, in [0, 1]: by its last total, or by phases where that is a metric."""
    until = phases[-1].until
    if until.frames is not None:
        return min(1.0, counters.frames / until.frames)
    if until.episodes is not None:
        return min(1.0, counters.episodes / until.episodes)
    return (_current_index(phases, state) + phase_progress(phases, state, counters)) / len(phases)


def _current_index(phases: Sequence[PhaseConfig], state: ControllerState) -> int:
    if state.settings is None:
        return 0
    names = [phase.name for phase in phases]
    if state.settings.phase not in names:
        raise UserError(
            f"phases: the run is in phase {state.settings.phase!r}, which the configuration no longer has"
            f"{nearest(state.settings.phase, names)}"
        )
    return names.index(state.settings.phase)


def _in_force(state: ControllerState) -> Settings:
    assert state.settings is not None
    return state.settings


def _reached(until: Until, counters: Counters, held_for: int) -> bool:
    if until.frames is not None:
        return counters.frames >= until.frames
    if until.episodes is not None:
        return counters.episodes >= until.episodes
    return held_for >= until.patience


def _beyond(until: Until, metrics: Mapping[str, float]) -> bool:
    """Whether the metric that ends a phase is beyond its threshold."""
    value = metrics.get(until.metric or "", math.nan)  # comparisons with nan are false
    return value >= until.above if until.above is not None else value <= (until.below or 0.0)


def _progress(until: Until, start: Counters, now: Counters) -> float:
    """Returns how far a phase that is not over has come, in [0, 1); 0 throughout where its length is not known."""
    if until.frames is not None:
        return (now.frames - start.frames) / (until.frames - start.frames)
    if until.episodes is not None:
        return (now.episodes - start.episodes) / (until.episodes - start.episodes)
    return 0.0


def _settings(phase: PhaseConfig, index: int, progress: float, before: Settings | None) -> Settings:
    """Returns the phase's settings at `progress`; a closed loop holds the temperature where it was."""
    losses = {name: value_at(weight, progress) for name, weight in phase.losses.schedules().items()}
    if phase.losses.alpha_entropy is not None and phase.losses.alpha_entropy.direction == "maximize":
        losses["alpha_entropy"] = -losses["alpha_entropy"]
    target = None
    if isinstance(phase.temperature, EntropyTarget):
        target = value_at(phase.temperature.target_alpha_entropy, progress)
        temperature = clamped(before.temperature if before is not None else 1.0, phase.temperature.bounds)
    else:
        temperature = value_at(phase.temperature, progress)
    return Settings(
        phase=phase.name,
        phase_index=index,
        routing=phase.routing,
        temperature=temperature,
        learning_rate=value_at(phase.learning_rate, progress),
        losses=LossSettings(**losses),
        reward={term: value_at(getattr(phase.reward, term), progress) for term in RewardWeights.model_fields},
        target_alpha_entropy=target,
    )


# Events.


def _events_of_entering(
    passed: Sequence[PhaseConfig], before: Settings | None, settings: Settings, counters: Counters
) -> list[PhaseEvent]:
    """Returns what changes on the way from `passed[0]` (left, unless the run begins) to `passed[-1]` (entered)."""
    events = []
    if before is not None:
        events += _events_of_leaving(passed[0], before, counters)
    name = None if before is None else before.phase
    for phase in passed if before is None else passed[1:]:
        events.append(_event(counters, phase.name, "phase", name, phase.name))
        name = phase.name
    old = {} if before is None else _flat(before)
    plan = _plan(passed[-1])
    for key, value in _flat(settings).items():
        new = plan.get(key, value)
        if new != old.get(key, 0.0):  # what has no weight from the start on is not told
            events.append(_event(counters, settings.phase, key, old.get(key), new))
    return events


def _events_of_leaving(phase: PhaseConfig, settings: Settings, counters: Counters) -> list[PhaseEvent]:
    values = _flat(settings)
    return [_event(counters, phase.name, key, text, values[key]) for key, text in _plan(phase).items()]


def _events_of_overrides(
    phase: PhaseConfig, before: Settings, settings: Settings, counters: Counters
) -> list[PhaseEvent]:
    """Returns changes of what does not move by itself: a resume with other settings made them."""
    old, plan = _flat(before), _plan(phase)
    return [
        _event(counters, phase.name, key, old.get(key, 0.0), new, by="operator")
        for key, new in _flat(settings).items()
        if key not in plan and new != old.get(key, 0.0)
    ]


def _event(
    counters: Counters, phase: str, key: str, old: float | str | None, new: float | str | None, by: str = "controller"
) -> PhaseEvent:
    return PhaseEvent(counters.frames, counters.episodes, phase, key, old, new, by)


def _flat(settings: Settings) -> dict[str, float | str]:
    losses = {f"losses.{key}": value for key, value in asdict(settings.losses).items()}
    reward = {f"reward.{key}": value for key, value in settings.reward.items()}
    return {
        "routing": settings.routing,
        "temperature": settings.temperature,
        "learning_rate": settings.learning_rate,
        **losses,
        **reward,
    }


def _plan(phase: PhaseConfig) -> dict[str, str]:
    """Returns the text of every setting that moves within the phase, by key."""
    plan = {key: describe(schedule) for key, schedule in phase.schedules().items() if moves(schedule)}
    if isinstance(phase.temperature, EntropyTarget):
        plan["temperature"] = f"alpha entropy target {describe(phase.temperature.target_alpha_entropy)}"
    penalty = phase.losses.alpha_entropy
    if penalty is not None and penalty.direction == "maximize" and moves(penalty.weight):
        plan["losses.alpha_entropy"] = f"minus {describe(penalty.weight)}"
    return plan
