"""Who plays the games of a vector environment: this process, or `pbm-games` processes over shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import weakref
from dataclasses import dataclass, field
from pathlib import Path

from polybeast_moe import _C
from polybeast_moe.envs.games_folder import GamesFolder

PROGRAM = Path(_C.__file__).parent / "pbm-games"

_PREFIX = "pbm-games-"
_WAIT_MS = 100  # between looks at whether the processes are still there
_STARTS_WITHOUT_AN_ANSWER = 5  # of one process, before giving up on it


class WorkerError(RuntimeError):
    """A process that plays games cannot do so; the message says which and why."""


class Inline:
    """Plays the games of a block in this process."""

    def __init__(self, block: _C.GameBlock, games: int) -> None:
        self._folder = GamesFolder(_PREFIX)
        self._games: _C.Games | None = _C.Games(block, 0, games, self._folder.path)

    def run(self) -> None:
        """Carries out what the block's rows ask for."""
        assert self._games is not None
        self._games.run()

    def close(self) -> None:
        """Ends the games and removes their files."""
        self._games = None
        self._folder.remove()


@dataclass
class _Resources:
    """What must go when a `Processes` goes, in whatever way."""

    block: _C.GameBlock
    folder: GamesFolder
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def release(self) -> None:
        self.block.stop_workers()
        for process in self.processes:
            try:
                process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.folder.remove()


class Processes:
    """Plays the games of a block in `count` processes of their own; a process that dies is replaced.

    The games of a dead process end: their next step reports a termination with a reason.
    """

    def __init__(self, block: _C.GameBlock, count: int) -> None:
        self._block = block
        self._resources = _Resources(block, GamesFolder(_PREFIX))
        self._release = weakref.finalize(self, self._resources.release)
        self._incarnation = 0
        for worker in range(count):
            self._resources.processes.append(self._start(worker))

    def _start(self, worker: int) -> subprocess.Popen[bytes]:
        self._incarnation += 1
        directory = self._resources.folder.path / f"worker-{worker}-{self._incarnation}"
        return subprocess.Popen(
            [PROGRAM, str(self._block.fd), str(worker), directory, str(os.getpid())],
            pass_fds=(self._block.fd,),
            stdin=subprocess.DEVNULL,
        )

    def run(self) -> None:
        """Has the processes carry out what the block's rows ask for.

        Raises:
            WorkerError: a process dies whenever it is started, or could not play a game.
        """
        deaths: dict[int, int] = {}
        self._block.give_order()
        while not self._block.wait_for_workers(_WAIT_MS):
            for worker, process in enumerate(self._resources.processes):
                status = process.poll()
                if status is None:
                    continue
                deaths[worker] = deaths.get(worker, 0) + 1
                if deaths[worker] == _STARTS_WITHOUT_AN_ANSWER:
                    raise WorkerError(f"pbm-games {worker} died {deaths[worker]} times in one step: {_cause(status)}")
                self._resources.processes[worker] = self._start(worker)
        errors = [text for text in self._block.take_errors() if text]
        if errors:
            raise WorkerError("; ".join(errors))

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [process.pid for process in self._resources.processes]

    def close(self) -> None:
        """Ends the processes and removes the games' files."""
        self._release()


def _cause(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
