"""The layout of a slot, and who owns it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from polybeast_moe import _C
from polybeast_moe.runtime.rollouts import Rollout

SHAPE = {
    "unroll": 5,
    "games": 3,
    "actions": 23,
    "experts": 4,
    "state": 6,
    "crop": 9,
    "store_glyphs": False,
    "store_inventory": False,
    "store_reward_terms": False,
    "max_episode_steps": 7,
}

shapes = st.fixed_dictionaries(
    {
        "unroll": st.integers(1, 20),
        "games": st.integers(1, 9),
        "actions": st.integers(1, 90),
        "experts": st.integers(1, 9),
        "state": st.integers(0, 40),
        "crop": st.integers(1, 21),
        "store_glyphs": st.booleans(),
        "store_inventory": st.booleans(),
        "store_reward_terms": st.booleans(),
        "max_episode_steps": st.integers(1, 50),
    }
)


def size(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(shape))


@given(shapes)
@settings(max_examples=60)
def test_fields_are_aligned_and_do_not_overlap(shape: dict[str, int]) -> None:
    layout = _C.RolloutLayout(**shape)
    end = 64  # the header
    for _, dtype, dimensions, offset in sorted(layout.fields, key=lambda field: (field[3], size(*field[1:3]))):
        assert offset % 64 == 0
        assert offset >= end
        end = offset + size(dtype, dimensions)
    assert layout.slot_bytes >= end
    assert layout.slot_bytes % 4096 == 0
    names = [name for name, *_ in layout.fields]
    assert len(set(names)) == len(names)


@given(shapes, shapes)
@settings(max_examples=60)
def test_equal_checksums_mean_equal_fields(one: dict[str, int], other: dict[str, int]) -> None:
    first, second = _C.RolloutLayout(**one), _C.RolloutLayout(**other)
    assert (first.checksum == second.checksum) == (first.fields == second.fields)


@pytest.mark.parametrize("key", SHAPE)
def test_the_checksum_tells_any_two_shapes_apart(key: str) -> None:
    longer = {"unroll": 10, "max_episode_steps": 2}  # these two decide how many final observations fit
    other = SHAPE | {key: True if key.startswith("store_") else longer.get(key, int(SHAPE[key]) + 1)}
    assert _C.RolloutLayout(**other).checksum != _C.RolloutLayout(**SHAPE).checksum


@given(shapes)
@settings(max_examples=60)
def test_final_observations_of_any_slot_fit(shape: dict[str, int]) -> None:
    """A game whose limit comes at the first step of a slot, and every limit's length after that."""
    fields = {name: dimensions for name, _, dimensions, _ in _C.RolloutLayout(**shape).fields}
    most = shape["games"] * len(range(0, shape["unroll"], shape["max_episode_steps"]))
    assert fields["final_step"][0] == fields["final_glyph_crop"][0] >= most
    assert fields["record_step"][0] >= shape["games"] * shape["unroll"]


@pytest.mark.parametrize("key", ["unroll", "games", "actions", "experts", "max_episode_steps"])
def test_a_layout_of_nothing_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="at least one"):
        _C.RolloutLayout(**SHAPE | {key: 0})


@pytest.mark.parametrize("key", ["unroll", "games", "actions", "experts", "state", "crop"])
def test_a_layout_beyond_all_memory_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="more memory than"):
        _C.RolloutLayout(**SHAPE | {key: 2**62})


def test_views_of_a_slot_are_the_regions_memory() -> None:
    region = _C.Region(_C.RolloutLayout(**SHAPE), 2)
    first, again, other = Rollout(region, 0), Rollout(region, 0), Rollout(region, 1)
    first["reward"][2, 1] = 7.0
    assert again["reward"][2, 1] == 7.0
    assert not other["reward"].any()
    (offset,) = (offset for name, _, _, offset in region.layout.fields if name == "reward")
    row = 2 * SHAPE["games"] + 1
    assert region.slot(0)[offset:].view(np.float32)[row] == 7.0


def test_writing_one_field_changes_no_other_and_no_header() -> None:
    region = _C.Region(_C.RolloutLayout(**SHAPE), 3)
    rollouts = [Rollout(region, slot) for slot in range(3)]
    for name in rollouts[1].fields:
        rollouts[1][name].view(-1).fill_(1)
        for rollout in rollouts:
            for field, tensor in rollout.fields.items():
                written = rollout.slot == 1 and field == name
                assert (tensor == 1).all() if written else not tensor.any(), (name, rollout.slot, field)
        assert [region.state(slot) for slot in range(3)] == [(_C.OWNER_FREE, 0, 0)] * 3
        rollouts[1][name].zero_()


def test_a_view_keeps_the_region_alive() -> None:
    rollout = Rollout(_C.Region(_C.RolloutLayout(**SHAPE), 1), 0)
    rollout["action"].fill_(3)
    assert rollout["action"].sum() == 3 * SHAPE["unroll"] * SHAPE["games"]


def test_a_slot_that_does_not_exist_is_refused() -> None:
    region = _C.Region(_C.RolloutLayout(**SHAPE), 2)
    with pytest.raises(IndexError):
        region.slot(2)
    with pytest.raises(ValueError, match="at least one slot"):
        _C.Region(_C.RolloutLayout(**SHAPE), 0)


def test_a_region_that_cannot_be_made_leaves_nothing_behind() -> None:
    def mappings() -> int:
        return Path("/proc/self/maps").read_text().count("pbm-region")

    layout, before = _C.RolloutLayout(**SHAPE), mappings()
    endless = _C.GameSettings(library="x" * 5000, data_directory="", options="", keys=[])
    for arguments, message in (
        ({"slots": 2, "game": endless}, "longer than 4095 bytes"),
        ({"slots": 2**62}, "more memory than"),
        ({"slots": 2, "actors": 2**62, "groups_per_actor": 4}, "more memory than"),
        ({"slots": 2, "actors": 70_000}, "at most 65520 groups"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.Region(layout, **arguments)
    assert mappings() == before


def test_what_is_no_region_is_not_attached() -> None:
    with pytest.raises(OSError, match="not open"):
        _C.Region.attach(10_000)
    with tempfile.TemporaryFile() as file:
        for size in (64, 1 << 20):
            file.truncate(size)
            with pytest.raises(RuntimeError, match="not a shared region"):
                _C.Region.attach(file.fileno())


OWNERS = st.sampled_from([_C.OWNER_FREE, _C.OWNER_DELIVERED, _C.OWNER_LEARNER, _C.OWNER_FIRST_GROUP, 1000])
SLOTS = st.integers(0, 2)


class SlotOwnership(RuleBasedStateMachine):
    """The state words against a model in plain Python: only its owner hands a slot on."""

    @initialize()
    def make(self) -> None:
        self.region = _C.Region(_C.RolloutLayout(**SHAPE), 3)
        self.model = [(_C.OWNER_FREE, 0, 0)] * 3

    @rule(slot=SLOTS, from_=OWNERS, to=OWNERS)
    def hand_over(self, slot: int, from_: int, to: int) -> None:
        owner, generation, sequence = self.model[slot]
        assert self.region.hand_over(slot, from_, to) == (owner == from_)
        if owner == from_:
            self.model[slot] = (to, generation, sequence + (to == _C.OWNER_DELIVERED))

    @rule(slot=SLOTS, dead=OWNERS)
    def take_back(self, slot: int, dead: int) -> None:
        owner, generation, sequence = self.model[slot]
        assert self.region.take_back(slot, dead) == (owner == dead)
        if owner == dead:
            self.model[slot] = (_C.OWNER_FREE, generation + 1, sequence)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "region"):
            assert [self.region.state(slot) for slot in range(3)] == self.model


SlotOwnership.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestSlotOwnership = SlotOwnership.TestCase
