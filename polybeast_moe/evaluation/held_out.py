"""Held-out evaluation beside training: in a process of its own, at a cadence, with a share of the machine.

The process is ``python -m polybeast_moe.evaluation.held_out SNAPSHOT EPISODES SEED THREADS PARENT_PID``, which prints
the figures of `evaluate_policy` as JSON. It gives way to training (nice 19) and ends with its trainer.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polybeast_moe.config import EvaluationConfig
from polybeast_moe.errors import UserError
from polybeast_moe.runtime.process import die_with, name_process

NICE = 19


@dataclass(frozen=True)
class _Underway:
    process: subprocess.Popen[bytes]
    snapshot: Path
    began: float


class HeldOutEvaluation:
    """Evaluates a run's newest snapshot now and then, and knows which was the best. Off without a cadence."""

    def __init__(self, config: EvaluationConfig, cores: int, log_path: Path, log: Callable[[str], None]) -> None:
        """What a process writes about a failure goes to `log_path`; `log` tells the user."""
        self._config = config
        self._cores = cores
        self._log_path = log_path
        self._log = log
        self._underway: _Underway | None = None
        self._every = config.every_seconds or math.inf
        self._due_at = time.monotonic() + self._every
        self._last: str | None = None
        self._best: str | None = None
        self._best_score = -math.inf

    @property
    def kept(self) -> frozenset[str]:
        """The names of snapshots that must not go: the best one, and the one that is being evaluated."""
        underway = self._underway.snapshot.name if self._underway is not None else None
        return frozenset(name for name in (self._best, underway) if name is not None)

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run must know, as JSON holds it."""
        return {"best": self._best, "score": self._best_score if self._best is not None else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self._best = state["best"]
        self._best_score = -math.inf if state["score"] is None else float(state["score"])

    def look(self, newest: Path | None) -> dict[str, float]:
        """Starts an evaluation of the snapshot `newest` when one is due; never waits.

        Returns:
            The columns of `metrics.csv` that an evaluation gave which has ended since the last look.
        """
        found: dict[str, float] = {}
        if self._underway is not None and self._underway.process.poll() is not None:
            found = self._ended(self._underway)
        due = self._underway is None and time.monotonic() >= self._due_at
        if due and newest is not None and newest.name != self._last:
            self._start(newest)
        return found

    def close(self) -> None:
        """Ends an evaluation that is going on."""
        if self._underway is not None:
            self._underway.process.kill()
            self._underway.process.communicate()
            self._underway = None

    def _start(self, snapshot: Path) -> None:
        config = self._config
        arguments = [str(snapshot), str(config.episodes), str(config.seed), str(config.threads), str(os.getpid())]
        command = [sys.executable, "-m", "polybeast_moe.evaluation.held_out", *arguments]
        with self._log_path.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        self._underway = _Underway(process, snapshot, time.monotonic())
        self._last = snapshot.name

    def _ended(self, underway: _Underway) -> dict[str, float]:
        self._underway = None
        out, _ = underway.process.communicate()
        try:
            figures = json.loads(out)
            score, error = float(figures["mean_score"]), figures["standard_error"]
            frames, processor_seconds = float(figures["trained_frames"]), float(figures["processor_seconds"])
        except (ValueError, KeyError, TypeError):
            self._log(
                f"the evaluation of {underway.snapshot.name} failed (see {self._log_path.name}); training goes on"
            )
            self._due_at = time.monotonic() + self._every
            return {}
        if score > self._best_score:
            self._best, self._best_score = underway.snapshot.name, score
        # The next begins when this one's work, spread over the time until then, is no more than the share allows.
        pause = processor_seconds / (self._cores * self._config.share)
        self._due_at = underway.began + max(self._every, pause)
        shown = f"{score:.1f} ± {error:.1f}" if error is not None else f"{score:.1f}"
        self._log(f"held-out score {shown} at {int(frames):,} frames ({figures['episodes']} episodes)")
        return {"held_out_score": score, "held_out_frames": frames} | (
            {"held_out_standard_error": float(error)} if error is not None else {}
        )


def main(arguments: list[str]) -> int:
    """Evaluates one snapshot and prints its figures; returns the exit code."""
    path, (episodes, seed, threads, parent) = arguments[0], map(int, arguments[1:])
    die_with(parent)
    name_process("pbm-evaluate-0")
    for number in (signal.SIGINT, signal.SIGUSR1):  # to the whole group, but the trainer's
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    import torch

    torch.set_num_threads(threads)
    try:
        figures = _evaluate(path, episodes, seed)
    except UserError as error:
        print(f"pbm-evaluate-0: {error}", file=sys.stderr)
        return 2
    print(json.dumps(figures))
    return 0


def _evaluate(path: str, episodes: int, seed: int) -> dict[str, Any]:
    from polybeast_moe.evaluation.evaluate import evaluate_policy
    from polybeast_moe.evaluation.trained import load_trained

    trained = load_trained(path)
    evaluated = evaluate_policy(trained.policy, trained.config, trained.routing, trained.temperature, episodes, seed)
    assert evaluated is not None, "nobody interrupts it"
    used = resource.getrusage(resource.RUSAGE_SELF)
    own = {"trained_frames": trained.frames, "processor_seconds": used.ru_utime + used.ru_stime}
    return evaluated[0] | own


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
