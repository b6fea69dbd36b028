import itertools
import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polybeast_moe.config import PhaseConfig, Ramp, RewardWeights
from polybeast_moe.errors import UserError
from polybeast_moe.learning.phases import ControllerState, Counters, LossSettings, PhaseEvent, Settings, advance
from polybeast_moe.learning.schedules import value_at

CURRICULUM = (
    PhaseConfig(name="warmup", until={"frames": 1000}, routing="softmax", learning_rate=1e-3),
    PhaseConfig(name="transition", until={"frames": 3000}, routing="sparsemax", temperature={"from": 1.0, "to": 0.5}),
    PhaseConfig(
        name="finetune",
        until={"episodes": 50},
        routing="sparsemax",
        temperature=0.5,
        losses={"alpha_entropy": {"weight": {"from": 0.0, "to": 0.1}, "direction": "maximize"}},
    ),
    PhaseConfig(
        name="deep_finetune",
        until={"frames": 9000},
        routing="sparsemax",
        temperature={"target_alpha_entropy": {"from": 0.45, "to": 0.35}},
    ),
)


def walk(phases, points, metrics=None, state=None):
    """Advances through (frames, episodes) pairs; returns states, settings and every event."""
    state = state or ControllerState()
    states, settings, events = [], [], []
    for update, (frames, episodes) in enumerate(points, start=state.updates):
        state, now, new = advance(phases, state, Counters(frames, episodes, update), metrics or {})
        states.append(state)
        settings.append(now)
        events += new
    return states, settings, events


@pytest.mark.parametrize(
    ("points", "phase", "routing", "temperature", "alpha_entropy_weight"),
    [
        ([(0, 0)], "warmup", "softmax", 1.0, 0.0),
        ([(0, 0), (999, 0)], "warmup", "softmax", 1.0, 0.0),
        ([(0, 0), (1000, 0)], "transition", "sparsemax", 1.0, 0.0),
        ([(0, 0), (1000, 0), (2000, 0)], "transition", "sparsemax", 0.75, 0.0),
        # The ramp runs from where the phase really began, here 200 frames late, to its end.
        ([(0, 0), (1200, 0), (2100, 0)], "transition", "sparsemax", 0.75, 0.0),
        ([(0, 0), (1000, 0), (3000, 10)], "finetune", "sparsemax", 0.5, 0.0),
        ([(0, 0), (1000, 0), (3000, 10), (4000, 30)], "finetune", "sparsemax", 0.5, -0.05),
        ([(0, 0), (5000, 0)], "finetune", "sparsemax", 0.5, 0.0),  # passes over transition
        ([(5000, 60)], "deep_finetune", "sparsemax", 1.0, 0.0),  # passes over three
        ([(0, 0), (3000, 10), (4000, 50)], "deep_finetune", "sparsemax", 0.5, 0.0),
    ],
)
def test_settings_follow_from_the_counters(points, phase, routing, temperature, alpha_entropy_weight):
    _, settings, _ = walk(CURRICULUM, points)
    assert (settings[-1].phase, settings[-1].routing) == (phase, routing)
    assert settings[-1].temperature == pytest.approx(temperature)
    assert settings[-1].losses.alpha_entropy == pytest.approx(alpha_entropy_weight)
    assert settings[-1].phase_index == [p.name for p in CURRICULUM].index(phase)


def test_the_run_finishes_once_and_stays_finished():
    points = [(0, 0), (8000, 60), (9000, 60), (9500, 61)]
    states, settings, events = walk(CURRICULUM, points)
    assert [state.finished for state in states] == [False, False, True, True]
    assert settings[1] == settings[2] == settings[3]
    assert states[2].settings == states[3].settings
    assert len([event for event in events if event.frames >= 9000]) == 1  # the loop's end, told once
    alone, _, _ = advance(CURRICULUM, ControllerState(), Counters(20_000, 99, 1), {})
    assert alone.finished
    assert alone.settings.phase == "deep_finetune"


def test_a_finished_run_goes_on_when_its_last_phase_is_made_longer():
    states, _, _ = walk(CURRICULUM, [(0, 0), (5000, 60), (9000, 60)])
    longer = (
        *CURRICULUM[:3],
        CURRICULUM[3].model_copy(update={"until": CURRICULUM[3].until.model_copy(update={"frames": 20_000})}),
    )
    state, settings, events = advance(longer, states[-1], Counters(9000, 60, 3), {})
    assert not state.finished
    assert settings.phase == "deep_finetune"
    assert events == []


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 6)), min_size=1, max_size=40), st.data())
def test_continuing_from_json_is_exact(steps, data):
    points, frames, episodes = [], 0, 0
    for more_frames, more_episodes in steps:
        frames, episodes = frames + more_frames, episodes + more_episodes
        points.append((frames, episodes))
    cut = data.draw(st.integers(0, len(points) - 1))
    metrics = {"alpha_entropy": 0.7}
    states, settings, events = walk(CURRICULUM, points, metrics)
    _, _, before = walk(CURRICULUM, points[: cut + 1], metrics)
    state = ControllerState.from_dict(json.loads(json.dumps(states[cut].to_dict())))
    assert state == states[cut]
    for update, point in enumerate(points[cut + 1 :], start=cut + 1):
        state, now, new = advance(CURRICULUM, state, Counters(*point, update), metrics)
        before += new
        assert (state, now) == (states[update], settings[update])
    assert before == events


@given(st.lists(st.integers(0, 900), min_size=1, max_size=40))
def test_phases_only_go_forward_and_each_change_is_told_once(steps):
    frames = [sum(steps[: i + 1]) for i in range(len(steps))]
    _, settings, events = walk(CURRICULUM, [(f, f // 100) for f in frames])
    indices = [s.phase_index for s in settings]
    assert indices == sorted(indices)
    entered = [event for event in events if event.key == "phase"]
    assert [event.new for event in entered] == [p.name for p in CURRICULUM][: len(entered)]
    assert [event.old for event in entered] == [None, *(event.new for event in entered[:-1])]
    routings = [event.new for event in events if event.key == "routing"]
    assert len(routings) == len({s.routing for s in settings})


def test_events_tell_schedules_at_their_start_and_end_and_nothing_between():
    points = [(frames, frames // 100) for frames in range(0, 9_100, 100)]
    _, _, events = walk(CURRICULUM, points, {"alpha_entropy": 0.4})
    temperature = [(e.phase, e.old, e.new) for e in events if e.key == "temperature"]
    (_, _, reached), *_ = [row for row in temperature if row[1] == "linear 1 to 0.5"]
    assert reached == pytest.approx(0.525)
    (_, _, steered_to), *_ = [row for row in temperature if row[1] == "alpha entropy target linear 0.45 to 0.35"]
    assert temperature == [
        ("warmup", None, 1.0),
        ("transition", 1.0, "linear 1 to 0.5"),
        ("transition", "linear 1 to 0.5", reached),
        ("finetune", reached, 0.5),
        ("deep_finetune", 0.5, "alpha entropy target linear 0.45 to 0.35"),
        ("deep_finetune", "alpha entropy target linear 0.45 to 0.35", steered_to),
    ]
    assert PhaseEvent(0, 0, "warmup", "routing", None, "softmax") in events
    assert PhaseEvent(1000, 10, "transition", "routing", "softmax", "sparsemax") in events
    assert {event.by for event in events} == {"controller"}
    json.dumps([event.to_dict() for event in events])


def test_weights_of_the_reward_move_with_their_phase_and_are_told():
    phases = (
        CURRICULUM[0].model_copy(
            update={"reward": RewardWeights(new_squares=0.05, death=Ramp(**{"from": 0, "to": -1}))}
        ),
        *CURRICULUM[1:],
    )
    _, settings, events = walk(phases, [(0, 0), (500, 0), (1000, 0)])
    rewards = [{term: weight for term, weight in now.reward.items() if weight} for now in settings]
    assert rewards == [
        {"task": 1.0, "new_squares": 0.05},
        {"task": 1.0, "new_squares": 0.05, "death": -0.5},
        {"task": 1.0},
    ]
    told = [(e.phase, e.key, e.old, e.new) for e in events if e.key.startswith("reward.")]
    assert told == [
        ("warmup", "reward.task", None, 1.0),
        ("warmup", "reward.new_squares", None, 0.05),
        ("warmup", "reward.death", None, "linear 0 to -1"),
        ("warmup", "reward.death", "linear 0 to -1", -0.5),
        ("transition", "reward.new_squares", 0.05, 0.0),
        ("transition", "reward.death", -0.5, 0.0),
    ]


def test_a_constant_that_a_resume_changed_is_told_as_the_operators():
    states, _, _ = walk(CURRICULUM, [(0, 0), (500, 5)])
    changed = (CURRICULUM[0].model_copy(update={"learning_rate": 2e-3}), *CURRICULUM[1:])
    _, settings, events = advance(changed, states[-1], Counters(600, 6, 2), {})
    assert settings.learning_rate == 2e-3
    assert events == [PhaseEvent(600, 6, "warmup", "learning_rate", 1e-3, 2e-3, "operator")]


def test_a_phase_is_found_by_name_when_the_curriculum_changed():
    states, _, _ = walk(CURRICULUM, [(0, 0), (1000, 0)])
    _, settings, _ = advance(CURRICULUM[1:], states[-1], Counters(1100, 0, 2), {})
    assert (settings.phase, settings.phase_index) == ("transition", 0)
    with pytest.raises(UserError, match=r"'transition', which the configuration no longer has"):
        advance((CURRICULUM[0], *CURRICULUM[2:]), states[-1], Counters(1100, 0, 2), {})


METRIC_PHASES = (
    PhaseConfig(name="first", until={"metric": "mean_episode_score", "above": 20}, routing="softmax"),
    PhaseConfig(name="second", until={"metric": "mean_episode_score", "above": 10}, routing="sparsemax"),
    PhaseConfig(name="third", until={"metric": "alpha_entropy", "below": 0.5}, routing="sparsemax"),
)


def test_a_threshold_counts_from_the_phases_first_update_on():
    state = ControllerState()
    story = []
    for update, metrics in enumerate(
        [
            {"mean_episode_score": 99},  # measured before the run began: not looked at
            {"mean_episode_score": math.nan},
            {},
            {"mean_episode_score": 20.0},
            {"mean_episode_score": 11.0, "alpha_entropy": 0.1},  # enough for second; third has not begun
            {"alpha_entropy": 0.6},
            {"alpha_entropy": 0.5},
        ]
    ):
        state, settings, _ = advance(METRIC_PHASES, state, Counters(update, 0, update), metrics)
        story.append(settings.phase)
    assert story == ["first", "first", "first", "second", "third", "third", "third"]
    assert state.finished
    state, _, events = advance(METRIC_PHASES, state, Counters(9, 0, 9), {})
    assert state.finished
    assert events == []


def test_ramps_need_a_phase_of_known_length():
    for moving in (
        {"temperature": {"from": 1, "to": 2}},
        {"temperature": {"target_alpha_entropy": {"from": 1, "to": 0}}},
    ):
        with pytest.raises(ValueError, match="no length known in advance"):
            PhaseConfig(name="x", until={"metric": "alpha_entropy", "below": 1}, routing="softmax", **moving)


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.55), ("cosine", 0.55), ("exponential", math.sqrt(0.1))])
def test_shapes_of_ramps(shape, middle):
    ramp = Ramp.model_validate({"from": 1.0, "to": 0.1, "shape": shape})
    assert value_at(ramp, 0.0) == 1.0
    assert value_at(ramp, 0.5) == pytest.approx(middle)
    assert value_at(ramp, 1.0) == 0.1
    quarter = value_at(ramp, 0.25)
    if shape == "cosine":
        assert quarter == pytest.approx(1.0 - 0.9 * (1 - math.sqrt(0.5)) / 2)


positive = st.floats(1e-6, 1e6)


@given(positive, positive, st.sampled_from(["linear", "cosine", "exponential"]), st.lists(st.floats(-1, 2), min_size=2))
def test_ramps_are_monotone_and_stay_between_their_ends(start, end, shape, moments):
    ramp = Ramp.model_validate({"from": start, "to": end, "shape": shape})
    values = [value_at(ramp, moment) for moment in sorted(moments)]
    slack = 1e-9 * max(start, end)
    assert all(min(start, end) - slack <= value <= max(start, end) + slack for value in values)
    assert all((b - a) * (1 if end >= start else -1) >= -slack for a, b in itertools.pairwise(values))


def closed_loop(target, **more):
    until = {"frames": 100_000}
    loop = {"target_alpha_entropy": target, **more}
    return (PhaseConfig(name="loop", until=until, routing="sparsemax", temperature=loop),)


@pytest.mark.parametrize(
    ("temperature", "measured", "wanted"),
    [
        (1.0, 0.4, 1.0),  # on target
        (1.0, 0.9, math.exp(-0.05)),  # too undecided: colder
        (0.5, 0.2, 0.5 * math.exp(0.02)),  # too sure: hotter
        (1.0, math.nan, 1.0),
        (1.0, None, 1.0),
        (0.0501, 1.3, 0.05),  # the bounds hold
        (9.99, 0.0, 10.0),
    ],
)
def test_one_step_of_the_closed_loop(temperature, measured, wanted):
    losses = LossSettings(1.0, 0.5, 0.01, 0.0, 0.0)
    state = ControllerState(Counters(), 4, Settings("loop", 0, "sparsemax", temperature, 5e-4, losses))
    metrics = {} if measured is None else {"alpha_entropy": measured}
    state, settings, events = advance(closed_loop(0.4), state, Counters(100, 0, 5), metrics)
    assert settings.temperature == pytest.approx(wanted)
    assert events == []
    _, again, _ = advance(closed_loop(0.4), state, Counters(100, 0, 5), metrics)
    assert again == settings  # one step an update, however often it is asked


def test_the_loop_does_not_wind_up_at_its_bounds():
    phases = closed_loop(0.4)
    state, _, _ = advance(phases, ControllerState(), Counters(), {})
    for update in range(1, 500):  # nothing helps: entropy stays at its lowest
        state, settings, _ = advance(phases, state, Counters(update, 0, update), {"alpha_entropy": 0.0})
    assert settings.temperature == 10.0
    state, settings, _ = advance(phases, state, Counters(500, 0, 500), {"alpha_entropy": 0.9})
    assert settings.temperature < 10.0  # it comes back at once


def test_the_loop_keeps_a_noisy_plant_on_a_ramp():
    """A router whose entropy follows log temperature, drifts towards one-hot by itself, and is measured with noise."""
    noise = random.Random(3)
    phases = closed_loop({"from": 0.45, "to": 0.35})
    state, settings, _ = advance(phases, ControllerState(), Counters(), {})
    drift, errors = 0.0, []
    for update in range(1, 1000):
        drift += 0.002
        entropy = math.log(4) / (1 + math.exp(-1.5 * (math.log(settings.temperature) - drift + 0.5)))
        frames = update * 100
        state, settings, _ = advance(
            phases, state, Counters(frames, 0, update), {"alpha_entropy": entropy + noise.gauss(0, 0.03)}
        )
        errors.append(entropy - (0.45 - 0.1 * frames / 100_000))
    settled = errors[100:]
    assert abs(sum(settled) / len(settled)) < 0.06  # an integrator follows a drift with a small constant lag
    assert sum(abs(error) < 0.1 for error in settled) > 0.97 * len(settled)


def test_the_loop_starts_from_the_temperature_in_force():
    states, _, _ = walk(CURRICULUM, [(0, 0), (3000, 10), (4000, 60)], {"alpha_entropy": 1.3})
    assert states[-1].settings.phase == "deep_finetune"
    assert states[-1].settings.temperature == 0.5  # figures of the phase before steer nothing
