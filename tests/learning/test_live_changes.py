"""What a human operator changes: holds, releases, the end of a phase. Everything is an event `by` them."""

import json
from dataclasses import replace

import pytest

from polybeast_moe.config import PhaseConfig
from polybeast_moe.errors import UserError
from polybeast_moe.learning.live_changes import change_curriculum, hold, next_phase, release, reopened
from polybeast_moe.learning.phases import ControllerState, Counters, advance

PHASES = (
    PhaseConfig(name="ramp", until={"frames": 1000}, routing="softmax", temperature={"from": 1.0, "to": 0.5}),
    PhaseConfig(
        name="loop",
        until={"frames": 2000},
        routing="sparsemax",
        temperature={"target_alpha_entropy": 0.4, "bounds": [0.1, 2.0]},
    ),
)


def allow(overrides):
    """Bounds are the configuration's; tests/control shows them at work."""


def at(frames, state=None, metrics=None):
    return advance(PHASES, state or ControllerState(), Counters(frames, 0, frames), metrics or {})


def test_a_hold_stands_against_the_schedule_until_it_is_released():
    begun, _, _ = at(0)
    held, settings, [event] = hold("router_temperature", 0.1 + 0.2, allow)(PHASES, begun, Counters(0, 0, 0))
    assert settings.temperature == 0.1 + 0.2
    assert (event.key, event.old, event.new, event.by) == ("temperature", "linear 1 to 0.5", 0.1 + 0.2, "operator")
    later, settings, events = at(500, held)
    assert (settings.temperature, events) == (0.1 + 0.2, [])
    restored = ControllerState.from_dict(json.loads(json.dumps(later.to_dict())))
    assert at(600, restored)[1].temperature == 0.1 + 0.2
    _, settings, [event] = release("temperature")(PHASES, restored, Counters(500, 0, 500))
    assert settings.temperature == pytest.approx(0.75)
    assert (event.old, event.new, event.by) == (0.1 + 0.2, "linear 1 to 0.5", "operator")


def test_a_phases_end_forgets_its_holds():
    begun, _, _ = at(0)
    held, _, _ = hold("learning_rate", 1e-5, allow)(PHASES, begun, Counters())
    after, settings, _ = at(1000, held)
    assert (settings.phase, settings.learning_rate, dict(after.holds)) == ("loop", 5e-4, {})


def test_a_held_temperature_suspends_the_loop_which_goes_on_from_there():
    inside, _, _ = at(1000, at(0)[0])
    held, _, _ = hold("temperature", 0.3, allow)(PHASES, inside, Counters(1000, 0, 1000))
    later, settings, _ = at(1100, held, {"matching_temperature": 0.6})
    assert settings.temperature == 0.3
    freed, settings, _ = release("temperature")(PHASES, later, Counters(1100, 0, 1100))
    assert settings.temperature == 0.3
    assert at(1200, freed, {"matching_temperature": 0.6})[1].temperature > 0.3
    with pytest.raises(UserError, match=r"out of the phase's bounds \[0.1, 2\]"):
        hold("temperature", 3.0, allow)(PHASES, inside, Counters(1000, 0, 1000))


def test_the_loops_target_can_be_held():
    inside, before, _ = at(1000, at(0)[0])
    assert before.target_alpha_entropy == 0.4
    held, settings, [event] = hold("target_alpha_entropy", 1.2, allow)(PHASES, inside, Counters(1000, 0, 1000))
    assert settings.target_alpha_entropy == at(1100, held)[1].target_alpha_entropy == 1.2
    assert (event.old, event.new) == ("alpha entropy target 0.4", 1.2)


@pytest.mark.parametrize("key", [key for key in PHASES[0].schedules() if "." in key])
def test_every_loss_and_reward_can_be_held(key):
    begun, _, _ = at(0)
    _, settings, [event] = hold(key, 0.125, allow)(PHASES, begun, Counters())
    section, name = key.split(".")
    inside = getattr(settings, section)
    assert (inside[name] if section == "reward" else getattr(inside, name)) == 0.125
    assert (event.key, event.new) == (key, 0.125)


def test_next_phase_ends_this_one_and_the_last_one_ends_the_run():
    begun, _, _ = at(0)
    inside, settings, events = next_phase()(PHASES, begun, Counters(100, 0, 100))
    assert (settings.phase, inside.start, inside.left) == ("loop", Counters(100, 0, 100), False)
    assert (events[0].key, events[0].new, events[0].by) == ("next_phase", "loop", "operator")
    assert {event.new for event in events if event.key == "phase"} == {"loop"}
    over, _, _ = next_phase()(PHASES, inside, Counters(200, 0, 200))
    assert over.finished
    restored = ControllerState.from_dict(json.loads(json.dumps(over.to_dict())))
    assert at(300, restored)[0].finished  # resumed, the run is over still
    assert at(300, reopened(restored, {"phases.ramp.until.frames": (1000, 1500)}))[0].finished
    longer = reopened(restored, {"phases.loop.until.frames": (2000, 3000)})
    assert not at(300, longer)[0].finished
    more = (*PHASES, PhaseConfig(name="more", until={"frames": 5000}, routing="softmax"))
    assert advance(more, restored, Counters(300, 0, 300), {})[1].phase == "more"
    with pytest.raises(UserError, match="no phase is going on"):
        next_phase()(PHASES, over, Counters(200, 0, 200))


@pytest.mark.parametrize(
    ("changer", "wanted"),
    [
        (hold("temperatur", 1.0, allow), "did you mean 'router_temperature'"),
        (hold("target_alpha_entropy", 0.4, allow), "is no scalar of the phase"),
        (release("learning_rate"), "learning_rate is not held; nothing is"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(changer, wanted):
    begun, _, _ = at(0)
    with pytest.raises(UserError, match=wanted) as caught:
        changer(PHASES, begun, Counters())
    assert "\n" not in str(caught.value)


def test_another_curriculum_begins_where_the_last_one_ended_from_the_temperature_in_force():
    ended, settings, _ = at(2000, replace(at(1000, at(0)[0])[0]))
    assert ended.finished
    deep = (PhaseConfig(name="deep", until={"frames": 9000}, routing="sparsemax", temperature=PHASES[1].temperature),)
    moved, events = change_curriculum(ended, deep, Counters(2000, 0, 2000))
    assert (moved.settings.phase, moved.settings.phase_index, moved.start.frames) == ("deep", 0, 2000)
    assert moved.settings.temperature == settings.temperature
    assert not moved.finished
    assert "deep" in {event.new for event in events if event.key == "phase"}
    assert advance(deep, moved, Counters(2000, 0, 2000), {})[1].phase == "deep"
    with pytest.raises(UserError, match="2,000 frames and 0 episodes already"):
        change_curriculum(ended, PHASES, Counters(2000, 0, 2000))
