"""The inline mode: policy and games in one process, rollout after rollout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from counting_policy import CountingPolicy
from written import Fields, written

from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.learning.learner import Learner
from polybeast_moe.learning.phases import ControllerState, Counters, advance
from polybeast_moe.models.interface import PolicyOutput
from polybeast_moe.runtime.inline import InlineRuntime
from polybeast_moe.runtime.rollouts import Batch, make_batch


class NotingPolicy(CountingPolicy):
    """Every call is noted; `after` may do something then."""

    def __init__(self, config: RunConfig, graph: None, *, num_actions: int) -> None:
        super().__init__(config, graph, num_actions=num_actions)
        self.calls: list[tuple[str, float, int]] = []
        self.after: Callable[[int], None] = lambda calls: None

    def infer(self, observation, state=None, *, routing, temperature, first, weights_version) -> PolicyOutput:
        self.calls.append((routing, temperature, weights_version))
        with torch.no_grad():
            output = super().infer(observation, state, first=first)
        self.after(len(self.calls))
        return output


@pytest.fixture
def noting(make_config) -> NotingPolicy:
    return NotingPolicy(make_config(), None, num_actions=len(ACTIONS))


def collect(runtime: InlineRuntime) -> list[Fields]:
    """Copies a batch of rollouts and gives the slots back."""
    rollouts = runtime.collect()
    copies = [written(rollout) for rollout in rollouts]
    runtime.give_back(rollouts)
    return copies


OBSERVED = ("glyph_crop", "blstats", "message", "conditions", "previous_action", "first")


def test_a_groups_slots_join_up_from_batch_to_batch(make_config, start_inline, noting) -> None:
    runtime = start_inline(make_config("learner.slots_per_batch=4"), noting)
    before = None
    for _ in range(4):
        batch = collect(runtime)
        if before is not None:
            batch = [*before[2:], *batch]
        for earlier, later in zip(batch, batch[2:], strict=False):  # two groups take turns
            for name in OBSERVED:
                assert torch.equal(earlier[name][-1], later[name][0]), name
        before = batch[-4:]


def test_recurrent_state_is_that_of_the_game_and_goes_on_over_slots(make_config, start_inline, noting) -> None:
    """The initial state of a slot counts the steps since the episode began, if it began before the slot."""
    runtime = start_inline(make_config("env.max_episode_steps=11"), noting)
    counts = [torch.zeros(3), torch.zeros(3)]
    for _ in range(6):
        for group, slot in enumerate(collect(runtime)):
            assert torch.equal(slot["initial_state"][:, 0], counts[group])
            for t in range(8):
                counts[group] = torch.where(slot["first"][t].bool(), 0, counts[group]) + 1
    assert max(count.max() for count in counts) <= 11


def test_every_step_holds_what_was_in_force_when_it_was_inferred(make_config, start_inline, noting) -> None:
    """Settings that change between two inferences, in the middle of a slot, reach the very next one."""
    runtime = start_inline(make_config("runtime.groups=1", "learner.slots_per_batch=1"), noting)
    runtime.set_control(phase=2, routing="softmax", temperature=0.7, policy_version=11)

    def change(calls: int) -> None:
        if calls == 3:
            runtime.set_control(phase=3, routing="sparsemax", temperature=0.1 + 0.2, policy_version=12)

    noting.after = change
    [slot] = collect(runtime)
    assert slot["phase"].tolist() == [2] * 3 + [3] * 5
    assert slot["routing"].tolist() == [0] * 3 + [1] * 5
    assert slot["temperature"].tolist() == [0.7] * 3 + [0.1 + 0.2] * 5  # in double precision
    assert slot["policy_version"].tolist() == [11] * 3 + [12] * 5
    assert noting.calls == [("softmax", 0.7, 11)] * 3 + [("sparsemax", 0.1 + 0.2, 12)] * 5


def test_the_learner_reads_what_the_policy_said(make_config, start_inline, make_policy) -> None:
    """The learner's pass over a batch, from its initial states and first flags, gives the behaviour's logits again."""
    config = make_config("env.max_episode_steps=13", "policy.lstm=8", "graph.enabled=true", "runtime.unroll=16")
    policy = make_policy(config)
    runtime = start_inline(config, policy)
    runtime.set_control(phase=0, routing="sparsemax", temperature=0.5, policy_version=0)
    ended = 0
    for _ in range(3):
        rollouts = runtime.collect()
        batch: Batch = make_batch(rollouts)
        alpha = torch.cat([rollout["alpha"].clone() for rollout in rollouts], dim=1)
        runtime.give_back(rollouts)
        with torch.no_grad():
            output = policy(
                batch.observation, batch.initial_state, routing="sparsemax", temperature=0.5, first=batch.first
            )
        shape = (batch.steps + 1, batch.games, -1)
        assert torch.allclose(output.logits.view(shape)[:-1], batch.behaviour_logits, atol=1e-5)
        assert torch.allclose(output.alpha.view(shape)[:-1], alpha, atol=1e-5)
        ended += int(batch.truncated.sum())
    assert batch.initial_state.abs().sum() > 0
    assert ended > 0, "the test says nothing of states at a new episode"


def test_inline_data_are_on_policy(make_config, start_inline, make_policy) -> None:
    config = make_config("graph.enabled=true")
    policy = make_policy(config)
    learner = Learner(policy, config.learner)
    runtime = start_inline(config, policy)
    _, settings, _ = advance(config.phases, ControllerState(), Counters(), {})
    for update in range(3):
        runtime.set_control(phase=0, routing="softmax", temperature=1.0, policy_version=update)
        rollouts = runtime.collect()
        batch = make_batch(rollouts)
        runtime.give_back(rollouts)
        figures = learner.update(batch, settings).diagnostics
        assert figures["policy_lag"] == 0
        assert figures["rho_clip_share"] == 0
        assert figures["behaviour_kl"] == pytest.approx(0, abs=1e-6)


def test_actions_are_drawn_from_the_policy(make_config, start_inline, noting) -> None:
    with torch.no_grad():
        noting.logits[[3, 7]] = 30.0
    slots = collect(start_inline(make_config(), noting))
    actions = torch.cat([slot["action"].flatten() for slot in slots])
    assert set(actions.tolist()) == {3, 7}


def same(one: list[Fields], other: list[Fields]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in a.keys() | b.keys())


def test_a_run_is_a_function_of_its_seed(make_config, start_inline, make_policy) -> None:
    def play(seed: int) -> list[Fields]:
        runtime = start_inline(make_config(f"seed={seed}"), make_policy(make_config()))
        return [slot for _ in range(5) for slot in collect(runtime)]

    first = play(1)
    assert same(play(1), first)
    assert not same(play(2), first)


def test_games_differ_from_each_other(make_config, start_inline, noting) -> None:
    slots = collect(start_inline(make_config(), noting))
    screens = torch.cat([slot["blstats"][0, :, 3:9] for slot in slots])  # the heroes' six attributes
    assert len({tuple(row) for row in screens.tolist()}) > 3


def test_an_interrupted_collect_gives_nothing_and_loses_nothing(make_config, start_inline, noting) -> None:
    runtime, whole = start_inline(make_config(), noting), start_inline(make_config(), noting)
    stopping = iter([False] * 4 + [True])
    assert runtime.collect(lambda: next(stopping)) is None
    assert 0 < len(noting.calls) < 8
    assert same(collect(runtime), collect(whole))


def test_rollouts_that_are_not_given_back_are_an_error_not_a_hang(make_config, start_inline, noting) -> None:
    runtime = start_inline(make_config(), noting)
    rollouts = runtime.collect()
    with pytest.raises(RuntimeError, match="not given back"):
        runtime.collect()
    runtime.give_back(rollouts)
    with pytest.raises(RuntimeError, match="not the learner's"):
        runtime.give_back(rollouts)
    assert len(runtime.collect()) == 2


def test_time_is_added_up_and_closing_removes_the_games_files(
    make_config, start_inline, noting, tmp_path: Path
) -> None:
    runtime = start_inline(make_config(), noting)
    runtime.give_back(runtime.collect())
    [games] = tmp_path.iterdir()
    assert len(list(games.iterdir())) == 6
    assert min(runtime.busy_seconds().values()) > 0
    assert runtime.fatal_games == 0
    runtime.close()
    assert not list(games.iterdir())
