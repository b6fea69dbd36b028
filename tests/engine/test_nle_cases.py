"""What NLE's own tests assert of its environments (nle/tests/test_envs.py and test_nethack.py), asserted of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from nle import nethack

from polybeast_moe.envs import NetHackVectorEnv
from polybeast_moe.envs.tasks import TASKS, TaskOptions

Play = Callable[..., "OneGame"]


class OneGame:
    """A vector environment of one game whose actions are given as keys; at no full moon, whatever today is."""

    def __init__(self, task: str, keys: Sequence[str], **options: Any) -> None:
        self.env = NetHackVectorEnv(task, 1, observation_keys=keys, clock=1_600_000_000, **options)
        self._actions = list(self.env.task_options.keys(task))

    def reset(self, seeds: tuple[int, int, int | None] | None = None) -> dict[str, Any]:
        if seeds is not None:
            self.env.set_seeds([seeds])
        return self._only(self.env.reset()[0])

    def press(self, key: int) -> tuple[dict[str, Any], float, bool]:
        seen, reward, terminated, _, _ = self.env.step(np.array([self._actions.index(int(key))]))
        return self._only(seen), float(reward[0]), bool(terminated[0])

    def _only(self, seen: dict[str, Any]) -> dict[str, Any]:
        return {key: array[0] for key, array in seen.items()}


@pytest.fixture
def play() -> Iterator[Play]:
    games: list[OneGame] = []

    def begin(task: str, keys: Sequence[str], **options: Any) -> OneGame:
        games.append(OneGame(task, keys, **options))
        return games[-1]

    yield begin
    for game in games:
        game.env.close()


ANYTHING = {"actions": list(range(256)), "allow_all_yn_questions": True, "allow_all_modes": True}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_hero_is_a_bright_white_at_sign_where_the_status_line_says(play: Play, task: str) -> None:
    seen = play(task, ("chars", "colors", "specials", "blstats"), character="mon-hum-neu-mal").reset()
    x, y = seen["blstats"][:2]
    assert seen["chars"][y, x] == ord("@")
    assert seen["colors"][y, x] == 8 ^ 7


def test_wizard_mode_is_asked_for() -> None:
    assert "playmode:debug" in TaskOptions(wizard=True).nethack_options("NetHack-v0")
    assert "playmode:debug" not in TaskOptions().nethack_options("NetHack-v0")


def test_a_wizard_goes_to_the_level_that_he_names(play: Play) -> None:
    game = play("NetHack-v0", ("blstats",), wizard=True, **ANYTHING)
    game.reset((3, 3, None))
    game.press(nethack.WizardCommand.WIZLEVELPORT)
    for key in b"10\r":
        seen, _, _ = game.press(key)
    assert seen["blstats"][nethack.NLE_BL_DEPTH] == 10


def test_a_monk_begins_with_a_spellbook_apples_and_gloves(play: Play) -> None:
    seen = play("NetHackScore-v0", ("inv_strs", "inv_letters", "inv_oclasses")).reset()
    carried = [line.tobytes().decode() for line in seen["inv_strs"]]
    assert any("spellbook" in line for line in carried)
    assert any("apple" in line for line in carried)
    first = int(seen["inv_letters"][0] == ord("$"))
    assert seen["inv_letters"][first] == ord("a")
    assert seen["inv_oclasses"][first] == nethack.ARMOR_CLASS


@pytest.mark.parametrize("seeds", [(1234, 5678, 1), (99, 7, 1)])
def test_the_level_generators_seed_alone_decides_the_first_room(play: Play, seeds: tuple[int, int, int]) -> None:
    chars = play("NetHackScore-v0", ("chars",)).reset(seeds)["chars"]
    expected = {(3, 61): "-", (4, 51): ".", (5, 59): ".", (7, 65): "|", (7, 51): "@"}
    assert {place: chr(chars[place]) for place in expected} == expected


def test_a_kick_asks_for_its_direction_and_a_quit_brings_no_reward(play: Play) -> None:
    actions = [*range(128), nethack.M("q"), nethack.Command.KICK]
    game = play("NetHackScore-v0", ("message",), actions=actions, allow_all_yn_questions=True)
    game.reset()
    seen, _, _ = game.press(nethack.Command.KICK)
    assert b"In what direction? " in bytes(seen["message"])
    game.press(27)
    game.press(nethack.M("q"))
    _, reward, terminated = game.press(ord("y"))
    assert (reward, terminated) == (0.0, True)


def test_squares_are_described_as_they_look(play: Play) -> None:
    game = play("NetHackScore-v0", ("screen_descriptions", "glyphs", "chars", "blstats"))
    known = {2378: "floor of a room", 413: "tame kitten", 397: "tame little dog"}
    described = 0
    for seed in range(6):
        seen = game.reset((seed, seed, None))
        x, y = seen["blstats"][:2]
        for place in np.ndindex(seen["chars"].shape):
            text = seen["screen_descriptions"][place].tobytes().rstrip(b"\0").decode()
            glyph, letter = int(seen["glyphs"][place]), chr(seen["chars"][place])
            if letter == " ":
                assert text == ""
            elif place == (y, x):
                assert text.startswith("human monk called Agent")
            elif glyph in known and letter in ".fd":
                assert text == known[glyph]
                described += 1
    assert described > 100


@pytest.mark.parametrize(
    ("keys", "states"),
    [
        ([nethack.M("p"), ord("n")], [[1, 0, 0], [0, 0, 0]]),
        ([nethack.M("n"), ord("a"), ord("G"), ord("\r")], [None, [0, 1, 0], [0, 1, 0], [0, 0, 0]]),
        ([ord("i"), ord(" ")], [[0, 0, 1], [0, 0, 0]]),
    ],
    ids=["a question", "a line of text", "a page"],
)
def test_misc_tells_what_kind_of_answer_is_waited_for(play: Play, keys: list[int], states: list[Any]) -> None:
    game = play("NetHack-v0", ("misc", "internal"), **ANYTHING)
    seen = game.reset((1, 1, None))
    assert not seen["misc"].any()
    assert seen["internal"][0] == 1  # the deepest level reached
    for key, state in zip(keys, states, strict=True):
        seen, _, _ = game.press(key)
        assert state is None or seen["misc"].tolist() == state
        np.testing.assert_array_equal(seen["misc"], seen["internal"][1:4])
