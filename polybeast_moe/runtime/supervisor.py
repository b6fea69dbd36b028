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
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0  # seconds before a replacement; doubles with each death in a row
_HEALTHY_AFTER = 30.0  # seconds of life after which earlier deaths are forgotten
_HUNG_AFTER = 60.0  # seconds without a heartbeat while there is work


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
    process: subprocess.Popen[bytes] | None = None
    incarnation: int = 0
    deaths_in_a_row: int = 0
    started_at: float = 0.0
    start_at: float = 0.0
    last_beat: tuple[int, float] = (-1, 0.0)


@dataclass
class Supervisor:
    """Owns the child processes of one rank. `log` tells the user of every death.

    Attributes:
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
    restarts: int = 0
    lost_rollouts: int = 0
    _children: list[_Child] = field(default_factory=list)

    def start(self) -> None:
        """Starts everybody."""
        for index in range(self.region.actors):
            self._children.append(self._actor(index))
        self._children.append(self._policy_worker())
        for child in self._children:
            self._launch(child)

    def check(self) -> None:
        """Replaces whoever has died or hung. Call it often; it costs a few system calls.

        Raises ProcessesKeepDyingError when one dies again and again.
        """
        now = time.monotonic()
        for child in self._children:
            if child.process is None:
                if now >= child.start_at:
                    self._launch(child)
            elif (code := child.process.poll()) is not None:
                self._bury(child, _reason(code))
            elif self._hangs(child, now):
                child.process.kill()
                child.process.wait()
                self._bury(child, f"hung for {_HUNG_AFTER:.0f} s and was killed")
            elif child.deaths_in_a_row and now - child.started_at > _HEALTHY_AFTER:
                child.deaths_in_a_row = 0

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
        child.process = child.start(child.incarnation)
        child.incarnation += 1
        child.started_at = time.monotonic()
        child.last_beat = (-1, child.started_at)

    def _bury(self, child: _Child, reason: str) -> None:
        child.process = None
        self.lost_rollouts += child.buried()
        self.restarts += 1
        child.deaths_in_a_row += 1
        if child.deaths_in_a_row >= _GIVE_UP_AFTER:
            raise ProcessesKeepDyingError(f"{child.name} died {child.deaths_in_a_row} times in a row, last: {reason}")
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (child.deaths_in_a_row - 1))
        child.start_at = time.monotonic() + pause
        self.log(f"{child.name} {reason}; a new one starts in {pause:.1f} s")

    def _hangs(self, child: _Child, now: float) -> bool:
        beat = child.heartbeat()
        if beat != child.last_beat[0] or self.region.control["paused"] or not child.has_work():
            child.last_beat = (beat, now)
            return False
        return now - child.last_beat[1] > _HUNG_AFTER

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
            arguments = [*map(str, fds), str(self.rank), str(incarnation), str(os.getpid())]
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
