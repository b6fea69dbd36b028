"""The command `watch`: a game in the terminal, and the keys that steer it."""

from __future__ import annotations

import os
import re
import secrets
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from rich.console import Console
from rich.live import Live

from polybeast_moe.envs import Replay
from polybeast_moe.envs.replay import SUFFIX
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.agent import Agent, load_policy
from polybeast_moe.evaluation.watch_frames import Frame, played, replayed
from polybeast_moe.evaluation.watch_screen import screen
from polybeast_moe.run_directory import RunDirectory
from polybeast_moe.snapshots import SnapshotError, find_snapshot

SLOWEST, FASTEST = 0.25, 256.0  # steps a second
_RIGHT = ("\x1b[C", "\x1bOC")
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)  # an escape sequence, or one character
LOOK_SECONDS = 3.0  # at the end of a game, before the next


@dataclass(frozen=True)
class WatchRequest:
    """What the command line asks for."""

    snapshot: str | None = None
    seed: int | None = None
    episode: int = 0
    replay: str | None = None
    best: str | None = None
    speed: float = 8.0
    greedy: bool = False


def run_watch(request: WatchRequest) -> int:
    """Shows games until the user quits or there are no more; returns the exit code.

    Raises:
        UserError: there is nothing to watch, or no terminal to watch it in.
    """
    if sum(given is not None for given in (request.replay, request.best)) > 1:
        raise UserError("watch: give --replay or --best, not both")
    if request.snapshot is None and request.replay is None and request.best is None:
        raise UserError("watch: name a run directory or a snapshot, or give --replay FILE or --best RUN_DIR")
    if not request.speed > 0:
        raise UserError(f"--speed must be above 0, not {request.speed:g}")
    if request.episode < 0 or (request.seed is not None and not 0 <= request.seed < 2**63):
        raise UserError("--seed and --episode must be whole numbers from 0 on")
    torch.set_num_threads(1)  # one row at a time
    games = _games(request)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("watch needs a terminal; evaluate plays without one")
    with Keyboard() as keyboard, Live(console=Console(), screen=True, auto_refresh=False) as live:
        viewer = Viewer(live, keyboard, Pace(min(max(request.speed, SLOWEST), FASTEST)))
        for game in games:
            if not viewer.show(game):
                break
    return 0


def _games(request: WatchRequest) -> Iterator[Iterator[Frame]]:
    """The games, one after the other; what cannot be is refused at once."""
    agent = load_policy(request.snapshot, greedy=request.greedy) if request.snapshot is not None else None
    if request.replay is not None:
        stored = [(Path(request.replay), Replay.load(request.replay))]
    elif request.best is not None:
        stored = best_replays(Path(request.best))
        agent = agent or _agent_of_run(Path(request.best))
    elif agent is not None:
        seed = secrets.randbits(31) if request.seed is None else request.seed
        return (played(agent, seed, episode) for episode in range(request.episode, 2**31))
    return (replayed(replay, path.name.removesuffix(SUFFIX), agent) for path, replay in stored)


def best_replays(run_dir: Path) -> list[tuple[Path, Replay]]:
    """Returns the stored episodes of a run, those of the highest scores first.

    Raises:
        UserError: there is no such run, or none is stored.
    """
    RunDirectory.open(run_dir, lock=False)
    found = [(path, Replay.load(path)) for path in sorted((run_dir / "replays").glob(f"*{SUFFIX}"))]
    if not found:
        raise UserError(f"run directory {run_dir}: no episode is stored in replays/")
    return sorted(found, key=lambda entry: entry[1].record.get("score", 0.0), reverse=True)


def _agent_of_run(run_dir: Path) -> Agent | None:
    """The run's newest policy, to say what it makes of episodes that earlier ones played; None without a snapshot."""
    try:
        found = find_snapshot(run_dir)
    except SnapshotError:
        return None
    return load_policy(found)


@dataclass
class Pace:
    """How fast frames follow each other."""

    speed: float
    paused: bool = False
    keys: str = field(default="space pauses, → steps, +/- speed, n next game, q quits", repr=False)

    def press(self, key: str) -> bool:
        """Takes a key; returns whether it asks for the next frame at once."""
        if key == " ":
            self.paused = not self.paused
        elif key in "+=":
            self.speed = min(self.speed * 2, FASTEST)
        elif key in "-_":
            self.speed = max(self.speed / 2, SLOWEST)
        elif key == "right":
            self.paused = True
            return True
        return False

    def __str__(self) -> str:
        state = "paused" if self.paused else f"{self.speed:g} steps/s"
        return f"{state} | {self.keys}"


class Viewer:
    """Shows frames at a pace that keys change."""

    def __init__(self, live: Live, keyboard: Keyboard, pace: Pace) -> None:
        self._live, self._keyboard, self._pace = live, keyboard, pace

    def show(self, game: Iterator[Frame]) -> bool:
        """Shows a game to its end; returns False when the user quits."""
        for frame in game:
            self._draw(frame)
            wait = max(LOOK_SECONDS, 1 / self._pace.speed) if frame.ended else 1 / self._pace.speed
            key = self._until(frame, time.monotonic(), wait)
            if key == "q":
                return False
            if key == "n":
                break
        return True

    def _until(self, frame: Frame, since: float, wait: float) -> str | None:
        """Waits for the next frame's time, as keys have it; returns "q" or "n" when that was pressed."""
        while self._pace.paused or time.monotonic() < since + wait:
            key = self._keyboard.read(None if self._pace.paused else since + wait - time.monotonic())
            if key in ("q", "n"):
                return key
            if key is None:
                continue
            if self._pace.press(key):
                return None
            wait = max(wait if frame.ended else 0.0, 1 / self._pace.speed)
            self._draw(frame)
        return None

    def _draw(self, frame: Frame) -> None:
        size = self._live.console.size
        self._live.update(screen(frame, str(self._pace), size.width, size.height), refresh=True)


class Keyboard:
    """Single keys from a terminal, unechoed; the terminal is as before on leaving."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._typed = ""  # read and not yet returned

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def read(self, seconds: float | None) -> str | None:
        """Returns the next key, `right` for the arrow; None when none came in time. A closed terminal is a `q`."""
        if not self._typed:
            ready, _, _ = select.select([self._descriptor], [], [], None if seconds is None else max(0.0, seconds))
            if not ready:
                return None
            self._typed = os.read(self._descriptor, 64).decode(errors="replace") or "q"
        key = re.match(_KEY, self._typed)
        assert key is not None
        self._typed = self._typed[key.end() :]
        return "right" if key[0] in _RIGHT else key[0].lower()
