"""The real slot and turn protocol against a small model of it, in any order of events and deaths.

An actor may die at any point of its work: holding slots, asking, answered, half-way through a rollout. Nothing is lost,
doubled or torn: a slot has one owner, what the learner takes is whole and in order, and what a dead actor began is free
again, answers to it void.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from polybeast_moe import _C

ACTORS, GROUPS_PER_ACTOR, SLOTS, UNROLL = 2, 2, 5, 2
GROUPS = ACTORS * GROUPS_PER_ACTOR
HEADER = 64  # bytes of a slot that are not its owner's to write

groups = st.integers(0, GROUPS - 1)


def owner(group: int) -> int:
    return _C.OWNER_FIRST_GROUP + group


def small_region() -> _C.Region:
    layout = _C.RolloutLayout(
        unroll=UNROLL, games=1, actions=2, experts=1, state=1, crop=3, store_glyphs=False, max_episode_steps=10
    )
    return _C.Region(layout, SLOTS, ACTORS, GROUPS_PER_ACTOR)


class SlotProtocol(RuleBasedStateMachine):
    """The model: who owns each slot, what was written into it, and where each group stands."""

    @initialize()
    def make(self) -> None:
        self.region = small_region()
        self.owners = [_C.OWNER_FREE] * SLOTS
        self.generations = [0] * SLOTS
        self.sequences = [0] * SLOTS
        self.contents = [0] * SLOTS
        self.delivered: list[int] = []
        self.slot_of: dict[int, int] = {}  # by group, while it fills one
        self.steps = [0] * GROUPS
        self.turn_generations = [0] * GROUPS
        self.answers = [0] * GROUPS
        self.asked: dict[int, _C.Request | None] = {}  # by group; the request itself once the policy has seen it
        self.stale: list[_C.Request] = []
        self.written = 0

    @rule(playing=st.lists(groups, min_size=1, max_size=2 * GROUPS))
    def groups_play(self, playing: list[int]) -> None:
        """Each does what comes next for it, as an actor would."""
        for group in playing:
            if group in self.asked:
                continue  # it waits
            if group not in self.slot_of:
                self.begin_a_rollout(group)
            elif self.steps[group] < UNROLL:
                self.ask(group)
            else:
                self.deliver(group)

    def begin_a_rollout(self, group: int) -> None:
        slot = self.region.take_free(owner(group))
        free = [i for i in range(SLOTS) if self.owners[i] == _C.OWNER_FREE]
        assert slot in free if free else slot is None
        if slot is not None:
            self.owners[slot] = owner(group)
            self.slot_of[group] = slot
            self.steps[group] = 0
            self.written += 1
            self.contents[slot] = self.written
            self.region.slot(slot)[HEADER:].view(np.int64)[:] = self.written

    def ask(self, group: int) -> None:
        place = (self.slot_of[group], self.steps[group])
        assert not self.region.request(group, self.turn_generations[group] + 1, *place)  # nobody's
        assert self.region.request(group, self.turn_generations[group], *place)
        assert not self.region.request(group, self.turn_generations[group], *place)  # it is the policy's turn
        self.asked[group] = None

    def deliver(self, group: int) -> None:
        slot = self.slot_of.pop(group)
        assert not self.region.deliver(slot, owner((group + 1) % GROUPS))
        assert self.region.deliver(slot, owner(group))
        self.owners[slot] = _C.OWNER_DELIVERED
        self.sequences[slot] += 1
        self.delivered.append(slot)

    @precondition(lambda self: self.asked)
    @rule(limit=st.integers(0, GROUPS))
    def the_policy_looks(self, limit: int) -> None:
        found = self.region.requests(limit)
        assert [request.group for request in found] == sorted(self.asked)[:limit]
        for request in found:
            assert (request.slot, request.step) == (self.slot_of[request.group], self.steps[request.group])
            assert request.answers == self.answers[request.group]
            self.asked[request.group] = request

    @precondition(lambda self: any(self.asked.values()))
    @rule(limit=st.integers(1, GROUPS))
    def the_policy_answers(self, limit: int) -> None:
        for group in [group for group, request in self.asked.items() if request is not None][:limit]:
            request = self.asked.pop(group)
            assert self.region.answer(request)
            self.answers[group] += 1
            self.steps[group] += 1
            self.stale.append(request)

    @precondition(lambda self: self.delivered)
    @rule(count=st.integers(1, 3))
    def take_a_batch(self, count: int) -> None:
        taken = self.region.take_delivered(count)
        whole = len(self.delivered) >= count
        assert taken == (self.delivered[:count] if whole else [])
        for slot in taken:
            self.delivered.remove(slot)
            self.owners[slot] = _C.OWNER_LEARNER

    @precondition(lambda self: _C.OWNER_LEARNER in self.owners)
    @rule()
    def the_learner_gives_one_back(self) -> None:
        slot = self.owners.index(_C.OWNER_LEARNER)
        self.region.give_back(slot)
        self.owners[slot] = _C.OWNER_FREE
        with pytest.raises(RuntimeError, match="not the learner's"):
            self.region.give_back(slot)

    @precondition(lambda self: 4 * sum(self.turn_generations) <= sum(self.answers))  # or nothing is ever delivered
    @rule(actor=st.integers(0, ACTORS - 1))
    def an_actor_dies(self, actor: int) -> None:
        own = range(actor * GROUPS_PER_ACTOR, (actor + 1) * GROUPS_PER_ACTOR)
        held = [self.slot_of.pop(group) for group in own if group in self.slot_of]
        assert self.region.take_back_actor(actor) == len(held)
        for slot in held:
            self.owners[slot] = _C.OWNER_FREE
            self.generations[slot] += 1
        for group in own:
            self.turn_generations[group] += 1
            if (request := self.asked.pop(group, None)) is not None:
                self.stale.append(request)

    @invariant()
    def late_answers_are_void(self) -> None:
        assert not any(self.region.answer(request) for request in self.stale)

    @invariant()
    def only_its_owner_hands_a_slot_over(self) -> None:
        for slot in range(SLOTS):
            for other in (_C.OWNER_LEARNER, *map(owner, range(GROUPS))):
                if other != self.owners[slot]:
                    assert not self.region.hand_over(slot, other, _C.OWNER_DELIVERED)
                    assert not self.region.take_back(slot, other)

    @invariant()
    def region_and_model_agree(self) -> None:
        for slot in range(SLOTS):
            assert self.region.state(slot) == (self.owners[slot], self.generations[slot], self.sequences[slot])
            assert (self.region.slot(slot)[HEADER:].view(np.int64) == self.contents[slot]).all()
        for group in range(GROUPS):
            whose = _C.TURN_POLICY if group in self.asked else _C.TURN_ACTOR
            assert self.region.turn(group) == (whose, self.answers[group], self.turn_generations[group])

    @invariant()
    def an_actor_has_work_when_it_could_move(self) -> None:
        for actor in range(ACTORS):
            own = range(actor * GROUPS_PER_ACTOR, (actor + 1) * GROUPS_PER_ACTOR)
            free = _C.OWNER_FREE in self.owners
            could = any(group not in self.asked and (group in self.slot_of or free) for group in own)
            assert self.region.actor_has_work(actor) == could

    def teardown(self) -> None:
        """Stop: whoever is left dies, the learner takes what was delivered, and everything is free."""
        for actor in range(ACTORS):
            self.an_actor_dies(actor)
        while self.delivered:
            self.take_a_batch(1)
        for slot in range(SLOTS):
            if self.owners[slot] == _C.OWNER_LEARNER:
                self.the_learner_gives_one_back()
        assert self.owners == [_C.OWNER_FREE] * SLOTS
        self.region_and_model_agree()


TestSlotProtocol = SlotProtocol.TestCase
TestSlotProtocol.settings = settings(max_examples=60, stateful_step_count=80)


def test_another_mapping_of_the_region_sees_the_same_words() -> None:
    region = small_region()
    other = _C.Region.attach(region.fd)
    slot = region.take_free(owner(1))
    assert other.state(slot) == (owner(1), 0, 0)
    assert region.request(1, 0, slot, 0)
    [request] = other.requests(GROUPS)
    assert (request.group, request.slot) == (1, slot)
    assert other.answer(request)
    assert region.turn(1) == (_C.TURN_ACTOR, 1, 0)
    assert other.deliver(slot, owner(1))
    assert region.wait_delivered(1, timeout_ms=0) == [slot]


def test_a_region_names_no_more_groups_than_a_state_word_can() -> None:
    layout = small_region().layout
    with pytest.raises(ValueError, match="at most 65520 groups"):
        _C.Region(layout, slots=1, actors=1024, groups_per_actor=64)
