"""The phase controller: settings follow from counters, exactly after a resume; the loop steers by what is measured."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polybeast_moe.config import PhaseConfig, Piecewise, Ramp, RewardWeights, Until
from polybeast_moe.errors import UserError
from polybeast_moe.learning.phases import ControllerState, Counters, LossSettings, PhaseEvent, Settings, advance
from polybeast_moe.learning.schedules import value_at
from polybeast_moe.learning.temperature import matching_temperature
from polybeast_moe.ops import expert_mixture

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
    metrics = {"matching_temperature": 0.7}
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
    _, _, events = walk(CURRICULUM, points, {"matching_temperature": 0.4})
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


def test_a_threshold_with_patience_must_hold_for_so_many_updates_in_a_row():
    first = METRIC_PHASES[0].model_copy(update={"until": Until(metric="mean_episode_score", above=20, patience=3)})
    state, story = ControllerState(), []
    for update, score in enumerate([99, 21, 22, 19, 21, 22, 23, 5]):
        metrics = {"mean_episode_score": score}
        for _ in range(2):  # asked twice, an update counts once
            state, settings, _ = advance((first, *METRIC_PHASES[1:]), state, Counters(update, 0, update), metrics)
            state = ControllerState.from_dict(json.loads(json.dumps(state.to_dict())))
        story.append(settings.phase)
    assert story == ["first"] * 6 + ["second"] * 2
    with pytest.raises(ValueError, match="patience goes with a metric"):
        Until(frames=9, patience=2)


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


def test_a_piecewise_schedule_goes_from_point_to_point():
    path = Piecewise(points=[(0, 1.0), (0.25, 0.5), (1, 0.2)])
    values = [value_at(path, progress) for progress in (-1, 0, 0.125, 0.25, 0.625, 1, 2)]
    assert values == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.35, 0.2, 0.2])
    phases = (CURRICULUM[0].model_copy(update={"temperature": path}), *CURRICULUM[1:])
    _, settings, events = walk(phases, [(0, 0), (250, 0), (625, 0)])
    assert [now.temperature for now in settings] == pytest.approx([1.0, 0.5, 0.35])
    assert ("temperature", "piecewise 1 to 0.5 to 0.2") in [(event.key, event.new) for event in events]
    for points in ([(0, 1.0)], [(0.1, 1.0), (1, 2.0)], [(0, 1.0), (0.5, 2.0)], [(0, 1.0), (0, 2.0), (1, 0.0)]):
        with pytest.raises(ValueError, match="points"):
            Piecewise(points=points)
    with pytest.raises(ValueError, match="must stay above 0"):
        PhaseConfig(
            name="x", until={"frames": 1}, routing="softmax", temperature={"points": [[0, 1], [0.5, 0], [1, 1]]}
        )


positive = st.floats(1e-6, 1e6)


@given(positive, positive, st.sampled_from(["linear", "cosine", "exponential"]), st.lists(st.floats(-1, 2), min_size=2))
def test_ramps_are_monotone_and_stay_between_their_ends(start, end, shape, moments):
    ramp = Ramp.model_validate({"from": start, "to": end, "shape": shape})
    values = [value_at(ramp, moment) for moment in sorted(moments)]
    slack = 1e-9 * max(start, end)
    assert all(min(start, end) - slack <= value <= max(start, end) + slack for value in values)
    assert all((b - a) * (1 if end >= start else -1) >= -slack for a, b in itertools.pairwise(values))


def closed_loop(target, routing="sparsemax", **more):
    until = {"frames": 100_000}
    loop = {"target_alpha_entropy": target, **more}
    return (PhaseConfig(name="loop", until=until, routing=routing, temperature=loop),)


@pytest.mark.parametrize(
    ("temperature", "matching", "wanted"),
    [
        (1.0, 1.0, 1.0),  # on target
        (1.0, 0.9, 0.9**0.7),  # 0.7 of the way, in logarithms
        (0.5, 0.605, 0.5 * 1.21**0.7),
        (1.0, 0.06, math.exp(-0.5)),  # one step's most
        (1.0, 700.0, math.exp(0.5)),
        (1.0, math.nan, 1.0),
        (1.0, None, 1.0),
        (0.0501, 0.001, 0.05),  # the bounds hold
        (9.99, 1000.0, 10.0),
        (20.0, 20.0, 10.0),  # and at once, where a resume has narrowed them
        (20.0, None, 10.0),
    ],
)
def test_one_step_of_the_closed_loop(temperature, matching, wanted):
    losses = LossSettings(1.0, 0.5, 0.01, 0.0, 0.0)
    state = ControllerState(Counters(), 4, Settings("loop", 0, "sparsemax", temperature, 5e-4, losses))
    metrics = {} if matching is None else {"matching_temperature": matching}
    state, settings, events = advance(closed_loop(0.4), state, Counters(100, 0, 5), metrics)
    assert settings.temperature == pytest.approx(wanted, rel=1e-3)
    assert settings.target_alpha_entropy == 0.4
    assert events == []
    _, again, _ = advance(closed_loop(0.4), state, Counters(100, 0, 5), metrics)
    assert again == settings  # one step an update, however often it is asked


def test_the_loop_heads_for_the_mean_of_the_last_two():
    phases = closed_loop(0.4)
    state, _, _ = advance(phases, ControllerState(), Counters(), {})
    state, one, _ = advance(phases, state, Counters(1, 0, 1), {"matching_temperature": 1.0})
    state, two, _ = advance(phases, state, Counters(2, 0, 2), {"matching_temperature": 1.1})
    assert (one.temperature, state.matching) == (1.0, 1.1)
    assert two.temperature == pytest.approx((1.1**0.5) ** 0.7)
    state, same, _ = advance(phases, state, Counters(3, 0, 3), {})  # nothing measured, nothing forgotten
    assert (same.temperature, state.matching) == (two.temperature, 1.1)


def test_the_loop_does_not_wind_up_at_its_bounds():
    phases = closed_loop(0.4)
    state, _, _ = advance(phases, ControllerState(), Counters(), {})
    for update in range(1, 500):  # nothing helps: entropy stays at its lowest
        state, settings, _ = advance(phases, state, Counters(update, 0, update), {"matching_temperature": 1000.0})
    assert settings.temperature == pytest.approx(10.0)
    state, settings, _ = advance(phases, state, Counters(500, 0, 500), {"matching_temperature": 0.3})
    assert settings.temperature < 8.2  # it comes back at once


class Router:
    """Scores of batches of states, whose sharpness drifts, jumps, and differs between batches."""

    def __init__(self, bound):
        self.generator = torch.Generator().manual_seed(3)
        self.directions = torch.randn(8, 4, generator=self.generator)
        self.bound = bound

    def scores(self, gain):
        noise = math.exp(0.05 * torch.randn(1, generator=self.generator).item())
        states = torch.randn(512, 8, generator=self.generator)
        leanings = states @ self.directions
        leanings -= leanings.topk(2).values.mean(-1, keepdim=True)  # the sharper, the nearer the leader alone is to c
        return self.bound * torch.tanh(gain * noise * leanings / self.bound)


@pytest.mark.parametrize("routing", ["sparsemax", "softmax"])
@pytest.mark.parametrize("sharpness", [0.01, 0.2, 1.0, 30.0])  # scores all but alike ... one-hot, all at their bounds
def test_the_loop_settles_a_noisy_router_on_a_ramp(routing, sharpness):
    phases = closed_loop({"from": 0.45, "to": 0.35}, routing, bounds=(0.001, 10.0))
    router, entropies = Router(bound=1.0), []
    state, settings, _ = advance(phases, ControllerState(), Counters(), {})
    for update in range(1, 400):
        gain = sharpness * math.exp(0.005 * update + (0.7 if update > 200 else 0.0))
        scores = router.scores(gain)
        entropy = expert_mixture(scores, torch.empty(512, 4, 0), settings.temperature, routing=routing).entropy.mean()
        entropies.append(entropy.item())
        metrics = {"matching_temperature": matching_temperature(scores, settings.target_alpha_entropy, routing)}
        state, settings, _ = advance(phases, state, Counters(update * 250, 0, update), metrics)
    begun = round(abs(math.log(settings.temperature)) / 0.5) + 20  # steps that the way there takes, at most
    in_band = [0.3 <= entropy <= 0.5 for entropy in entropies[begun:]]
    assert sum(in_band) > 0.95 * len(in_band)
    ramp = [0.45 - 0.1 * update / 400 for update in range(1, 400)]
    errors = [entropy - wanted for entropy, wanted in zip(entropies, ramp, strict=True)]
    last = [abs(error) for error in errors[350:]]
    assert sum(last) / len(last) < 0.03


def test_the_loop_does_not_run_after_groups_that_take_turns():
    """Two groups whose scores match at 0.8 and 1.25 want one temperature between them."""
    phases, temperatures = closed_loop(0.4), []
    state, _, _ = advance(phases, ControllerState(), Counters(), {})
    for update in range(1, 40):
        metrics = {"matching_temperature": 1.25 if update % 2 else 0.8}
        state, settings, _ = advance(phases, state, Counters(update, 0, update), metrics)
        temperatures.append(settings.temperature)
    assert temperatures[20:] == pytest.approx([1.0] * 19, abs=0.01)


@pytest.mark.parametrize("routing", ["sparsemax", "softmax"])
@pytest.mark.parametrize("target", [0.02, 0.4, 1.3])
def test_the_matching_temperature_gives_these_scores_the_target(routing, target):
    scores = Router(bound=1.0).scores(1.0)
    temperature = matching_temperature(scores, target, routing)
    entropy = expert_mixture(scores, torch.empty(512, 4, 0), temperature, routing=routing).entropy.mean().item()
    assert entropy == pytest.approx(target, abs=2e-3)


def test_scores_that_no_temperature_brings_to_the_target():
    alike, other = torch.zeros(5, 4), torch.full((5, 4), math.nan)
    assert matching_temperature(alike, 0.4, "sparsemax") == pytest.approx(1e-3, rel=1e-2)
    assert matching_temperature(alike, math.log(4) + 0.1, "softmax") == pytest.approx(1e3, rel=1e-2)
    assert math.isnan(matching_temperature(other, 0.4, "softmax"))


def test_the_loop_starts_from_the_temperature_in_force():
    states, _, _ = walk(CURRICULUM, [(0, 0), (3000, 10), (4000, 60)], {"matching_temperature": 0.1})
    assert states[-1].settings.phase == "deep_finetune"
    assert states[-1].settings.temperature == 0.5  # figures of the phase before steer nothing
