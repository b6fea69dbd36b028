"""Whole runs of several ranks under torchrun, with Gloo: one curriculum, one set of files, ranks that go missing."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from run_files import events, newest, rows
from waiting import PATIENCE, settles, wait_until

from polybeast_moe.snapshots.directory import all_snapshots

pytestmark = pytest.mark.timeout(1200)  # whole runs, of many processes each, one after the other

HERE = Path(__file__).parent
FRAMES = 48  # of one rank and update
STEERED = "phases.transition.temperature={target_alpha_entropy: {from: 1.2, to: 0.8}}"


@pytest.fixture
def command(tiny_file: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Makes a command line that trains in `tmp_path/run`, on so many ranks; 0: without torchrun."""

    def make(ranks: int, *overrides: str, restarts: int = 0) -> list[str]:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        torchrun += [f"--max-restarts={restarts}", "--monitor-interval=0.2"]
        train = ["-m", "polybeast_moe", "train", str(tiny_file), *overrides, "evaluation.random_episodes=0"]
        train += ["--run-dir", str(tmp_path / "run"), "--resume-or-start"]
        return [sys.executable, *(torchrun if ranks else []), *train]

    return make


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "temporary").mkdir()
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "TMPDIR": str(tmp_path / "temporary"), "MPLBACKEND": "agg"}
    return {**os.environ, **own, "RANK_LOGS": str(tmp_path), "PYTHONWARNINGS": "ignore"}


@contextmanager
def going_on(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """torchrun, which is ended with the block if it has not ended before."""
    with log.open("w") as file:
        torchrun = subprocess.Popen(command, env=environment, stdout=file, stderr=file, text=True)
        try:
            yield torchrun
        finally:
            torchrun.kill()
            torchrun.wait()


def carry_out(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def ends_well(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done


def learner(rank: int, above: int) -> int | None:
    """The process of a rank, a child of torchrun's."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = status.read_text().split(" (", 1)
            name, fields = rest.rsplit(") ", 1)
        except OSError:
            continue
        if name == f"pbm-learner-{rank}" and int(fields.split()[1]) == above:
            return int(pid)
    return None


def test_one_curriculum_and_one_set_of_files(command, environment, tmp_path: Path) -> None:
    """Every rank infers and learns with the same settings at the same update, while they change and across phases."""
    longer = "phases.transition.until.frames=672"
    overrides = ("policy.class=logging_policy.LoggingPolicy", STEERED, longer, "distributed.patience=600")
    done = ends_well(carry_out(command(2, *overrides), environment))
    logs = [(tmp_path / f"rank-{rank}.log").read_text().splitlines() for rank in range(2)]
    assert logs[0] == logs[1]
    learned = [line for line in logs[0] if line.startswith("learn")]
    assert len(learned) == 7
    assert sum("softmax" in line for line in learned) == 3
    assert len(set(learned)) == 1 + 4  # softmax at one temperature, then a temperature that is steered

    run = tmp_path / "run"
    table = rows(run)
    assert [(row["phase"], int(row["frames"])) for row in table] == [("warmup", 288), ("transition", 672)]
    assert [int(row["updates"]) * 2 * FRAMES for row in table] == [288, 672]
    episodes = rows(run, "episodes.csv")
    assert [int(episode["episode"]) for episode in episodes] == list(range(1, len(episodes) + 1))
    assert len({episode["seed_core"] for episode in episodes}) == len(episodes) == int(table[-1]["episodes"])
    assert [event["new"] for event in events(run) if event["key"] == "phase"] == ["warmup", "transition"]
    state = newest(run).state
    assert state["counters"] == {"frames": 672, "episodes": len(episodes), "updates": 7}
    assert len(state["ranks"]) == 1
    assert state["ranks"][0]["runtime"] != state["runtime"]
    assert done.stdout.count("phase transition begins") == 1
    assert not list((tmp_path / "temporary").glob("polybeast-moe*"))


def test_operators_change_and_rest_every_rank(command, environment, tmp_path: Path) -> None:
    """A held temperature reaches every rank's inference and learning, a pause every rank's games; then a stop."""
    run = tmp_path / "run"
    endless = ("policy.class=logging_policy.LoggingPolicy", "phases.warmup.until.frames=50_000_000",
               "phases.transition.until.frames=100_000_000", "distributed.patience=600")  # fmt: skip

    def control(*words: str) -> dict[str, Any]:
        line = [sys.executable, "-m", "polybeast_moe", "control", str(run), *words, "--json"]
        done = ends_well(carry_out(line, environment))
        return json.loads(done.stdout) if done.stdout.startswith("{") else {}

    def lines(rank: int) -> list[str]:
        return (tmp_path / f"rank-{rank}.log").read_text().splitlines()

    with going_on(command(2, *endless), environment, tmp_path / "torchrun.log") as torchrun:
        wait_until(lambda: (run / "control.sock").exists() and (tmp_path / "rank-1.log").exists(), torchrun)
        control("set", "router_temperature", "0.7")
        for rank in range(2):
            wait_until(lambda r=rank: {"infer softmax 0.7", "learn softmax 0.7"} <= set(lines(r)), torchrun)
        control("pause")
        paused = settles(lambda: [len(lines(rank)) for rank in range(2)], still_for=1.0)
        control("resume")
        for rank in range(2):
            wait_until(lambda r=rank: len(lines(r)) > paused[r] + 20, torchrun)
        control("stop")
        assert torchrun.wait(PATIENCE) == 0
    assert newest(run).state["kind"] == "signal"


def test_a_rank_that_is_late_is_not_waited_for(command, environment, tmp_path: Path) -> None:
    overrides = ("policy.class=logging_policy.LatePolicy", "distributed.patience=0.3")
    ends_well(carry_out(command(2, *overrides), environment))
    last = rows(tmp_path / "run")[-1]
    assert int(last["frames"]) >= 480
    assert int(last["frames"]) < int(last["updates"]) * 2 * FRAMES  # some updates went on with half of a batch
    assert math.isfinite(float(last["loss_total"]))


def test_a_killed_rank_and_other_numbers_of_ranks(command, environment, tmp_path: Path) -> None:
    """Two ranks, one of which is killed; the same two from the newest snapshot; then one; then two."""
    run = tmp_path / "run"
    endless = ("snapshots.every_seconds=1e-9", "phases.transition.until.frames=100_000_000")

    def frames() -> int:
        found = all_snapshots(run / "snapshots")
        return int(found[-1].name.removeprefix("step-")) if found else 0

    with going_on(command(2, *endless, restarts=1), environment, tmp_path / "torchrun.log") as torchrun:
        wait_until(lambda: frames() > 4 * FRAMES, torchrun)
        killed = wait_until(lambda: learner(1, above=torchrun.pid), torchrun)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: learner(1, above=torchrun.pid) != killed, torchrun)
        reached = frames()
        wait_until(lambda: frames() > reached + 4 * FRAMES, torchrun)
        torchrun.send_signal(signal.SIGTERM)
        torchrun.wait(PATIENCE)
    stopped = newest(run).state
    assert stopped["kind"] == "signal", (tmp_path / "torchrun.log").read_text()[-3000:]
    assert stopped["starts"] == 1
    assert len(stopped["ranks"]) == 1

    so_far = stopped["counters"]["frames"]
    for ranks, until in ((0, so_far + 3 * FRAMES), (2, so_far + 7 * FRAMES)):
        overrides = ("snapshots.every_seconds=1000", f"phases.transition.until.frames={until}")
        ends_well(carry_out(command(ranks, *overrides), environment))
        state = newest(run).state
        assert state["counters"]["frames"] == until
        assert len(state["ranks"]) == max(0, ranks - 1)
    assert state["starts"] == 3
    episodes = rows(run, "episodes.csv")
    assert len({episode["seed_core"] for episode in episodes}) == len(episodes)
    counted = [int(row["frames"]) for row in rows(run)]
    assert counted == sorted(set(counted))


def test_what_rank_0_refuses_is_said_and_ends_everybody(command, environment, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("somebody's\n")
    done = carry_out(command(2), environment)
    assert done.returncode != 0
    assert "already holds a run" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]
