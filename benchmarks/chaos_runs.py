"""Kills whole runs (trainer, policy worker, actors) at random instants, resumes them, and checks what is on the disk.

    python benchmarks/chaos_runs.py                           # 30 kills inline and 10 asynchronous
    python benchmarks/chaos_runs.py --kills 3 --asynchronous-kills 0 --json chaos_runs.json

Every life of the run is `train ... --resume-or-start` in a process group of its own, ended by SIGKILL to all of it:
some at a random moment, the others while a snapshot is being written (told by what is left behind). After each death

* every snapshot under its name verifies, and none had to be passed over;
* what is lost since the newest snapshot is at most one cadence, the writing of a snapshot and one update.

The next life has to go on beyond what the last one had reached. In the end the run is let finish, and

* rows and episodes have no gap and no repeat; every phase has begun once, and the temperature never went back;
* inline, it is bit for bit the run that nobody killed: weights, optimiser, every row but its clock columns, every
  episode. Asynchronous runs differ from each other anyway: `benchmarks/chaos.py` looks at their rollouts.

Inline lives are forked from this process, which has imported everything, so that a life is spent training.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from chaos import Violation, require
from end_to_end import read_rows
from results import Measured, machine, write

from polybeast_moe import cli, trainer
from polybeast_moe.snapshots import Snapshot, load, newest_good
from polybeast_moe.snapshots.directory import all_snapshots, verify

FRAMES = 48  # of an update
RAMP = 6_000
SETTINGS = """
env: {max_episode_steps: 60}
runtime: {groups: 2, games_per_group: 3, unroll: 8, threads: 1, actors: 1, policy_threads: 1}
graph: {enabled: false}
policy: {glyph_embedding: 4, conv_channels: 4, hidden: 16, expert_hidden: 8, lstm: 4, router: {hidden: 8}}
learner: {slots_per_batch: 2}
phases:
  - {name: warmup, until: {frames: 960}, routing: softmax}
  - {name: transition, until: {frames: 6_000}, routing: sparsemax, temperature: {from: 1.0, to: 0.5}}
  - {name: finetune, until: {frames: 1_000_000_000}, routing: sparsemax, temperature: 0.5}
snapshots: {every_seconds: 0.3, keep_last: 3}
monitoring: {every_seconds: 1.0e-9, tensorboard: false}
"""
CADENCE = 0.3
SLACK = 2.0  # seconds for one update and the writing of one snapshot on a busy machine
LONGEST_WAIT = 180.0
OF_THE_MACHINE = (
    "wall_seconds",
    "frames_per_second",
    "_us_per_frame",
    "memory_bytes",
    "engine_share",
    "inference_share",
    "update_share",
)


class Life:
    """One process group that trains, from its start to its end."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.setsid()
                out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(out, 1)
                os.dup2(out, 2)
                code = cli.main(arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)

    def kill(self) -> None:
        """SIGKILL to everybody in it."""
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left but what init has to bury
            while True:
                os.killpg(self.pid, 0)
                time.sleep(0.01)

    def wait(self) -> int:
        """Waits for its end; returns its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def require_alive(self, log: Path) -> None:
        done, status = os.waitpid(self.pid, os.WNOHANG)
        require(done == 0, f"a life ends only when it is killed (it ended with {status}):\n{last_words(log)}")


class Victim:
    """A run that is killed again and again."""

    def __init__(self, folder: Path, mode: str, dice: random.Random) -> None:
        self.run_dir = folder / "run"
        self.log = folder / "output.log"
        self.settings = folder / "chaos.yaml"
        self.settings.write_text(SETTINGS)
        self.overrides = [f"runtime.mode={mode}"]
        self.kills = self.inside_writing = 0
        self.lost_seconds: list[float] = []
        self.lost_frames: list[int] = []
        self._dice = dice

    def arguments(self, *overrides: str) -> list[str]:
        run = ["train", str(self.settings), "--run-dir", str(self.run_dir), "--resume-or-start"]
        return [*run, *self.overrides, *overrides]

    def live_and_die(self, inside: bool) -> None:
        """One life: goes beyond the last one's newest snapshot, then dies, if `inside` while it writes one."""
        before = self.newest_frames()
        life = Life(self.arguments(), self.log)
        self._wait(life, lambda: self.newest_frames() > before, "it goes on")
        if inside:
            self._wait(life, lambda: bool(self._asides()), "a snapshot is written", pause=0.0002)
            time.sleep(self._dice.random() * 0.004)
        else:
            time.sleep(self._dice.expovariate(1 / 0.4))
        life.kill()
        self.kills += 1
        self.inside_writing += bool(self._asides())
        self._look()

    def finish(self, frames: int) -> None:
        """Lets the run end at that many frames."""
        life = Life(self.arguments(f"phases.finetune.until.frames={frames}"), self.log)
        require(life.wait() == 0, f"the run ends well:\n{last_words(self.log)}")
        self._look_at_the_whole(frames)

    def newest_frames(self) -> int:
        """Of the newest snapshot; beyond an earlier one's a life has got somewhere."""
        found = all_snapshots(self.run_dir / "snapshots")
        return int(found[-1].name.removeprefix("step-")) if found else 0

    def rows(self) -> list[dict[str, str]]:
        return read_rows(self.run_dir / "metrics.csv")

    def _look(self) -> None:
        """What must hold on the disk after a death."""
        root = self.run_dir / "snapshots"
        for path in all_snapshots(root):
            verify(path)
        newest, passed_over = newest_good(root)
        require(not passed_over, "no snapshot is damaged")
        if newest is None:
            return
        state = load(newest).state
        last = self.rows()[-1]
        self.lost_frames.append(int(last["frames"]) - state["counters"]["frames"])
        self.lost_seconds.append(float(last["wall_seconds"]) - state["wall_seconds"])
        require(self.lost_seconds[-1] <= CADENCE + SLACK, f"no more than a cadence is lost ({self.lost_seconds[-1]} s)")

    def _look_at_the_whole(self, frames: int) -> None:
        table = self.rows()
        counted = [int(row["frames"]) for row in table]
        require(counted == sorted(set(counted)), "rows have no repeat")
        require(counted == list(range(FRAMES, counted[-1] + 1, FRAMES)), "rows have no gap")
        require(frames <= counted[-1] < frames + FRAMES, "the run ends where it should")
        played = read_rows(self.run_dir / "episodes.csv")
        episodes = [int(row["episode"]) for row in played]
        require(episodes == list(range(1, len(episodes) + 1)), "episodes have no gap and no repeat")
        seeds = [row["seed_core"] for row in played]
        require(len(set(seeds)) == len(seeds), "no episode is played twice")
        told = [json.loads(line) for line in (self.run_dir / "phases.jsonl").read_text().splitlines()]
        begun = [event["new"] for event in told if event["key"] == "phase"]
        require(begun == ["warmup", "transition", "finetune"], f"every phase begins once ({begun})")
        temperatures = [float(row["router_temperature"]) for row in table]
        require(temperatures == sorted(temperatures, reverse=True), "the temperature never goes back")

    def _asides(self) -> list[str]:
        try:
            return [path.name for path in (self.run_dir / "snapshots").glob(".writing-*")]
        except FileNotFoundError:
            return []

    def _wait(self, life: Life, done: Callable[[], bool], what: str, pause: float = 0.01) -> None:
        deadline = time.monotonic() + LONGEST_WAIT
        while not done():
            life.require_alive(self.log)
            require(time.monotonic() < deadline, f"within {LONGEST_WAIT:.0f} s {what}:\n{last_words(self.log)}")
            time.sleep(pause)


def last_words(log: Path) -> str:
    return log.read_text()[-2000:] if log.exists() else ""


def measured(table: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if not key.endswith(OF_THE_MACHINE)} for row in table]


def _differences(one: list[dict[str, str]], other: list[dict[str, str]]) -> str:
    columns = {key for a, b in zip(one, other, strict=False) for key in a if a[key] != b.get(key)}
    return f"{len(one)} and {len(other)} rows, differing in {', '.join(sorted(columns)) or 'none that both have'}"


def require_same(killed: Path, whole: Path) -> None:
    """Bit for bit."""
    one, other = (load(all_snapshots(path / "snapshots")[-1]) for path in (killed, whole))
    require(one.weights.keys() == other.weights.keys(), "the same weights have names")
    require(all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights), "weights are the same")
    require(_optimizer(one) == _optimizer(other), "the optimiser is the same")
    require(one.state["runtime"] == other.state["runtime"], "games stand where they stood")
    tables = [measured(read_rows(path / "metrics.csv")) for path in (killed, whole)]
    require(tables[0] == tables[1], f"every figure is the same: {_differences(*tables)}")
    episodes = [(path / "episodes.csv").read_bytes() for path in (killed, whole)]
    require(episodes[0] == episodes[1], "every episode is the same")


def _optimizer(snapshot: Snapshot) -> list[Any]:
    state = snapshot.optimizer["state"]
    return [(number, name, value.tolist()) for number, own in state.items() for name, value in own.items()]


def chaos(mode: str, kills: int, folder: Path, seed: int) -> dict[str, Any]:
    """Kills one run as often as asked, lets it finish and returns what was seen. Raises Violation."""
    folder.mkdir()
    began = time.monotonic()
    victim = Victim(folder, mode, random.Random(seed))
    wanted_inside = (kills + 2) // 3
    tries = 0
    while victim.kills < kills or victim.inside_writing < wanted_inside:
        require(tries < 3 * kills + 10, "kills meet the writing of snapshots")
        victim.live_and_die(inside=victim.inside_writing < wanted_inside and tries % 3 != 2)
        tries += 1
        print(f"{mode}: {victim.kills} kills, {victim.inside_writing} inside writing, {victim.lost_seconds[-1:]}")
    frames = max(RAMP, victim.newest_frames()) + 20 * FRAMES
    victim.finish(frames)
    if mode == "inline":
        whole = Victim(folder / "..", mode, random.Random(seed))
        whole.run_dir = folder / "whole"
        whole.finish(frames)
        require_same(victim.run_dir, whole.run_dir)
    return {
        "kills": victim.kills,
        "kills_inside_writing": victim.inside_writing,
        "frames": int(victim.rows()[-1]["frames"]),
        "episodes": int(victim.rows()[-1]["episodes"]),
        "seconds_lost": victim.lost_seconds,
        "most_seconds_lost": max(victim.lost_seconds, default=0.0),
        "most_frames_lost": max(victim.lost_frames, default=0),
        "cadence_seconds": CADENCE,
        "bitwise_equal_to_an_unkilled_run": mode == "inline",
        "seconds": time.monotonic() - began,
        "violations": 0,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="of an inline run")
    parser.add_argument("--asynchronous-kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--results", action="store_true", help="write docs/results/chaos_runs.{md,json}")
    arguments = parser.parse_args()
    about = machine()
    trainer.write_report = lambda path: path  # figures would take longer than the lives
    found = {}
    with tempfile.TemporaryDirectory(prefix="chaos-runs-") as folder:
        os.environ["TMPDIR"] = folder  # where killed lives leave their games, swept by the next
        tempfile.tempdir = folder
        try:
            for mode, kills in (("inline", arguments.kills), ("asynchronous", arguments.asynchronous_kills)):
                if kills:
                    found[mode] = chaos(mode, kills, Path(folder) / mode, arguments.seed)
            require(not list(Path(folder).glob("polybeast-moe*")), "no folder of games is left")
        except Violation as violation:
            print(f"chaos: violated: {violation}", file=sys.stderr)
            return 1
    for mode, figures in found.items():
        for name, value in figures.items():
            print(f"{mode:14s}{name.replace('_', ' '):36s}{value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if arguments.results:
        publish(found, arguments, about)
    return 0


def publish(found: dict[str, Any], arguments: argparse.Namespace, about: dict[str, Any]) -> None:
    """Writes docs/results/chaos_runs.{md,json}."""

    def exact(value: float) -> Measured:
        return Measured(value, value, value)

    beyond = [max(0.0, seconds - CADENCE) for figures in found.values() for seconds in figures["seconds_lost"]]
    measured = {
        "chaos_runs_kills": exact(sum(figures["kills"] for figures in found.values())),
        "chaos_runs_kills_inside_writing": exact(sum(figures["kills_inside_writing"] for figures in found.values())),
        "chaos_runs_seconds_lost": Measured(max(beyond), min(beyond), max(beyond)),
        "chaos_runs_differences": exact(0.0),  # else there would have been a violation, and no results
    }
    names = [name for name, value in next(iter(found.values())).items() if not isinstance(value, list)]
    table = [f"| | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    table += [f"| {n.replace('_', ' ')} | {' | '.join(str(figures[n]) for figures in found.values())} |" for n in names]
    write(
        "chaos_runs",
        title="Whole runs killed",
        measured=measured,
        sections=[(__doc__ or "").split("\n\n", 2)[2], "\n".join(table)],
        raw=found,
        commands=[
            f"python benchmarks/chaos_runs.py --results --kills {arguments.kills} "
            f"--asynchronous-kills {arguments.asynchronous_kills} --seed {arguments.seed}"
        ],
        about=about,
    )


if __name__ == "__main__":
    sys.exit(main())
