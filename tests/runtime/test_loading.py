"""Batches come in the order of their rollouts, and slots go back when they have been read, ahead or not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from polybeast_moe import _C
from polybeast_moe.runtime.loading import Feed, batch_on, make_feed, tensors
from polybeast_moe.runtime.rollouts import Batch, make_batch


class Script:
    """Stands in for a runtime: rollouts are numbers, and those up to `ready` have been delivered."""

    def __init__(self, ready: int) -> None:
        self.ready, self.taken = ready, 0

    def collect(self, interrupted: Callable[[], bool]) -> list[int] | None:
        return None if interrupted() else self._take()

    def poll(self) -> list[int]:
        return self._take() if self.taken < self.ready else []

    def _take(self) -> list[int]:
        self.taken += 1
        return [self.taken]


def test_one_batch_is_made_ahead_where_its_rollouts_are_there() -> None:
    made: list[tuple[int, bool]] = []

    def load(rollouts: list[int]) -> int:
        made.append((rollouts[0], threading.current_thread() is threading.main_thread()))
        return 10 * rollouts[0]

    script = Script(ready=3)
    feed = Feed(script, load, ahead=True)
    assert (feed.collect(), feed.batch()) == ([1], 10)
    assert script.taken == 2  # the second is on its way while the first is learnt from, and no third
    assert (feed.collect(), feed.batch()) == ([2], 20)
    assert (feed.collect(), feed.batch()) == ([3], 30)
    assert script.taken == 3  # the fourth was not there yet
    assert (feed.collect(), feed.batch()) == ([4], 40)
    feed.close()
    assert made == [(1, False), (2, False), (3, False), (4, False)]


def test_otherwise_a_batch_is_made_when_it_is_wanted() -> None:
    made: list[int] = []
    script = Script(ready=9)
    feed = Feed(script, lambda rollouts: made.append(rollouts[0]), ahead=False)
    assert feed.collect() == [1]
    assert made == []
    feed.batch()
    assert (made, script.taken) == ([1], 1)
    feed.close()


def test_an_interrupted_wait_gives_nothing_and_what_waits_is_given_all_the_same() -> None:
    script = Script(ready=2)
    feed = Feed(script, lambda rollouts: rollouts[0], ahead=True)
    assert feed.collect(lambda: True) is None
    assert feed.collect() == [1]
    assert feed.collect(lambda: True) == [2]
    feed.close()


def test_an_exception_while_loading_is_the_learners() -> None:
    def load(_rollouts: list[int]) -> Batch:
        raise ValueError("torn")

    feed = Feed(Script(ready=1), load, ahead=True)
    feed.collect()
    with pytest.raises(ValueError, match="torn"):
        feed.batch()
    feed.close()


def test_slots_of_real_actors_go_round(start_runtime) -> None:
    """Every batch is of the rollouts given, none is given twice, and all slots are free or being filled at the end."""
    runtime = start_runtime("runtime.prefetch=true")
    runtime.start()
    region = runtime._region
    assert len(region) == 2 * 2 + 2 * 2
    feed = make_feed(runtime.supervisor.config, runtime._policy, runtime, print)
    seen: set[tuple[int, int]] = set()
    for _ in range(12):
        rollouts = feed.collect()
        assert rollouts is not None
        batch = feed.batch()
        assert_equal(batch, make_batch(rollouts))
        names = {(int(rollout["first_game"][0]), int(rollout["episode_step"].sum())) for rollout in rollouts}
        seen |= names
        owners = [region.state(slot)[0] for slot in range(len(region))]
        assert 2 <= owners.count(_C.OWNER_LEARNER) <= 4
        runtime.give_back(rollouts)
    assert len(seen) > 12
    fetched = [region.state(slot)[0] for slot in range(len(region))].count(_C.OWNER_LEARNER)
    assert fetched in (0, 2)
    assert runtime.state()["rollouts_in_flight"] >= fetched
    feed.close()


@pytest.fixture
def rollouts(make_config, make_policy, start_inline):
    """Real rollouts in which games were truncated, and a policy with a graph."""
    config = make_config("graph.enabled=true", "env.max_episode_steps=5")
    policy = make_policy(config)
    collected = start_inline(config, policy).collect()
    assert sum(rollout.finals for rollout in collected) > 0
    return collected, policy


def test_a_batch_put_together_on_a_device_is_the_same_with_its_plans(rollouts) -> None:
    """The device is the CPU: slots are copied whole, batches made of the copies."""
    collected, policy = rollouts
    batch, expected = batch_on(torch.device("cpu"), collected, policy), make_batch(collected)
    for rollout in collected:
        for tensor in rollout.fields.values():
            tensor.zero_()  # whoever plays next
    assert_equal(batch, expected)
    for ours, theirs in (
        (batch.observation, expected.observation),
        (batch.final_observation, expected.final_observation),
    ):
        assert ours.graph_plan is not None
        first = torch.zeros(1, len(ours.blstats), dtype=torch.bool)
        planned, plain = policy(ours, first=first), policy(theirs, first=first)
        torch.testing.assert_close(planned.logits, plain.logits)
    counted: list[Tensor] = []
    tensors(batch, counted.append)
    assert len(counted) > len(fields(batch)) + 8  # those within observations and plans too


def test_a_batch_without_final_observations_has_no_plan_of_them(rollouts) -> None:
    collected, policy = rollouts
    for rollout in collected:
        rollout["final_count"].zero_()
    batch = batch_on(torch.device("cpu"), collected, policy)
    assert_equal(batch, make_batch(collected))
    assert batch.observation.graph_plan is not None
    assert batch.final_observation.graph_plan is None


def assert_equal(batch: Batch, expected: Batch) -> None:
    for field in fields(Batch):
        ours, theirs = getattr(batch, field.name), getattr(expected, field.name)
        if isinstance(theirs, Tensor):
            assert torch.equal(ours, theirs), field.name
        elif theirs is not None:
            for name in theirs._fields:
                if name != "graph_plan" and getattr(theirs, name) is not None:
                    assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
