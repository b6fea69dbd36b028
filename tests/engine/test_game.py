"""One game: determinism, isolation from other games, ends, and fatal paths that must not end the process."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.envs.tasks import TaskOptions

MakeGame = Callable[..., _C.Game]


@pytest.fixture
def make_game(tmp_path: Path) -> MakeGame:
    package = check_nle()
    library = _C.LibraryFile(str(package.library))
    made = 0

    def make(**env: object) -> _C.Game:
        nonlocal made
        made += 1
        return _C.Game(library, game_settings(EnvConfig(**env), package), tmp_path / f"game-{made}")

    return make


def play(game: _C.Game, seed: int, steps: int) -> str:
    """Plays random actions over as many episodes as it takes; returns a hash of everything seen."""
    return "".join(digest for _, digest in _steps(game, seed, steps))[-64:]


def _steps(game: _C.Game, seed: int, steps: int):
    rng = np.random.default_rng(seed)
    seen = game.observation()
    digest = hashlib.sha256()
    episode = 0
    running = False
    for step in range(steps):
        if not running:
            game.reset(*_C.episode_seeds(seed, 0, episode))
            episode += 1
        reward, terminated, truncated = game.step(int(rng.integers(len(ACTIONS))))
        running = not (terminated or truncated)
        for array in seen.values():
            digest.update(array.tobytes())
        digest.update(np.float64(reward).tobytes())
        yield step, digest.hexdigest()


def test_interleaved_games_equal_the_same_games_alone(make_game: MakeGame) -> None:
    seeds, steps = range(4), 600
    alone = [play(make_game(max_episode_steps=200), seed, steps) for seed in seeds]
    together = [_steps(make_game(max_episode_steps=200), seed, steps) for seed in seeds]
    for _ in range(steps):
        last = [next(game)[1] for game in together]
    assert last == alone
    assert len(set(alone)) == len(alone)


def test_a_game_is_a_function_of_seeds_clock_and_actions(make_game: MakeGame) -> None:
    """The same in another process, in another time zone: only the pinned clock is seen."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import tempfile, pathlib, test_game as t\n"
        "package = t.check_nle()\n"
        "with tempfile.TemporaryDirectory() as d:\n"
        "    library = t._C.LibraryFile(str(package.library))\n"
        "    print(t.play(t._C.Game(library, t.game_settings(t.EnvConfig(), package), pathlib.Path(d) / 'g'), 7, 800))"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        env={**os.environ, "TZ": "Pacific/Kiritimati"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout.strip() == play(make_game(), 7, 800)


def test_the_turn_counter_advances(make_game: MakeGame) -> None:
    game = make_game()
    game.reset(1, 2)
    before = int(game.observation()["blstats"][20])
    for _ in range(50):
        game.step(ACTIONS.index(ord("s")))
    assert int(game.observation()["blstats"][20]) >= before + 30


def test_a_step_limit_truncates_and_keeps_the_last_observation(make_game: MakeGame) -> None:
    game = make_game(max_episode_steps=10)
    game.reset(1, 2)
    ends = [game.step(ACTIONS.index(ord("s")))[1:] for _ in range(10)]
    assert ends == [(False, False)] * 9 + [(False, True)]
    assert not game.running
    assert game.observation()["blstats"][11] > 0  # hit points: the hero still stands
    episode = game.episode()
    assert episode["length"] == 10
    assert episode["how_done"] == -1
    with pytest.raises(RuntimeError, match="call reset first"):
        game.step(0)


def test_a_death_terminates_and_remembers_the_last_score_while_alive(make_game: MakeGame) -> None:
    game = make_game(max_episode_steps=100_000, character="tou-hum-neu-mal")
    rng = np.random.default_rng(0)
    seen = game.observation()
    for seed in range(8):
        game.reset(seed, seed)
        alive = 0
        while game.running:
            score = int(seen["blstats"][9])
            alive = score if seen["blstats"][11] > 0 else alive
            _, terminated, truncated = game.step(int(rng.integers(len(ACTIONS))))
        assert (terminated, truncated) == (True, False)
        assert game.episode()["score"] >= alive
        assert game.episode()["score_after_end"] in (0, game.episode()["score"])
        assert game.episode()["how_done"] >= 0


def test_a_cause_of_death_is_the_one_in_nethacks_own_record(make_game: MakeGame, tmp_path: Path) -> None:
    game = make_game(max_episode_steps=5000, character="tou-hum-neu-mal")
    rng = np.random.default_rng(0)
    causes = []
    for seed in range(4):
        game.reset(seed, seed)
        assert game.episode()["death"] == ""
        while game.running:
            game.step(int(rng.integers(len(ACTIONS))))
        causes.append(game.episode()["death"])
    recorded = re.findall(r"\tdeath=([^\t]*)\t", (tmp_path / "game-1" / "xlogfile").read_text())
    assert causes == recorded
    assert "killed by a goblin" in causes


def test_a_game_at_its_step_limit_has_no_cause_of_death(make_game: MakeGame) -> None:
    game = make_game(max_episode_steps=3)
    game.reset(1, 1)
    while game.running:
        game.step(0)
    assert game.episode()["death"] == ""


def test_gold_and_depth_are_parts_of_the_score(make_game: MakeGame) -> None:
    """What is left of a score without them is NetHack's score experience, which only grows (botl_score in botl.c)."""
    game = make_game(max_episode_steps=2000, character="tou-hum-neu-mal")
    rng = np.random.default_rng(5)
    gained = 0
    for seed in range(6):
        game.reset(seed, seed)
        began = int(game.observation()["blstats"][13])
        assert began > 0  # a tourist is rich
        rest, ended = 0, False
        while not ended:
            _, terminated, truncated = game.step(int(rng.integers(len(ACTIONS))))
            ended = terminated or truncated
            episode = game.episode()
            left = episode["score"] - max(episode["gold"], 0) - 50 * (episode["depth"] - 1)
            assert left >= rest
            rest = left
        if truncated:
            assert episode["gold"] == game.observation()["blstats"][13] - began
        gained += episode["gold"] > 0
    assert gained


def test_unknown_actions_are_refused_and_the_game_goes_on(make_game: MakeGame) -> None:
    game = make_game()
    game.reset(1, 2)
    for action in (-1, len(ACTIONS), 2**32):
        with pytest.raises(IndexError, match=f"action {action} is not one of {len(ACTIONS)}"):
            game.step(action)
    game.step(0)


def test_what_nethack_would_exit_for_is_an_exception(tmp_path: Path) -> None:
    """Without its data file NetHack calls its fatal `error`; the process lives and other games can be played."""
    package = check_nle()
    library = _C.LibraryFile(str(package.library))
    settings = game_settings(EnvConfig(), package)
    broken = _C.Game(library, settings, tmp_path / "broken")
    (tmp_path / "broken" / "nhdat").unlink()
    with pytest.raises(_C.FatalGameError):
        broken.reset(1, 2)
    (tmp_path / "broken" / "nhdat").symlink_to(package.data / "nhdat")
    broken.reset(1, 2)
    assert broken.step(0)[1:] == (False, False)


def test_a_game_that_nethack_gives_up_ends_with_that_step(tmp_path: Path) -> None:
    """A wizard's #panic ends NetHack as a broken game of its own would."""
    package = check_nle()
    typed = [*map(ord, "#panic\ry"), ord("s")]
    options = TaskOptions(wizard=True, actions=typed, allow_all_yn_questions=True, allow_all_modes=True)
    settings = options.game_settings("NetHackScore-v0", 1_600_000_000, package)
    game = _C.Game(_C.LibraryFile(str(package.library)), settings, tmp_path / "game")
    game.reset(1, 2)
    for action in range(len(typed) - 2):
        game.step(action)
    with pytest.raises(_C.FatalGameError, match="NetHack"):
        game.step(len(typed) - 2)
    assert not game.running
    assert game.episode()["how_done"] == -2
    assert game.episode()["length"] == len(typed) - 1
    with pytest.raises(RuntimeError, match="call reset first"):
        game.step(0)
    game.reset(1, 2)
    assert game.step(len(typed) - 1)[1:] == (False, False)


def test_a_game_removes_its_files(make_game: MakeGame, tmp_path: Path) -> None:
    game = make_game()
    game.reset(1, 2)
    assert list(tmp_path.iterdir())
    del game
    assert not list(tmp_path.iterdir())


def test_the_library_calls_its_own_functions_directly(tmp_path: Path) -> None:
    """All but those that must stay replaceable, as found by the system's own tools; a stripped table is no harm."""
    path = check_nle().library
    listed = subprocess.run(["readelf", "-rW", path], capture_output=True, text=True, check=True).stdout
    slots = [line.split() for line in listed.splitlines() if "JUMP_SLO" in line]
    own = {words[4] for words in slots if int(words[3], 16) != 0}
    assert len(own) > 1500
    replaced = {"error", "tty_status_update", "tty_print_glyph", "nle_putchar", "nle_puts", "nle_xputs", "nle_fflush"}
    assert replaced < own
    directly = len(own - replaced)
    assert directly - 5 < _C.LibraryFile(str(path)).direct_calls <= directly
    without = bytearray(path.read_bytes())
    first_stub = re.search(rb"\xff\x25....\x68\0\0\0\0\xe9", without, re.DOTALL)
    assert first_stub is not None
    without[first_stub.start()] = 0x90
    (tmp_path / "library.so").write_bytes(without)
    assert _C.LibraryFile(str(tmp_path / "library.so")).direct_calls == 0


def test_a_library_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot read"):
        _C.LibraryFile(str(tmp_path / "absent.so"))
    (tmp_path / "text.so").write_text("not a library at all, only a few words of text that go on for a while")
    with pytest.raises(RuntimeError, match="not a 64-bit shared object"):
        _C.LibraryFile(str(tmp_path / "text.so"))
    header = bytearray(check_nle().library.read_bytes()[:64])
    header[32:40] = (2**64 - 56).to_bytes(8, "little")  # one program header, just before where addresses begin anew
    header[56:58] = (1).to_bytes(2, "little")
    (tmp_path / "header.so").write_bytes(header)
    with pytest.raises(RuntimeError, match="truncated"):
        _C.LibraryFile(str(tmp_path / "header.so"))


def test_what_the_system_refuses_is_an_os_error(tmp_path: Path) -> None:
    package = check_nle()
    (tmp_path / "game").mkdir()
    (tmp_path / "game" / "perm").mkdir()  # where a file must be
    with pytest.raises(IsADirectoryError, match="cannot create"):
        _C.Game(_C.LibraryFile(str(package.library)), game_settings(EnvConfig(), package), tmp_path / "game")
    assert not (tmp_path / "game").exists()
