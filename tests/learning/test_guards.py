"""Guards: when they act, what they do, and that they let go again."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from polybeast_moe.config import Guard, PhaseConfig
from polybeast_moe.learning.guards import guarded
from polybeast_moe.learning.phases import ControllerState, Counters, advance

PHASES = (
    PhaseConfig(
        name="only",
        until={"frames": 10_000},
        routing="sparsemax",
        temperature={"from": 1.0, "to": 0.5},
        losses={"load_balance": 0.01},
    ),
)
COLLAPSE = Guard(
    metric="smallest_share", below=0.02, release=0.05, patience=3, setting="losses.load_balance", add=0.1, levels=2
)
EXPLOSION = Guard(metric="grad_norm", above=100, patience=1, setting="learning_rate", multiply=0.5)


def run(guards, story, phases=PHASES, state=None):
    """One update for each of the metrics in `story`; returns states, settings and the guards' events."""
    state, _, _ = advance(phases, state or ControllerState(), Counters(), {})
    states, settings, events = [], [], []
    for metrics in story:
        counters = Counters(100 * (state.updates + 1), 0, state.updates + 1)
        state, decided, _ = advance(phases, state, counters, metrics)
        state, now, new = guarded(guards, state, decided, metrics, counters)
        states.append(state)
        settings.append(now)
        events += new
    return states, settings, events


def shares(*values):
    return [{"smallest_share": value} for value in values]


def test_a_collapsed_expert_raises_load_balance_until_it_has_recovered():
    story = shares(*[0.2] * 2, *[0.0] * 9, *[0.03] * 5, *[0.06] * 7)
    _, settings, events = run({"collapse": COLLAPSE}, story)
    weights = [round(now.losses.load_balance, 6) for now in settings]
    assert weights == [0.01] * 4 + [0.11] * 3 + [0.21] * 9 + [0.21] * 2 + [0.11] * 3 + [0.01] * 2
    assert [(e.frames, e.key, e.old, e.new, e.by) for e in events] == [
        (500, "guards.collapse", 0, 1, "guard"),
        (800, "guards.collapse", 1, 2, "guard"),
        (1900, "guards.collapse", 2, 1, "guard"),
        (2200, "guards.collapse", 1, 0, "guard"),
    ]


def test_a_moment_beyond_the_limit_is_not_enough():
    _, settings, events = run({"collapse": COLLAPSE}, shares(0.0, 0.0, 0.1, 0.0, 0.0, math.nan, 0.03, 0.0, 0.0))
    assert {now.losses.load_balance for now in settings} == {0.01}
    assert events == []


def test_a_gradient_that_explodes_halves_the_learning_rate_for_a_while():
    story = [{"grad_norm": norm} for norm in (1.0, 500.0, 900.0, 1.0, 1.0, 1.0)]
    _, settings, _ = run({"explosion": EXPLOSION}, story)
    assert [now.learning_rate / 5e-4 for now in settings] == [1, 0.5, 0.25, 0.5, 1, 1]


def test_schedules_go_on_underneath():
    heat = EXPLOSION.model_copy(update={"setting": "temperature", "multiply": 2.0, "levels": 1})
    _, settings, _ = run({"heat": heat}, [{"grad_norm": 200.0}] * 4)
    assert [now.temperature for now in settings] == pytest.approx([2 * (1 - 0.5 * k / 100) for k in (1, 2, 3, 4)])


def test_what_an_operator_holds_is_left_alone():
    begun, _, _ = advance(PHASES, ControllerState(), Counters(), {})
    held = replace(begun, holds={"learning_rate": 1e-3})
    _, settings, _ = run({"explosion": EXPLOSION}, [{"grad_norm": 200.0}], state=held)
    assert settings[0].learning_rate == 1e-3


def test_levels_survive_a_resume_and_a_change_of_phase():
    states, _, _ = run({"collapse": COLLAPSE}, shares(*[0.0] * 4))
    state = ControllerState.from_dict(json.loads(json.dumps(states[-1].to_dict())))
    assert state == states[-1]
    _, settings, _ = run({"collapse": COLLAPSE}, shares(0.0, 0.0), state=state)
    assert [round(now.losses.load_balance, 6) for now in settings] == [0.11, 0.21]
    two = (PHASES[0], PhaseConfig(name="next", until={"frames": 20_000}, routing="softmax"))
    later, _, _ = advance(two, state, Counters(10_000, 0, 9), {})
    assert later.settings.phase == "next"
    assert later.guards == state.guards


def test_a_loss_is_never_turned_round():
    calm = EXPLOSION.model_copy(update={"setting": "losses.entropy", "multiply": None, "add": -0.008})
    _, settings, _ = run({"calm": calm}, [{"grad_norm": 200.0}] * 3)
    assert [now.losses.entropy for now in settings] == pytest.approx([0.002, 0.0, 0.0])


def test_a_resume_with_fewer_levels_lets_a_guard_sink():
    states, _, _ = run({"collapse": COLLAPSE}, shares(*[0.0] * 7))
    assert states[-1].guards["collapse"].level == 2
    lower = {"collapse": COLLAPSE.model_copy(update={"levels": 1})}
    _, settings, _ = run(lower, shares(*[0.2] * 3), state=states[-1])
    assert [round(now.losses.load_balance, 6) for now in settings] == [0.11, 0.11, 0.01]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"above": 1.0}, "exactly one of below, above"),
        ({"multiply": 2.0}, "exactly one of multiply, add"),
        ({"release": 0.01}, "on the good side"),
        ({"setting": "learning_rate", "add": -1e-4}, "multiply it by less than 1"),
    ],
)
def test_a_guard_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Guard.model_validate({**COLLAPSE.model_dump(exclude_none=True), **changes})
