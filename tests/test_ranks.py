"""Whole runs of several ranks under torchrun, with Gloo: one curriculum, one set of files, ranks that go missing."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polybeast_moe.snapshots import load
from polybeast_moe.snapshots.directory import all_snapshots

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


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def newest(run: Path) -> Any:
    return load(all_snapshots(run / "snapshots")[-1])


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


def wait_for(condition: Callable[[], Any], seconds: float = 150) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def test_one_curriculum_and_one_set_of_files(command, environment, tmp_path: Path) -> None:
    """Every rank infers and learns with the same settings at the same update, while they change and across phases."""
    longer = "phases.transition.until.frames=672"
    overrides = ("policy.class=logging_policy.LoggingPolicy", STEERED, longer, "distributed.patience=600")
    done = subprocess.run(command(2, *overrides), capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    logs = [(tmp_path / f"rank-{rank}.log").read_text().splitlines() for rank in range(2)]
    assert logs[0] == logs[1]
    learned = [line for line in logs[0] if line.startswith("learn")]
    assert len(learned) == 7
    assert sum("softmax" in line for line in learned) == 3
    assert len(set(learned)) == 1 + 4  # softmax at one temperature, then a temperature that is steered

    run = tmp_path / "run"
    table = rows(run / "metrics.csv")
    assert [(row["phase"], int(row["frames"])) for row in table] == [("warmup", 288), ("transition", 672)]
    assert [int(row["updates"]) * 2 * FRAMES for row in table] == [288, 672]
    episodes = rows(run / "episodes.csv")
    assert [int(episode["episode"]) for episode in episodes] == list(range(1, len(episodes) + 1))
    assert len({episode["seed_core"] for episode in episodes}) == len(episodes) == int(table[-1]["episodes"])
    phases = [json.loads(line) for line in (run / "phases.jsonl").read_text().splitlines()]
    assert [event["new"] for event in phases if event["key"] == "phase"] == ["warmup", "transition"]
    state = newest(run).state
    assert state["counters"] == {"frames": 672, "episodes": len(episodes), "updates": 7}
    assert len(state["ranks"]) == 1
    assert state["ranks"][0]["runtime"] != state["runtime"]
    assert done.stdout.count("phase transition begins") == 1
    assert not list((tmp_path / "temporary").glob("polybeast-moe*"))


def test_operators_change_and_rest_every_rank(command, environment, tmp_path: Path) -> None:
    """A held temperature reaches every rank's inference and learning, a pause every rank's games; then a stop."""
    run, log = tmp_path / "run", (tmp_path / "torchrun.log").open("w")
    endless = ("policy.class=logging_policy.LoggingPolicy", "phases.warmup.until.frames=50_000_000",
               "phases.transition.until.frames=100_000_000", "distributed.patience=600")  # fmt: skip

    def control(*words: str) -> dict[str, Any]:
        line = [sys.executable, "-m", "polybeast_moe", "control", str(run), *words, "--json"]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout.startswith("{") else {}

    def lines(rank: int) -> list[str]:
        return (tmp_path / f"rank-{rank}.log").read_text().splitlines()

    torchrun = subprocess.Popen(command(2, *endless), env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: (run / "control.sock").exists() and (tmp_path / "rank-1.log").exists())
        control("set", "router_temperature", "0.7")
        for rank in range(2):
            wait_for(lambda r=rank: {"infer softmax 0.7", "learn softmax 0.7"} <= set(lines(r)))
        control("pause")
        time.sleep(1.0)  # for the update that is going on
        paused = [len(lines(rank)) for rank in range(2)]
        time.sleep(1.0)
        assert [len(lines(rank)) for rank in range(2)] == paused
        control("resume")
        for rank in range(2):
            wait_for(lambda r=rank: len(lines(r)) > paused[r] + 20)
        control("stop")
        assert torchrun.wait(90) == 0
    finally:
        torchrun.kill()
        log.close()
    assert newest(run).state["kind"] == "signal"


def test_a_rank_that_is_late_is_not_waited_for(command, environment, tmp_path: Path) -> None:
    overrides = ("policy.class=logging_policy.LatePolicy", "distributed.patience=0.3")
    done = subprocess.run(command(2, *overrides), capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    last = rows(tmp_path / "run" / "metrics.csv")[-1]
    assert int(last["frames"]) >= 480
    assert int(last["frames"]) < int(last["updates"]) * 2 * FRAMES  # some updates went on with half of a batch
    assert float(last["loss_total"]) == float(last["loss_total"])


def test_a_killed_rank_and_other_numbers_of_ranks(command, environment, tmp_path: Path) -> None:
    """Two ranks, one of which is killed; the same two from the newest snapshot; then one; then two."""
    run = tmp_path / "run"
    endless = ("snapshots.every_seconds=1e-9", "phases.transition.until.frames=100_000_000")

    def frames() -> int:
        found = all_snapshots(run / "snapshots")
        return int(found[-1].name.removeprefix("step-")) if found else 0

    log = (tmp_path / "torchrun.log").open("w")
    torchrun = subprocess.Popen(command(2, *endless, restarts=1), env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: frames() > 4 * FRAMES)
        os.kill(wait_for(lambda: learner(1, above=torchrun.pid)), signal.SIGKILL)
        wait_for(lambda: learner(1, above=torchrun.pid) is None)
        reached = frames()
        wait_for(lambda: frames() > reached + 4 * FRAMES)
        torchrun.send_signal(signal.SIGTERM)
        torchrun.wait(60)
    finally:
        torchrun.kill()
        log.close()
    stopped = newest(run).state
    assert stopped["kind"] == "signal", (tmp_path / "torchrun.log").read_text()[-3000:]
    assert stopped["starts"] == 1
    assert len(stopped["ranks"]) == 1

    so_far = stopped["counters"]["frames"]
    for ranks, until in ((0, so_far + 3 * FRAMES), (2, so_far + 7 * FRAMES)):
        overrides = ("snapshots.every_seconds=1000", f"phases.transition.until.frames={until}")
        done = subprocess.run(command(ranks, *overrides), capture_output=True, text=True, env=environment, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        state = newest(run).state
        assert state["counters"]["frames"] == until
        assert len(state["ranks"]) == max(0, ranks - 1)
    assert state["starts"] == 3
    episodes = rows(run / "episodes.csv")
    assert len({episode["seed_core"] for episode in episodes}) == len(episodes)
    counted = [int(row["frames"]) for row in rows(run / "metrics.csv")]
    assert counted == sorted(set(counted))


def test_what_rank_0_refuses_is_said_and_ends_everybody(command, environment, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("somebody's\n")
    done = subprocess.run(command(2), capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode != 0
    assert "already holds a run" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]
