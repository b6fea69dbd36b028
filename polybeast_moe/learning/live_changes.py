"""What a human operator may change in the phase that is going on: hold a scalar, release it, leave the phase. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from polybeast_moe.config import EntropyTarget, PhaseConfig, moves
from polybeast_moe.errors import UserError, nearest
from polybeast_moe.learning.holds import TARGET, holdable
from polybeast_moe.learning.phases import ControllerState, Counters, PhaseEvent, Settings, advance
from polybeast_moe.learning.schedules import describe

Change = tuple[ControllerState, Settings, list[PhaseEvent]]
Changer = Callable[[Sequence[PhaseConfig], ControllerState, Counters], Change]

_ALIASES = {"router_temperature": "temperature"}  # metrics.csv and status say of what it is the temperature


def hold(key: str, value: float, allowed: Callable[[list[str]], object]) -> Changer:
    """Returns the change that holds a scalar at `value`.

    `allowed` gets it as overrides of the configuration, which knows every bound, and raises UserError.
    """

    def change(phases: Sequence[PhaseConfig], state: ControllerState, counters: Counters) -> Change:
        phase, name = _current(phases, state), _known(phases, state, key)
        allowed(_overrides(phase, state, name, value))
        if name == "temperature" and isinstance(phase.temperature, EntropyTarget):
            low, high = phase.temperature.bounds
            if not low <= value <= high:
                raise UserError(f"{key} {value:g} is out of the phase's bounds [{low:g}, {high:g}]")
        old = state.holds.get(name, _in_force(phase, name))
        asked = replace(state, holds={**state.holds, name: value})
        return _told(advance(phases, asked, counters, {}), _event(counters, phase, name, old, value))

    return change


def release(key: str) -> Changer:
    """Returns the change that gives a held scalar back to its schedule."""

    def change(phases: Sequence[PhaseConfig], state: ControllerState, counters: Counters) -> Change:
        phase, name = _current(phases, state), _known(phases, state, key)
        if name not in state.holds:
            held = ", ".join(sorted(state.holds)) or "nothing"
            raise UserError(f"{key} is not held; {held} is")
        rest = {other: value for other, value in state.holds.items() if other != name}
        moved = advance(phases, replace(state, holds=rest), counters, {})
        return _told(moved, _event(counters, phase, name, state.holds[name], _in_force(phase, name)))

    return change


def next_phase() -> Changer:
    """Returns the change that ends the phase now; after the last one the run is over."""

    def change(phases: Sequence[PhaseConfig], state: ControllerState, counters: Counters) -> Change:
        phase = _current(phases, state)
        moved, settings, events = advance(phases, replace(state, left=True), counters, {})
        new = "the end" if moved.finished else settings.phase
        return moved, settings, [_event(counters, phase, "next_phase", phase.name, new), *events]

    return change


def pause(on: bool) -> Changer:
    """Returns the change that a pause's beginning or end is: none of the controller's, but an event."""

    def change(phases: Sequence[PhaseConfig], state: ControllerState, counters: Counters) -> Change:
        assert state.settings is not None
        event = _event(counters, _current(phases, state), "paused", str(not on).lower(), str(on).lower())
        return state, state.settings, [event]

    return change


def change_curriculum(
    state: ControllerState, phases: Sequence[PhaseConfig], counters: Counters
) -> tuple[ControllerState, list[PhaseEvent]]:
    """Puts a state under another curriculum, what an operator held forgotten.

    In a phase that it has too, the run goes on in it; else its first phase that is not over begins here, from the
    temperature in force.

    Raises:
        UserError: every phase is over.
    """
    assert state.settings is not None, "a snapshot is taken after the first settings"
    left, events = state.settings.phase, list[PhaseEvent]()
    state = replace(state, holds={}, left=False)
    if left not in [phase.name for phase in phases]:
        before = PhaseConfig(name=left, until=phases[0].until, routing="softmax")  # never in force again
        asked = replace(state, left=True, finished=False)
        state, settings, events = advance((before, *phases), asked, counters, {})
        state = replace(state, settings=replace(settings, phase_index=settings.phase_index - 1))
    if advance(phases, state, counters, {})[0].finished:
        raise UserError(
            f"phases: the snapshot has {counters.frames:,} frames and {counters.episodes:,} episodes already, and "
            "every phase ends before: their totals count from the beginning of the run that the snapshot is of"
        )
    return state, events


def reopened(state: ControllerState, changes: Mapping[str, Any]) -> ControllerState:
    """Lets a phase that an operator has ended go on where a resume changes its end; `changes` by configuration key."""
    until = f"phases.{state.settings.phase}.until" if state.settings is not None else ""
    return replace(state, left=False) if any(key.startswith(f"{until}.") for key in changes) else state


def origin_event(origin: str, counters: Counters) -> PhaseEvent:
    """Returns the event that a run's beginning from another one's snapshot is."""
    return PhaseEvent(counters.frames, counters.episodes, "", "origin", None, origin, by="operator")


def override_events(
    changes: Mapping[str, tuple[Any, Any]], state: ControllerState, counters: Counters
) -> list[PhaseEvent]:
    """Returns the events of configuration keys that a resume has changed: key to old and new value."""
    phase = state.settings.phase if state.settings is not None else ""
    return [
        PhaseEvent(counters.frames, counters.episodes, phase, key, old, new, by="operator")
        for key, (old, new) in changes.items()
    ]


def shown_name(key: str) -> str:
    """Returns the key as metrics and status show it."""
    return {name: alias for alias, name in _ALIASES.items()}.get(key, key)


def as_shown(holds: Mapping[str, float]) -> dict[str, float]:
    """Returns holds under the names that status shows."""
    return {shown_name(key): value for key, value in holds.items()}


def _current(phases: Sequence[PhaseConfig], state: ControllerState) -> PhaseConfig:
    if state.settings is None or state.finished:
        raise UserError("no phase is going on")
    name = state.settings.phase
    return next(phase for phase in phases if phase.name == name)


def _known(phases: Sequence[PhaseConfig], state: ControllerState, key: str) -> str:
    known = holdable(_current(phases, state))
    name = _ALIASES.get(key, key)
    if name not in known:
        raise UserError(f"{key!r} is no scalar of the phase{nearest(key, [*map(shown_name, known)])}")
    return name


def _in_force(phase: PhaseConfig, key: str) -> float | str:
    """Returns what is in force: a number, or the schedule by its text where it moves."""
    schedule: Any = phase.schedules().get(key)
    if key == "temperature" or schedule is None:
        schedule = phase.temperature
    if moves(schedule):
        return describe(schedule)
    if isinstance(schedule, int | float):
        return float(schedule)
    return f"alpha entropy target {describe(schedule.target_alpha_entropy)}"


def _overrides(phase: PhaseConfig, state: ControllerState, name: str, value: float) -> list[str]:
    """A temperature that is held comes first: it lets an alpha entropy loss into a phase that steers the entropy."""
    held = "temperature" in state.holds and name != TARGET
    checked = {"temperature": state.holds["temperature"]} if held else {}
    return [_override(phase, *item) for item in {**checked, name: value}.items()]


def _override(phase: PhaseConfig, key: str, value: float) -> str:
    place = f"phases.{phase.name}"
    if key == TARGET:
        return f"{place}.temperature.target_alpha_entropy={value!r}"
    if key == "losses.alpha_entropy":
        return f"{place}.losses.alpha_entropy" + (
            f"={{weight: {value!r}}}" if phase.losses.alpha_entropy is None else f".weight={value!r}"
        )
    return f"{place}.{key}={value!r}"


def _told(change: Change, event: PhaseEvent) -> Change:
    """The event of the operator, instead of the one that the controller makes of the same change."""
    state, settings, events = change
    return state, settings, [event, *(other for other in events if other.key != event.key)]


def _event(
    counters: Counters, phase: PhaseConfig, key: str, old: float | str | None, new: float | str | None
) -> PhaseEvent:
    return PhaseEvent(counters.frames, counters.episodes, phase.name, key, old, new, by="operator")
