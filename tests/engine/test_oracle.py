"""The engine against NLE's own classes: same seeds, actions and clock, same everything, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from polybeast_moe import _C
from polybeast_moe.envs import TASKS

HERE = Path(__file__).parent

MONK, VALKYRIE, ANYBODY = "mon-hum-neu-mal", "val-hum-neu-fem", "@"
WITHOUT_TERMINAL = [key for key in _C.OBSERVATION_KEYS if not key.startswith("tty_")]


def keys(*texts: str) -> list[int]:
    """The keys of some texts, each one once: the actions of a game in which these texts can be typed."""
    return sorted({ord(letter) for text in texts for letter in text})


def typed(text: str, actions: list[int]) -> list[int]:
    return [actions.index(ord(letter)) for letter in text]


def duel(pinned_clock: Path, task: str, games: int, steps: int, **spec: Any) -> dict[str, float]:
    """Plays both; returns what was seen: steps, episodes, sum of |reward|, and how often each status came."""
    options = spec.pop("options", {})
    done = subprocess.run(
        [
            sys.executable,
            HERE / "oracle.py",
            json.dumps({"task": task, "games": games, "steps": steps, "seed": 11, "options": options, **spec}),
        ],
        env={**os.environ, "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {pinned_clock}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("task", TASKS)
def test_one_game_of_every_task_equals_nle(pinned_clock: Path, task: str) -> None:
    """All seventeen observation keys, NLE's own defaults but for shorter episodes."""
    seen = duel(pinned_clock, task, 1, 1500, options={"max_episode_steps": 400})
    assert seen["steps"] >= 1450
    assert seen["episodes"] >= 4


@pytest.mark.parametrize(
    ("task", "autoreset", "options"),
    [
        ("NetHackScore-v0", "SameStep", {"character": MONK, "max_episode_steps": 250}),
        ("NetHackScore-v0", "NextStep", {"character": VALKYRIE, "max_episode_steps": 450}),
        ("NetHackScout-v0", "Disabled", {"character": ANYBODY, "max_episode_steps": 300}),
        ("NetHackChallenge-v0", "SameStep", {"max_episode_steps": 300}),
        ("NetHackStaircase-v0", "NextStep", {"character": ANYBODY, "max_episode_steps": 300}),
    ],
)
def test_interleaved_games_equal_nle_alone(pinned_clock: Path, task: str, autoreset: str, options: Any) -> None:
    """Every way to begin the next episode, over seeds and characters; NLE's environments know nothing of each other."""
    seen = duel(pinned_clock, task, 6, 480, autoreset=autoreset, options=options, seed=5)
    assert seen["steps"] >= 2700
    assert seen["episodes"] >= 7


@pytest.mark.parametrize(
    ("task", "options"),
    [
        *(
            ("NetHackScore-v0", {"penalty_mode": mode, "penalty_step": -0.03, "penalty_time": 0.007})
            for mode in ("constant", "square", "linear", "always")
        ),
        ("NetHackScout-v0", {"penalty_mode": "exp", "penalty_step": -1e-30}),
        ("NetHackScore-v0", {"spawn_monsters": False, "fix_moon_phase": True}),
        ("NetHackScore-v0", {"allow_all_yn_questions": True}),
        ("NetHackScore-v0", {"allow_all_modes": True}),
        ("NetHackGold-v0", {"actions": [104, 106, 107, 108, 115, 44], "options": ["color", "showexp", "time"]}),
        ("NetHackChallenge-v0", {"no_progress_timeout": 15}),
        ("NetHackChallenge-v0", {"no_progress_timeout": 8, "allow_all_modes": False}),
    ],
)
def test_every_option_that_changes_the_game_equals_nle(pinned_clock: Path, task: str, options: Any) -> None:
    """Several episodes each: NLE carries its count of frozen steps from one to the next."""
    seen = duel(pinned_clock, task, 2, 300, options={"max_episode_steps": 120, **options}, lgen=True)
    assert seen["ABORTED"] >= 4


GENESIS = "\a"  # ^G of wizard mode creates a monster, ^F maps the level
TO_THE_STAIRS = "\x06_>."


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("NetHackOracle-v0", GENESIS + "Oracle\ry"),
        ("NetHackStaircase-v0", TO_THE_STAIRS),
        ("NetHackStaircasePet-v0", TO_THE_STAIRS + GENESIS + "tame kitten\r"),
    ],
)
def test_a_task_that_is_done_equals_nle(pinned_clock: Path, task: str, text: str) -> None:
    """NLE quits a game whose task is done, and shows the quit: so does the engine."""
    actions = keys(text, "hjkl\x1b")
    options = {"wizard": True, "allow_all_modes": True, "allow_all_yn_questions": True, "actions": actions}
    seen = duel(pinned_clock, task, 2, 150, options=options, prefix=typed(text, actions))
    assert seen["TASK_SUCCESSFUL"] >= 2


def test_what_a_hallucinating_hero_sees_equals_nle(pinned_clock: Path) -> None:
    """Drawn with the second seed, of which a sane hero sees next to nothing. The potion is wished for, and drunk."""
    text = "\x17potion of hallucination\r" + "".join(f"q{letter}\x1b" for letter in "efghijklm")
    actions = keys(text, "hjklyubns")
    options = {"wizard": True, "allow_all_modes": True, "allow_all_yn_questions": True, "actions": actions}
    seen = duel(pinned_clock, "NetHackScore-v0", 3, 150, options=options, prefix=typed(text, actions))
    assert seen["hallucinating"] >= 150


def test_games_in_processes_of_their_own_equal_nle(pinned_clock: Path) -> None:
    seen = duel(pinned_clock, "NetHackScore-v0", 5, 250, processes=2, options={"max_episode_steps": 100})
    assert seen["episodes"] >= 10


@pytest.mark.parametrize("task", TASKS)
def test_games_that_draw_no_terminal_equal_nle(pinned_clock: Path, task: str) -> None:
    """NLE draws one whoever looks. Anybody plays, with all modes and questions open: menus, texts and --More--."""
    options = {"character": ANYBODY, "max_episode_steps": 600, "allow_all_modes": True, "allow_all_yn_questions": True}
    seen = duel(pinned_clock, task, 3, 700, keys=WITHOUT_TERMINAL, options=options, seed=23)
    assert seen["steps"] >= 2000
    assert seen["episodes"] >= 3


def test_some_keys_are_observed_alone(pinned_clock: Path) -> None:
    for chosen in (["tty_cursor"], ["inv_strs", "misc"], ["chars", "colors", "specials"]):
        duel(pinned_clock, "NetHackScout-v0", 1, 200, keys=chosen, options={"max_episode_steps": 100})
