"""What the hero stands on is known from before: his glyph hides it, and bare stairs bring no message."""

from __future__ import annotations

import numpy as np
import pytest
from nle import nethack as nh
from observations import KEYS, X, Y, lit, observation, pet, place

from polybeast_moe import _C

DOWN, UP = place("staircase down"), place("staircase up")
LEVEL = {"DNUM": 0, "DLEVEL": 3, "DEPTH": 3}
BELOW = {"DNUM": 0, "DLEVEL": 4, "DEPTH": 4}
ON = {"X": X + 2, "Y": Y - 1}
"""Where `SHOWN` has stairs."""


def shown(glyph: int, **stats: int) -> dict[str, np.ndarray]:
    return observation({(2, -1): glyph}, **(LEVEL | stats))


def after(*seen: dict[str, np.ndarray]) -> set[str]:
    """The stairs under the hero in the last of these observations of one game."""
    memory = _C.StairsMemory()
    for one in seen:
        names = lit(one, memory)
    assert lit(seen[-1], memory) == names, "the same observation twice"
    return {name for name in names if name.startswith("stairs_") and name.endswith("_underfoot")}


@pytest.mark.parametrize(("glyph", "way"), [(DOWN, "down"), (UP, "up"), (place("ladder down"), "down")])
def test_stairs_that_the_map_showed_are_known_underfoot(glyph: int, way: str) -> None:
    on_them = observation(**LEVEL, **ON)
    assert after(on_them) == set()
    assert after(shown(glyph), on_them) == {f"stairs_{way}_underfoot"}
    assert after(shown(glyph), observation(**LEVEL)) == set()
    assert after(shown(glyph), observation(**LEVEL, X=ON["X"], Y=ON["Y"] + 1)) == set()
    assert after(shown(glyph), shown(pet("kitten")), on_them) == {f"stairs_{way}_underfoot"}


def test_stairs_underfoot_count_as_known() -> None:
    memory = _C.StairsMemory()
    lit(shown(DOWN), memory)
    names = lit(observation(**LEVEL, **ON), memory)
    assert "stairs_down_known" in names
    assert "stairs_down_unknown" not in names


def test_each_level_has_its_own() -> None:
    for elsewhere in (BELOW, LEVEL | {"DNUM": 2}):
        assert after(shown(DOWN), observation(**elsewhere, **ON)) == set()
        assert after(shown(DOWN), observation(**elsewhere, **ON), observation(**LEVEL, **ON)) != set()


def test_a_message_is_remembered_and_a_refusal_forgets() -> None:
    told = observation(message="There is a staircase down here.  You see here a dart.", **LEVEL, **ON)
    here = observation(**LEVEL, **ON)
    assert after(told, here) == {"stairs_down_underfoot"}
    assert after(told, observation(message="You can't go down here.", **LEVEL, **ON)) == set()
    assert after(told, observation(message="You can't go up here.", **LEVEL, **ON)) == {"stairs_down_underfoot"}


def test_who_takes_stairs_arrives_on_those_that_lead_back() -> None:
    on_them = observation(**LEVEL, **ON)
    assert after(shown(DOWN), on_them, observation(**BELOW)) == {"stairs_up_underfoot"}
    assert after(shown(DOWN), on_them, observation(**BELOW), observation(**BELOW, X=9), observation(**BELOW)) != set()
    assert after(shown(UP), on_them, observation(DNUM=0, DLEVEL=2, DEPTH=2)) == {"stairs_down_underfoot"}
    # Fallen, levelported, or through a trap door beside the stairs.
    assert after(shown(DOWN), on_them, observation(DNUM=0, DLEVEL=7, DEPTH=7)) == set()
    assert after(shown(DOWN), observation(**LEVEL), observation(**BELOW)) == set()


def test_a_game_begins_on_the_stairs_up() -> None:
    start = observation(DNUM=0, DLEVEL=1, DEPTH=1, TIME=1)
    assert after(start) == {"stairs_up_underfoot"}
    assert after(observation(DNUM=0, DLEVEL=1, DEPTH=1, TIME=2)) == set()
    memory = _C.StairsMemory()
    lit(shown(DOWN), memory)
    memory.forget()
    assert "stairs_up_underfoot" in lit(start, memory)
    assert "stairs_down_underfoot" not in lit(observation(**LEVEL, **ON), memory)


def test_nothing_is_learnt_at_a_prompt_but_what_is_known_holds() -> None:
    on_them = observation(**LEVEL, **ON)
    asked = {"message": "In what direction?", "misc": (1, 0, 0)}
    assert after(observation({(2, -1): DOWN}, **asked, **LEVEL), on_them) == set()
    assert after(shown(DOWN), observation(**asked, **LEVEL, **ON)) == {"stairs_down_underfoot"}


def test_a_copy_goes_its_own_way() -> None:
    memory = _C.StairsMemory()
    lit(shown(DOWN), memory)
    copy = memory.copy()
    memory.forget()
    assert "stairs_down_underfoot" in lit(observation(**LEVEL, **ON), copy)


def test_a_map_full_of_stairs_does_no_harm() -> None:
    full = observation(dict.fromkeys(((dx, dy) for dx in range(-9, 9) for dy in range(1, 9)), DOWN), **LEVEL)
    assert after(full) == set()


def test_memories_must_be_as_many_as_rows() -> None:
    arrays = [np.stack([observation()[key]] * 2) for key in KEYS]
    with pytest.raises(ValueError, match="2 rows"):
        _C.evaluate_conditions(*arrays, [_C.StairsMemory()])


# ---------------------------------------------------------------- real games

SEEN = (*KEYS, "internal")
MAP_LEVEL, TELEPORT_TO_STAIRS, LOOK, ON_STAIRS_DOWN = "\x06", "\x14>.", ord(":"), 4
LEVELS, TRIES = 3, 20  # a monster may sit on the stairs for a while


class Walk:
    """A game in wizard mode, whose levels are mapped, so that teleportation finds the stairs."""

    def __init__(self, seed: int) -> None:
        self.game = nh.Nethack(observation_keys=SEEN, playername="Agent-mon-hum-neu-mal", ttyrec=None, wizard=True)
        self.game.set_initial_seeds(seed, seed, False)
        self.memory, self.done = _C.StairsMemory(), False
        self.seen = dict(zip(SEEN, self.game.reset(), strict=True))
        self.type("\r")

    def press(self, key: int) -> None:
        observation, self.done = self.game.step(key)
        self.seen = dict(zip(SEEN, observation, strict=True))

    def type(self, keys: str) -> None:
        """Types keys and looks at what came of them, prompts passed."""
        for key in keys:
            self.press(ord(key))
        while not self.done and self.seen["misc"][2]:
            self.press(13)
        self.names = lit(self.seen, self.memory)

    @property
    def on_stairs_down(self) -> bool:
        return bool(self.seen["internal"][ON_STAIRS_DOWN])

    def told(self) -> str:
        """What a look tells of the hero's square; the memory does not hear of it."""
        self.press(LOOK)
        text = bytes(self.seen["message"]).rstrip(b"\0").decode()
        while self.seen["misc"].any():
            self.press(13)
        return text

    def to_stairs(self) -> None:
        """Brings the hero onto the stairs down."""
        self.type(MAP_LEVEL)
        for _ in range(TRIES):
            self.type(TELEPORT_TO_STAIRS)
            if self.on_stairs_down:
                return


def test_real_games_are_read_right() -> None:
    """Of the engine itself: whether the hero stands on stairs down, and what a look tells."""
    for seed in range(8):
        walk = Walk(seed)
        assert "stairs_up_underfoot" in walk.names
        assert "staircase up here" in walk.told()
        for _ in range(LEVELS):
            assert "stairs_down_underfoot" not in walk.names
            walk.to_stairs()
            assert walk.on_stairs_down
            assert "stairs_down_underfoot" in walk.names
            assert "stair" not in bytes(walk.seen["message"]).decode(), "the message would have told"
            assert "staircase down here" in walk.told()
            walk.type(">")
            assert "stairs_up_underfoot" in walk.names
            assert "staircase up here" in walk.told()
        walk.game.close()
