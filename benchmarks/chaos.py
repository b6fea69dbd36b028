"""Kills actors and policy worker at random moments while a real run trains, and checks all that reaches the learner.

    python benchmarks/chaos.py                      # 200 kills, then how fast the run recovers from single ones
    python benchmarks/chaos.py --kills 20 --recoveries 0 --json chaos.json

The run is `train` on real NetHack with a small recurrent policy, in the asynchronous mode. Most kills are SIGKILL, some
SIGSEGV (as if NetHack had crashed), some SIGSTOP (the process hangs and must be noticed). A slot that is given back is
overwritten with values that no rollout may hold. Of every rollout it is checked that

* it is whole: no such value, alpha on the simplex, as many episode records as ends, versions that do not go back;
* it is continuous: the steps of each episode count up by one, the previous action is the one of the row before, and the
  recurrent policy's state begins at zero with the episode;
* it goes on where an earlier rollout stopped, game by game, or all its games are new;
* it comes once: the slots' sequence numbers add up to the rollouts consumed.

In the end frames and episodes are those of the run's own files, every slot is free or delivered, and neither a process
nor a folder is left. Any violation ends it with exit code 1. Recovery (frames/s of one second after a single kill
against the median before) is reported here and judged by pipeline_results.py: it says nothing on a busy machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from polybeast_moe import _C, trainer
from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import load_config
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.run_directory import RunDirectory
from polybeast_moe.runtime.asynchronous import AsynchronousRuntime
from polybeast_moe.runtime.rollouts import Rollout
from polybeast_moe.runtime.supervisor import Supervisor

SETTINGS = """
env: {max_episode_steps: 200}
runtime: {actors: 2, groups: 2, games_per_group: 8, unroll: 16, threads: 1, policy_threads: 1, deaths_allowed: 1000}
graph: {enabled: false}
policy: {glyph_embedding: 4, conv_channels: 8, hidden: 32, expert_hidden: 16, lstm: 8, router: {hidden: 16}}
learner: {slots_per_batch: 2}
phases: [{name: warmup, until: {frames: 1_000_000_000}, routing: sparsemax, temperature: 1.0}]
snapshots: {every_seconds: 5}
monitoring: {every_seconds: 1, tensorboard: false}
"""
POLICY_SHARE = 0.1  # of the kills
BLIND_SHARE = 0.25  # of the kills come whatever the last one did
SIGNALS = {signal.SIGKILL: 0.8, signal.SIGSEGV: 0.17, signal.SIGSTOP: 0.03}
LONGEST_WAIT = 120.0  # seconds without progress that end the test
SENTINELS = {"action": -7, "alpha": float("nan"), "reward": float("nan"), "episode_step": -7, "policy_version": -7}
JOINED = ("blstats", "glyph_crop", "message", "conditions", "first", "previous_action", "episode_step")


class Violation(Exception):
    """A rollout, the end, or what is on the disk is not as it must be."""


def require(holds: object, what: str) -> None:
    """Raises Violation, of what should hold, where it does not."""
    if not holds:
        raise Violation(what)


class Witness:
    """Looks at every rollout that the learner takes."""

    def __init__(self) -> None:
        self.rollouts = self.frames = self.episodes = self.begun = self.largest_lag = 0
        self.times: list[tuple[float, int]] = []  # when how many frames had come
        self._open_ends: Counter[bytes] = Counter()

    def look(self, rollouts: list[Rollout], newest_version: int) -> None:
        """Raises Violation when one is not as it must be."""
        for rollout in rollouts:
            self._whole(rollout, newest_version)
            self._continuous(rollout)
            self._joined(rollout)
            self.rollouts += 1
            self.frames += rollout["action"].numel()
            self.episodes += int(rollout["record_count"])
        self.times.append((time.monotonic(), self.frames))

    def forget(self, rollouts: list[Rollout]) -> None:
        """Nothing of a rollout that was consumed may be taken for the next one's."""
        for rollout in rollouts:
            for name, sentinel in SENTINELS.items():
                rollout[name].fill_(sentinel)

    def rate(self, begin: float, end: float) -> float:
        """Frames a second between two moments."""
        inside = [(when, frames) for when, frames in self.times if begin <= when <= end]
        return (inside[-1][1] - inside[0][1]) / (end - begin) if len(inside) > 1 else 0.0

    def _whole(self, rollout: Rollout, newest_version: int) -> None:
        alpha, version = rollout["alpha"], rollout["policy_version"]
        require((alpha >= 0).all() and ((alpha.sum(-1) - 1).abs() < 1e-4).all(), "alpha is on the simplex")
        require(((rollout["action"] >= 0) & (rollout["action"] < len(ACTIONS))).all(), "actions exist")
        require(rollout["reward"].isfinite().all(), "every step has its reward")
        require((version[0] >= 0) & (version.diff() >= 0).all(), "policy versions do not go back")
        require(version[-1] <= newest_version, "no policy version comes from the future")
        self.largest_lag = max(self.largest_lag, newest_version - int(version[0]))
        ends = rollout["terminated"] | rollout["truncated"]
        require(int(rollout["record_count"]) == int(ends.sum()), "every end has its record")
        require(int(rollout["final_count"]) == int(rollout["truncated"].sum()), "every truncation its observation")

    def _continuous(self, rollout: Rollout) -> None:
        first, step = rollout["first"].bool(), rollout["episode_step"]
        ends = (rollout["terminated"] | rollout["truncated"]).bool()
        require(torch.equal(first[1:], ends), "an episode begins where one has ended")
        require(torch.equal(step[1:], torch.where(ends, 0, step[:-1] + 1)), "steps count up by one")
        none = torch.full_like(rollout["action"], len(ACTIONS))
        expected = torch.where(ends, none, rollout["action"])
        require(torch.equal(rollout["previous_action"][1:], expected), "the previous action is the one before")
        require((step[0][first[0]] == 0).all(), "an episode's first step is number 0")

    def _joined(self, rollout: Rollout) -> None:
        def row(t: int) -> bytes:
            return b"".join(rollout[name][t].numpy().tobytes() for name in JOINED)

        begin = row(0)
        if self._open_ends[begin]:
            self._open_ends[begin] -= 1
        else:
            require(rollout["first"][0].all(), "a rollout goes on where one stopped, or its games are new")
            self.begun += 1
        self._open_ends[row(-1)] += 1


class Killer(threading.Thread):
    """Ends processes of a supervisor at random moments."""

    def __init__(
        self, supervisor: Supervisor, witness: Witness, kills: int, interval: float, recoveries: int, seed: int
    ) -> None:
        super().__init__(daemon=True)
        self.kills: Counter[str] = Counter()
        self.recoveries: list[dict[str, Any]] = []
        self._supervisor = supervisor
        self._witness = witness
        self._wanted = kills
        self._interval = interval
        self._wanted_recoveries = recoveries
        self._dice = random.Random(seed)
        self.error: BaseException | None = None
        self.run_has_ended = threading.Event()

    def run(self) -> None:
        """Kills, measures, and in any case asks the run to stop."""
        try:
            self._wait(lambda: self._witness.rollouts > 10, "the run begins")
            while sum(self.kills.values()) < self._wanted:
                self._pass_some_time()
                self._kill(self._victim(), self._signal())
            seen = self._witness.rollouts
            self._wait(lambda: self._witness.rollouts > seen + 20, "the run goes on")
            self._wait(lambda: self._supervisor.restarts == self._wanted, "every death is noticed")
            for number in range(self._wanted_recoveries):
                self._measure("pbm-policy-0" if number % 3 == 2 else f"pbm-actor-0.{number % 3}")
        except BaseException as error:
            self.error = error
        finally:
            if not self.run_has_ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    def _pass_some_time(self) -> None:
        """Mostly until the run has moved on as well: killed faster than it can start, nothing would ever be at work."""
        if self._dice.random() > BLIND_SHARE:
            enough = self._witness.rollouts + self._dice.randint(1, 12)
            self._wait(lambda: self._witness.rollouts >= enough, "the run goes on")
        time.sleep(self._dice.expovariate(1 / self._interval))

    def _victim(self) -> str:
        """Somebody who lives: to wait for one that is starting and to kill it at once would not be by chance."""
        actors: list[str] = []
        while not actors:
            self._wait(lambda: bool(self._supervisor.pids()), "somebody lives")
            actors = [name for name in self._supervisor.pids() if name.startswith("pbm-actor")]
            time.sleep(0.005)
        return "pbm-policy-0" if self._dice.random() < POLICY_SHARE else self._dice.choice(actors)

    def _signal(self) -> signal.Signals:
        return self._dice.choices(list(SIGNALS), list(SIGNALS.values()))[0]

    def _kill(self, name: str, number: signal.Signals) -> None:
        """Waits until it lives (a policy worker: until it has answered), then ends it."""
        answers = self._supervisor.region.answers
        self._wait(lambda: name in self._supervisor.pids(), f"{name} comes back")
        if name.startswith("pbm-policy"):  # it takes seconds to start: dying before that is tried in the tests
            self._wait(lambda: self._supervisor.region.answers > answers, "the policy answers")
            time.sleep(self._dice.random() * 0.1)
        pid = self._supervisor.pids().get(name)
        try:
            if pid is None or not _runs(pid):
                return
            os.kill(pid, number)
        except ProcessLookupError:
            return
        self.kills[f"{name.rsplit('-', 1)[0]} {number.name}"] += 1
        self._wait(lambda: not _runs(pid), f"{name} takes its signal")  # or the next one could meet it again

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LONGEST_WAIT
        while not done():
            require(not self.run_has_ended.is_set(), "nobody else ends the run")
            require(time.monotonic() < deadline, f"within {LONGEST_WAIT:.0f} s {what}")
            time.sleep(0.005)

    def _measure(self, name: str) -> None:
        """How long one kill is felt: until a second has 95 % of the median second before."""
        time.sleep(11.0)
        began = time.monotonic()
        usual = statistics.median(self._witness.rate(began - s - 1, began - s) for s in range(10))
        self._kill(name, signal.SIGKILL)
        seconds = None
        while seconds is None and time.monotonic() < began + 20:
            time.sleep(0.1)
            now = time.monotonic()
            if now - began >= 1.2 and self._witness.rate(now - 1, now) >= 0.95 * usual:
                seconds = now - began
        self.recoveries.append({"process": name, "frames_per_second_before": usual, "seconds": seconds})


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


class WatchedTrainer(trainer.Trainer):
    """A trainer whose rollouts a witness sees."""

    witness: Witness
    begin_kills: Callable[[Supervisor], None]
    runtime: AsynchronousRuntime

    def _make_runtime(self, *arguments: Any) -> Any:
        runtime = super()._make_runtime(*arguments)
        assert isinstance(runtime, AsynchronousRuntime)
        collect, give_back, witness = runtime.collect, runtime.give_back, type(self).witness

        def watched_collect(*arguments: Any) -> list[Rollout] | None:
            rollouts = collect(*arguments)
            if rollouts is not None:
                witness.look(rollouts, runtime.supervisor.weights.version)
            return rollouts

        def watched_give_back(rollouts: list[Rollout]) -> None:
            witness.forget(rollouts)
            give_back(rollouts)

        runtime.collect, runtime.give_back = watched_collect, watched_give_back  # type: ignore[method-assign]
        type(self).runtime = runtime
        type(self).begin_kills(runtime.supervisor)
        return runtime


def check_end(run_dir: Path, temporary: Path, witness: Witness, supervisor: Supervisor, killer: Killer) -> None:
    """What must hold when everything has ended."""
    region = supervisor.region
    for actor in range(region.actors):
        region.take_back_actor(actor)
    states = [region.state(slot) for slot in range(len(region))]
    waiting = [owner for owner, _, _ in states].count(_C.OWNER_DELIVERED)
    require({owner for owner, _, _ in states} <= {_C.OWNER_FREE, _C.OWNER_DELIVERED}, "no slot is lost")
    require(sum(sequence for *_, sequence in states) == witness.rollouts + waiting, "every rollout came once")
    with (run_dir / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    require(int(last["frames"]) == witness.frames, "frames add up")
    require(int(last["episodes"]) == witness.episodes, "episodes add up")
    with (run_dir / "episodes.csv").open() as file:
        require(sum(1 for _ in csv.DictReader(file)) == witness.episodes, "every episode is in episodes.csv")
    dead = {name: number for name, number in killer.kills.items() if "actor" in name}
    groups = region.groups // region.actors
    require(witness.begun <= region.groups + groups * sum(dead.values()), "games are new only after a death")
    require(supervisor.lost_rollouts <= groups * sum(dead.values()), "a death costs a rollout a group at most")
    require(supervisor.restarts == sum(killer.kills.values()), "every death was noticed, and nobody died by itself")
    require(not psutil.Process().children(recursive=True), "no process is left")
    require(not list(temporary.glob("polybeast-moe*")), "no folder is left")


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run under fire; returns its figures. Raises Violation."""
    temporary, run_dir = folder / "temporary", folder / "run"
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    settings = folder / "chaos.yaml"
    settings.write_text(SETTINGS)
    config: RunConfig = load_config(settings, [f"seed={arguments.seed}", *arguments.overrides])
    witness = Witness()
    killers: list[Killer] = []

    def begin_kills(supervisor: Supervisor) -> None:
        supervisor.hung_after = arguments.hung_after
        killers.append(
            Killer(supervisor, witness, arguments.kills, arguments.interval, arguments.recoveries, arguments.seed)
        )
        killers[0].start()

    WatchedTrainer.witness, WatchedTrainer.begin_kills = witness, staticmethod(begin_kills)
    trainer.Trainer = WatchedTrainer  # type: ignore[misc]
    began = time.monotonic()
    with RunDirectory.create(run_dir, config) as directory:
        code = trainer.train(config, directory)
    killers[0].run_has_ended.set()
    killers[0].join(LONGEST_WAIT)
    if killers[0].error is not None:
        raise killers[0].error
    require(code == 128 + signal.SIGTERM, f"the run ends as it was asked to (it said {code})")
    supervisor = WatchedTrainer.runtime.supervisor
    check_end(run_dir, temporary, witness, supervisor, killers[0])
    return {
        "kills": sum(killers[0].kills.values()),
        "by_kind": dict(sorted(killers[0].kills.items())),
        "restarts": supervisor.restarts,
        "lost_rollouts": supervisor.lost_rollouts,
        "rollouts": witness.rollouts,
        "frames": witness.frames,
        "episodes": witness.episodes,
        "groups_begun_anew": witness.begun,
        "largest_policy_lag": witness.largest_lag,
        "seconds": time.monotonic() - began,
        "recoveries": killers[0].recoveries,
        "load_average": os.getloadavg()[0],
        "violations": 0,
    }


def show(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if name not in ("by_kind", "recoveries"):
            print(f"{name.replace('_', ' '):24s}{value:>14,.{isinstance(value, float):d}f}")
    for name, count in figures["by_kind"].items():
        print(f"  {name:22s}{count:>14,}")
    for recovery in figures["recoveries"]:
        seconds = "not in 20 s" if recovery["seconds"] is None else f"{recovery['seconds']:.1f} s"
        before = recovery["frames_per_second_before"]
        print(f"  95 % of {before:,.0f} frames/s again after {recovery['process']} was killed: {seconds}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--interval", type=float, default=0.3, help="mean seconds from a sign of progress to the next kill"
    )
    parser.add_argument("--hung-after", type=float, default=20.0, help="seconds until a process counts as hung")
    parser.add_argument("--recoveries", type=int, default=3, help="single kills after which throughput is measured")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        try:
            figures = run(arguments, Path(folder))
        except Violation as violation:
            print(f"chaos: violated: {violation}", file=sys.stderr)
            return 1
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
