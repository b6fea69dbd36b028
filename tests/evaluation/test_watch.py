"""`watch` in a real terminal: what the screen shows is the game, and keys do what they say."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pexpect
import pyte
import pytest
from waiting import PATIENCE

from polybeast_moe import load_policy
from polybeast_moe.envs import NetHackVectorEnv, RecordReplays, Replay
from polybeast_moe.evaluation.draws import episode_seeds
from polybeast_moe.evaluation.evaluate import evaluate_policy
from polybeast_moe.evaluation.trained import load_trained
from polybeast_moe.evaluation.watch import Pace, best_replays
from polybeast_moe.evaluation.watch_frames import KEYS, played, replayed
from polybeast_moe.evaluation.watch_screen import style_of

SEED = 4
PYTE_COLOURS = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")


class Terminal:
    """A terminal of which one can read what it shows, and what it showed while nobody looked."""

    def __init__(self, *argv: object, rows: int = 30, columns: int = 124) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._child = pexpect.spawn(
            sys.executable,
            ["-m", "polybeast_moe", "watch", *map(str, argv)],
            dimensions=(rows, columns),
            env={"TERM": "xterm-256color", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
            timeout=PATIENCE,
        )
        self._shown: deque[str] = deque()  # frame by frame, the oldest that may still be asked for first

    def press(self, key: str) -> None:
        self._child.send(key)

    def until(self, pattern: str) -> str:
        """Waits for a frame that shows something, the last one asked for or a later one; gives its text."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            while self._shown:
                if re.search(pattern, self._shown[0]):
                    return self._shown[0]
                if len(self._shown) == 1:
                    break
                self._shown.popleft()
            self._take(0.2)
        raise AssertionError(f"no {pattern!r} on:\n{self._shown[-1] if self._shown else 'an empty screen'}")

    def now(self) -> str:
        """The text of the last frame that has come."""
        while self._take(0.2):
            pass
        return self._shown[-1]

    def end(self) -> int | None:
        self._child.expect(pexpect.EOF)
        self._child.close()
        return self._child.exitstatus

    def _take(self, seconds: float) -> bool:
        """Reads what comes within some time; a frame begins by bringing the cursor home."""
        try:
            come = self._child.read_nonblocking(1 << 16, timeout=seconds)
        except pexpect.TIMEOUT:
            return False
        except pexpect.EOF:
            raise AssertionError(f"it ended:\n{self._shown[-1] if self._shown else ''}") from None
        for part in re.split(rb"(?=\x1b\[H)", come):
            self._stream.feed(part)
            self._shown.append("\n".join(self.screen.display))
        return True


def step_of(text: str) -> int:
    return int(re.search(r"step (\d+)", text)[1])


def episode_of(text: str) -> int:
    return int(re.search(r"episode (\d+)", text)[1])


@pytest.fixture(scope="module")
def replays(tmp_path_factory) -> Path:
    """Two episodes of random play, as training stores them."""
    folder = tmp_path_factory.mktemp("replays")
    base = NetHackVectorEnv(
        "NetHackScore-v0", 3, observation_keys=("blstats",), clock=1_600_000_000, max_episode_steps=30
    )
    env = RecordReplays(base, folder, keep=2)
    env.reset(seed=2)
    generator = np.random.default_rng(0)
    for _ in range(70):
        env.step(generator.integers(23, size=3))
    env.close()
    return folder


def test_the_terminal_shows_the_game_in_nethacks_colours_and_what_the_policy_thinks(trained_run) -> None:
    terminal = Terminal(trained_run, "--seed", SEED, "--speed", "0.25")
    terminal.until("step 0")
    terminal.press(" ")
    shown = terminal.until("paused").splitlines()
    step = step_of("\n".join(shown))  # seldom another one than the first, on a busy machine
    frame = next(itertools.islice(played(load_policy(trained_run), SEED, 0), step, None))
    game = [bytes(row).decode("latin-1") for row in frame.chars]
    assert [line[:80].rstrip() for line in shown[:24]] == [line.rstrip() for line in game]
    coloured = 0
    for row in range(24):
        for column in range(80):
            colour = int(frame.colours[row, column])
            if game[row][column] != " " and colour not in (0, 8):
                cell = terminal.screen.buffer[row][column]
                assert cell.fg == ("bright" if colour > 7 else "") + PYTE_COLOURS[colour & 7]
                coloured += 1
    assert coloured > 50
    row, column = frame.cursor
    assert terminal.screen.buffer[row][column].reverse
    panel = "\n".join(line[80:] for line in shown)
    assert f"scene {frame.scene}" in panel
    assert f"seed {SEED}, episode 0" in panel
    for name, weight in frame.opinion.experts.items():
        assert re.search(rf"{name} +{weight:.2f}", panel)
    likeliest, probability = frame.opinion.actions[0]
    assert re.search(rf"{likeliest} +{probability:.2f}", panel)
    assert f"value {frame.opinion.value:.3f}" in panel
    assert frame.opinion.conditions[0] in panel
    assert f"takes {frame.action}" in panel
    terminal.press("q")
    assert terminal.end() == 0


def test_keys_pause_step_speed_up_and_quit(trained_run) -> None:
    terminal = Terminal(trained_run, "--seed", SEED, "--speed", "2")
    terminal.until(r"step [1-9]")
    terminal.press(" ")
    stands = step_of(terminal.until("paused"))
    time.sleep(1.2)
    assert step_of(terminal.now()) == stands
    terminal.press("\x1b[C")
    terminal.until(f"step {stands + 1} ")
    terminal.press("\x1b[C\x1b[C")
    assert "paused" in terminal.until(f"step {stands + 3} ")
    terminal.press("+")
    terminal.press("+")
    terminal.press("-")
    terminal.press(" ")
    terminal.until("4 steps/s")
    terminal.until(f"step {stands + 6} ")
    terminal.press(" ")
    ended = episode_of(terminal.until("paused"))
    terminal.press("n")  # nothing else would go on now
    terminal.until(f"episode {ended + 1}")
    terminal.press("q")
    assert terminal.end() == 0


def test_a_game_is_shown_to_its_end_and_the_next_begins(trained_run) -> None:
    terminal = Terminal(trained_run, "--seed", SEED, "--speed", "256")
    terminal.until("over: alive at the step limit")
    terminal.until("episode 1")
    terminal.press("q")
    assert terminal.end() == 0


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (26, 80), (44, 80)])
def test_smaller_terminals_show_the_game_and_what_has_room(trained_run, rows: int, columns: int) -> None:
    terminal = Terminal(trained_run, "--seed", SEED, "--speed", "0.25", rows=rows, columns=columns)
    text = terminal.until({24: "Dlvl:1", 26: r"surv \d", 44: r"survival +\d"}[rows])  # what is drawn last
    assert ("scene" in text) == (rows == 44)
    assert ("surv" in text) == (rows > 24)
    terminal.press("q")
    assert terminal.end() == 0


def test_a_stored_episode_plays_again_and_the_policy_comments(trained_run, replays) -> None:
    path = sorted(replays.iterdir())[-1]
    alone = Terminal("--replay", path, "--speed", "256")
    alone.until("over: ")
    alone.press("q")
    assert alone.end() == 0
    commented = Terminal(trained_run, "--replay", path, "--speed", "0.25")
    commented.until(r"survival +\d\.\d\d")
    commented.press("q")
    assert commented.end() == 0
    frames = list(replayed(Replay.load(path), "title", load_policy(trained_run)))
    record = Replay.load(path).record
    assert len(frames) == record["length"] + 1
    assert frames[-1].total == pytest.approx(record["return"])
    assert frames[-1].score == record["score"]
    assert all(frame.opinion is not None for frame in frames)


def test_the_best_episodes_of_a_run_come_in_their_order(trained_run, replays, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    own = best_replays(run)
    assert own  # training stores its own
    for path in replays.iterdir():
        (run / "replays" / path.name).write_bytes(path.read_bytes())
    scores = [replay.record["score"] for _, replay in best_replays(run)]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == len(own) + 2
    terminal = Terminal("--best", run, "--speed", "0.25")
    terminal.until(f"score-{int(scores[0]):07d}")
    terminal.press("q")
    assert terminal.end() == 0


def test_what_is_watched_is_what_evaluate_plays(trained_run) -> None:
    trained = load_trained(trained_run)
    _, evaluated = evaluate_policy(trained.policy, trained.config, trained.routing, trained.temperature, 3, SEED)
    *_, last = played(load_policy(trained_run), SEED, 2)
    assert (last.score, last.step) == (evaluated.records[2]["score"], evaluated.records[2]["length"])
    assert last.total == pytest.approx(evaluated.records[2]["return"])


def test_colours_are_nethacks() -> None:
    assert style_of(1).color.name == "red"
    assert style_of(11).color.name == "bright_yellow"
    assert style_of(8).color is None
    assert style_of(7, cursor=True).reverse


def test_speed_has_its_limits() -> None:
    pace = Pace(8)
    for _ in range(20):
        pace.press("+")
    assert pace.speed == 256
    for _ in range(20):
        pace.press("-")
    assert pace.speed == 0.25


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], "name a run directory or a snapshot"),
        (["RUN", "--replay", "a", "--best", "b"], "give --replay or --best, not both"),
        (["--replay", "nowhere.replay"], "nowhere.replay: No such file"),
        (["--best", "nowhere"], "run directory nowhere: does not exist"),
        (["nowhere"], "nowhere: neither a run directory nor a snapshot"),
        (["RUN", "--speed", "0"], "--speed must be above 0"),
        (["RUN"], "watch needs a terminal"),
    ],
)
def test_mistakes_are_told_in_one_line(trained_run, refused, argv, wanted) -> None:
    assert wanted in refused("watch", *(str(trained_run) if word == "RUN" else word for word in argv))


def test_seeds_of_what_is_watched_are_an_evaluations(trained_run) -> None:
    frame = next(played(load_policy(trained_run), SEED, 1))
    env = NetHackVectorEnv("NetHackScore-v0", 1, observation_keys=KEYS, clock=1_600_000_000, max_episode_steps=40)
    env.set_seeds([episode_seeds(SEED, 1)])
    raw, _ = env.reset()
    assert np.array_equal(frame.chars, raw["tty_chars"][0])
    env.close()
