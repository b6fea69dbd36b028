"""Starts a rank's actors and policy worker, watches them, and replaces whoever dies or hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.errors import RunFailed
from polybeast_moe.runtime.weights import SharedWeights

ACTOR_PROGRAM = Path(_C.__file__).parent / "pbm-actor"
EPISODES_OF_AN_INCARNATION = 1 << 24
"""An actor that replaces another numbers its episodes from here on, times how many came before: no seed comes twice."""

_GIVE_UP_AFTER = 8  # deaths of one process in a row
_SHORT_LIFE = 60.0  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0  # seconds before a replacement; doubles with each death in a row
_DOUBLINGS = 8  # of the pause, by the time that all short lives allowed are over
_LONGEST_LOOK = 1.0  # seconds of silence that one look can prove: this process too may have been stopped meanwhile


class ProcessesKeepDyingError(RunFailed):
    """A process died again and again; the message says which, how often and why."""


@dataclass
class _Child:
    """One process that should always be there."""

    name: str
    start: Callable[[int], subprocess.Popen[bytes]]
    heartbeat: Callable[[], int]
    has_work: Callable[[], bool]
    buried: Callable[[], int]
    """Called when it is dead for certain, before a new one starts; returns rollouts lost."""
    starts_slowly: bool = False
    """It imports and compiles for long before its first heartbeat, the longer the more the machine has to do."""
    process: subprocess.Popen[bytes] | None = None
    incarnation: int = 0
    deaths_in_a_row: int = 0
    short_lives: int = 0
    """In a row, whatever was done in them."""
    started_at: float = 0.0
    start_at: float = 0.0
    first_beat: int = 0
    last_beat: int = 0
    silent_for: float = 0.0
    log_offset: int = 0
    """Where the log ended when it started."""


@dataclass
class Supervisor:
    """Owns the child processes of one rank. `log` tells the user of every death.

    Stock NetHack crashes now and then, and a run goes on as long as it gets somewhere. It fails when one process dies
    eight times in a row without a rollout's worth of work in between (one that was waiting for others does not count),
    or `runtime.deaths_allowed` times in a row within a minute of its start, whatever it did in that minute. Pauses
    before a replacement grow towards both.

    Attributes:
        hung_after: seconds without a heartbeat, while there is work, after which a process counts as dead.
        starts_within: the same before the first heartbeat of a policy worker, which imports torch and compiles.
        restarts: processes replaced so far.
        lost_rollouts: half-filled rollouts dropped with their actors.
    """

    config: RunConfig
    region: _C.Region
    weights: SharedWeights
    directory: Path
    log_file: IO[bytes]
    log: Callable[[str], None]
    first_episode: int = 0
    rank: int = 0
    hung_after: float = 60.0
    starts_within: float = 600.0
    restarts: int = 0
    lost_rollouts: int = 0
    _children: list[_Child] = field(init=False)
    _looked_at: float = 0.0

    def __post_init__(self) -> None:
        self._children = [*map(self._actor, range(self.region.actors)), self._policy_worker()]

    def check(self) -> None:
        """Starts everybody at first, then replaces whoever has died or hung. Call it often: it is a few system calls.

        Raises ProcessesKeepDyingError when one dies again and again.
        """
        now = time.monotonic()
        passed, self._looked_at = min(_LONGEST_LOOK, now - self._looked_at), now
        for child in self._children:
            if child.process is None:
                if now >= child.start_at:
                    self._launch(child)
            elif (code := child.process.poll()) is not None:
                self._bury(child, _reason(code) + self._last_words(child))
            elif self._hangs(child, passed):
                child.process.kill()
                child.process.wait()
                self._bury(child, f"hung for {self._longest_silence(child):.0f} s and was killed")

    def pids(self) -> dict[str, int]:
        """Returns the living processes by name."""
        return {child.name: child.process.pid for child in self._children if child.process is not None}

    def stop(self, patience: float = 2.0) -> None:
        """Asks everybody to end, and ends who does not within `patience` seconds. Safe to call twice."""
        self.region.stop()
        deadline = time.monotonic() + patience
        for child in self._children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.process = None
        self._children.clear()

    def _launch(self, child: _Child) -> None:
        child.log_offset = os.fstat(self.log_file.fileno()).st_size
        child.process = child.start(child.incarnation)
        child.started_at = time.monotonic()
        child.incarnation += 1
        child.first_beat = child.last_beat = child.heartbeat()
        child.silent_for = 0.0

    def _bury(self, child: _Child, reason: str) -> None:
        child.process = None
        if child.heartbeat() - child.first_beat >= self.config.runtime.unroll:
            child.deaths_in_a_row = 0
        child.deaths_in_a_row += child.has_work()
        child.short_lives = child.short_lives + 1 if time.monotonic() - child.started_at < _SHORT_LIFE else 0
        self.lost_rollouts += child.buried()
        self.restarts += 1
        if child.deaths_in_a_row >= _GIVE_UP_AFTER:
            raise ProcessesKeepDyingError(f"{child.name} died {child.deaths_in_a_row} times in a row, last: {reason}")
        allowed = self.config.runtime.deaths_allowed
        if child.short_lives > allowed:
            raise ProcessesKeepDyingError(
                f"{child.name} died {child.short_lives} times in a row within {_SHORT_LIFE:.0f} s of its start, "
                f"last: {reason}"
            )
        doublings = max(0, child.deaths_in_a_row - 1, _DOUBLINGS * child.short_lives // (allowed + 1))
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**doublings)
        child.start_at = time.monotonic() + pause
        self.log(f"{child.name} {reason}; a new one starts in {pause:.1f} s")

    def _hangs(self, child: _Child, passed: float) -> bool:
        """Whether it has been silent for too long; `passed` seconds ago somebody looked.

        Time without work does not count, but proves nothing either: others may take every free slot before an actor
        that hangs is seen to leave it.
        """
        beat = child.heartbeat()
        if beat != child.last_beat or self.region.control["paused"]:
            child.last_beat, child.silent_for = beat, 0.0
        elif child.has_work():
            child.silent_for += passed
        return child.silent_for > self._longest_silence(child)

    def _longest_silence(self, child: _Child) -> float:
        starting = child.starts_slowly and child.last_beat == child.first_beat
        return self.starts_within if starting else self.hung_after

    def _last_words(self, child: _Child) -> str:
        """What it wrote to the log before it failed, if it said so under its name."""
        prefix = f"{child.name}: ".encode()
        with Path(self.log_file.name).open("rb") as log:
            log.seek(child.log_offset)
            lines = [line for line in log if line.startswith(prefix)]
        return f": {lines[-1].removeprefix(prefix).decode(errors='replace').strip()}" if lines else ""

    def _actor(self, index: int) -> _Child:
        def start(incarnation: int) -> subprocess.Popen[bytes]:
            first_episode = self.first_episode + incarnation * EPISODES_OF_AN_INCARNATION
            return self._spawn(
                [
                    str(ACTOR_PROGRAM),
                    str(self.region.fd),
                    str(self.rank),
                    str(index),
                    str(first_episode),
                    str(self.directory / f"actor-{index}"),
                    str(os.getpid()),
                ],
                [self.region.fd],
            )

        return _Child(
            name=f"pbm-actor-{self.rank}.{index}",
            start=start,
            heartbeat=lambda: self.region.heartbeat(index),
            has_work=lambda: self.region.actor_has_work(index),
            buried=lambda: self.region.take_back_actor(index),
        )

    def _policy_worker(self) -> _Child:
        def start(incarnation: int) -> subprocess.Popen[bytes]:
            fds = [self.region.fd, self.weights.fd]
            first_episode = self.first_episode + incarnation * EPISODES_OF_AN_INCARNATION
            arguments = [*map(str, fds), str(self.rank), str(first_episode), str(os.getpid())]
            process = self._spawn(
                [sys.executable, "-m", "polybeast_moe.runtime.policy_worker", *arguments], fds, stdin=subprocess.PIPE
            )
            assert process.stdin is not None
            try:
                with process.stdin as pipe:
                    pipe.write(json.dumps(self.config.to_plain()).encode())
            except BrokenPipeError:
                pass  # it died at once; check() finds it
            return process

        return _Child(
            name=f"pbm-policy-{self.rank}",
            start=start,
            heartbeat=lambda: self.region.answers,
            has_work=lambda: bool(self.region.requests(1)),
            buried=lambda: 0,  # requests stand until they are answered
            starts_slowly=True,
        )

    def _spawn(self, command: list[str], fds: list[int], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, pass_fds=fds, stdin=stdin, stdout=self.log_file, stderr=self.log_file)


def _reason(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
