"""Who may do what next: slots in the order of their delivery, requests that only their own actor's answer meets."""

from __future__ import annotations

import threading
import time

import pytest

from polybeast_moe import _C
from polybeast_moe.envs.engine import game_settings
from polybeast_moe.runtime.rollouts import Rollout, rollout_layout

GROUP = _C.OWNER_FIRST_GROUP


@pytest.fixture
def region(make_config, nle_package) -> _C.Region:
    config = make_config("runtime.unroll=2")
    layout, game = rollout_layout(config, state_size=2), game_settings(config.env, nle_package)
    return _C.Region(layout, slots=3, actors=1, groups_per_actor=2, run_seed=1, game=game)


def answer_all(region: _C.Region) -> int:
    requests = region.requests(region.groups)
    for request in requests:
        Rollout(region, request.slot)["action"][request.step] = 0
        assert region.answer(request)
    return len(requests)


def test_slots_are_delivered_in_the_order_in_which_they_were_filled(region: _C.Region) -> None:
    slots = [region.take_free(GROUP + group) for group in (0, 1, 0)]
    assert sorted(slots) == [0, 1, 2]
    assert region.take_free(GROUP) is None
    assert region.deliver(slots[2], GROUP)
    assert region.take_delivered(2) == []  # a batch comes whole or not at all
    assert region.state(slots[2])[0] == _C.OWNER_DELIVERED
    assert region.deliver(slots[0], GROUP)
    assert region.deliver(slots[1], GROUP + 1)
    assert region.take_delivered(2) == [slots[2], slots[0]]
    assert [region.state(slot)[0] for slot in slots] == [_C.OWNER_LEARNER, _C.OWNER_DELIVERED, _C.OWNER_LEARNER]
    region.give_back(slots[0])
    assert region.take_free(GROUP + 1) == slots[0]


def test_what_is_delivered_behind_the_learners_back_overtakes_nothing(make_config) -> None:
    """Into the first slot and then into the last while the learner looks from one to the other: it takes them so."""
    rounds, last = 200, 4000
    region = _C.Region(rollout_layout(make_config("runtime.unroll=1"), 0), slots=last + 1, actors=1, groups_per_actor=1)

    def deliver() -> None:
        for _ in range(rounds):
            while {region.state(slot)[0] for slot in (0, last)} != {GROUP}:
                time.sleep(0)
            assert region.deliver(0, GROUP)
            assert region.deliver(last, GROUP)

    actor = threading.Thread(target=deliver, daemon=True)
    actor.start()
    for _ in range(rounds):
        for slot in (0, last):
            assert region.hand_over(slot, _C.OWNER_FREE, GROUP)
        taken: list[int] = []
        while len(taken) < 2:
            taken += region.wait_delivered(1, timeout_ms=0)
        assert taken == [0, last]
        for slot in taken:
            region.give_back(slot)
    actor.join()


@pytest.mark.timeout(60)
def test_a_delivery_wakes_the_learner(region: _C.Region) -> None:
    slot = region.take_free(GROUP)
    actor = threading.Timer(0.2, region.deliver, (slot, GROUP))
    actor.start()
    assert region.wait_delivered(1, timeout_ms=3_600_000) == [slot]
    actor.join()


def test_only_its_owner_delivers_a_slot_and_only_the_learner_gives_it_back(region: _C.Region) -> None:
    slot = region.take_free(GROUP)
    assert not region.deliver(slot, GROUP + 1)
    with pytest.raises(RuntimeError, match="not the learner's"):
        region.give_back(slot)
    assert region.state(slot) == (GROUP, 0, 0)


def test_an_actor_asks_and_waits_for_each_answer(region: _C.Region, tmp_path) -> None:
    actor = _C.Actor(region, 0, tmp_path / "actor", 0)
    assert region.requests(9) == []
    assert actor.run_once()
    asked = [(request.group, request.step, request.answers) for request in region.requests(9)]
    assert asked == [(0, 0, 0), (1, 0, 0)]
    assert len(region.requests(1)) == 1
    assert not actor.run_once()  # it waits
    assert answer_all(region) == 2
    assert region.requests(9) == []
    assert actor.run_once()
    assert [(request.step, request.answers) for request in region.requests(9)] == [(1, 1)] * 2
    answer_all(region)
    assert actor.run_once()  # delivers; one slot is left, which group 0 takes
    assert [(request.group, request.step) for request in region.requests(9)] == [(0, 0)]
    assert len(region.take_delivered(2)) == 2


def test_a_request_is_answered_once(region: _C.Region, tmp_path) -> None:
    actor = _C.Actor(region, 0, tmp_path / "actor", 0)
    actor.run_once()
    request = region.requests(1)[0]
    assert region.answer(request)
    assert not region.answer(request)


def test_an_answer_to_an_actor_that_is_no_more_is_void(region: _C.Region, tmp_path) -> None:
    actor = _C.Actor(region, 0, tmp_path / "first", 0)
    actor.run_once()
    request = region.requests(1)[0]
    assert region.take_back_actor(0) == 2  # it held a slot for each group
    assert [region.state(slot) for slot in range(3)] == [(_C.OWNER_FREE, 1, 0)] * 2 + [(_C.OWNER_FREE, 0, 0)]
    assert not region.answer(request)
    assert region.requests(9) == []
    assert not actor.run_once()  # should it live after all, it plays no more
    successor = _C.Actor(region, 0, tmp_path / "second", 100)
    assert successor.run_once()
    assert answer_all(region) == 2
    assert successor.run_once()
    assert not region.answer(request)
