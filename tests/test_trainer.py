"""Whole runs: the same seed gives the same run, a resume goes on, a signal leaves a snapshot and nothing else."""

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
import torch

from polybeast_moe import cli, trainer
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.replay import Replay
from polybeast_moe.learning import operator
from polybeast_moe.run_directory import RunDirectory
from polybeast_moe.runtime import loading
from polybeast_moe.runtime.inline import InlineRuntime
from polybeast_moe.runtime.policy_server import PolicyServer
from polybeast_moe.snapshots import load, newest_good
from polybeast_moe.snapshots.directory import all_snapshots

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = 48  # of one update: 2 groups x 3 games x 8 steps
WALL_CLOCK = ("wall_seconds", "frames_per_second", "_us_per_frame")
PARTS = ("engine_share", "inference_share", "update_share", "memory_bytes")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch) -> Path:
    """Where temporary files go; nothing may be left in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert not list(folder.glob("polybeast-moe*"))


@pytest.fixture
def no_report(monkeypatch) -> None:
    """Figures take longer than these runs; test_report.py looks at them."""
    monkeypatch.setattr(trainer, "write_report", lambda path: path)


def train(config: RunConfig, path: Path) -> int:
    with RunDirectory.create(path, config) as run:
        return trainer.train(config, run)


def resume(path: Path, *overrides: str) -> int:
    with RunDirectory.open(path) as run:
        snapshot, passed_over = newest_good(run.snapshots)
        assert not passed_over
        return trainer.train(run.config(overrides), run, snapshot)


def stop_after(monkeypatch, updates: int, number: signal.Signals = signal.SIGTERM) -> None:
    """A real signal arrives in the middle of that update."""
    genuine, calls = loading.make_batch, iter(range(1, 1_000_000))

    def counted(rollouts):
        if next(calls) == updates:
            os.kill(os.getpid(), number)
        return genuine(rollouts)

    monkeypatch.setattr(loading, "make_batch", counted)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def measured(path: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv without what a clock says."""
    return [
        {key: value for key, value in row.items() if not key.endswith(WALL_CLOCK) and key not in PARTS}
        for row in rows(path / "metrics.csv")
    ]


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "phases.jsonl").read_text().splitlines()]


def newest(path: Path):
    return load(all_snapshots(path / "snapshots")[-1])


def same_weights(one: Path, other: Path) -> bool:
    first, second = newest(one).weights, newest(other).weights
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("no_report")
def test_the_same_seed_gives_the_same_run_and_another_seed_another(make_config, tmp_path) -> None:
    """With the graph and a recurrent core: weights bit for bit, every measured figure, every episode."""
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        config = make_config(f"seed={seed}", "graph.enabled=true", "policy.lstm=8", "env.max_episode_steps=17")
        assert train(config, tmp_path / name) == 0
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    assert same_weights(first, again)
    assert measured(first) == measured(again)
    assert (first / "episodes.csv").read_bytes() == (again / "episodes.csv").read_bytes()
    assert len(rows(first / "episodes.csv")) > 6
    without_time = [[{**event, "time": None} for event in events(path)] for path in (first, again)]
    assert without_time[0] == without_time[1]
    assert not same_weights(first, other)
    assert (first / "episodes.csv").read_bytes() != (other / "episodes.csv").read_bytes()


@pytest.mark.usefixtures("no_report")
def test_a_run_walks_its_phases_and_counts_what_it_consumed(make_config, tmp_path, capsys) -> None:
    path = tmp_path / "run"
    assert train(make_config("env.max_episode_steps=10", "evaluation.random_episodes=4"), path) == 0
    table = rows(path / "metrics.csv")
    assert [(row["phase"], int(row["frames"])) for row in table] == [("warmup", 240), ("transition", 480)]
    assert [row["routing"] for row in table] == ["softmax", "sparsemax"]
    for row in table:
        assert int(row["updates"]) * FRAMES == int(row["frames"])
        shares = [float(row[f"expert_{name}_share"]) for name in ("survival", "combat", "exploration", "general")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert float(row["routing_information"]) == pytest.approx(
            float(row["usage_entropy"]) - float(row["alpha_entropy"]), abs=1e-6
        )
        assert float(row["policy_lag"]) == 0
    episodes = rows(path / "episodes.csv")
    assert len(episodes) == int(table[-1]["episodes"])
    assert sum(int(episode["length"]) for episode in episodes) <= 480
    assert [int(episode["episode"]) for episode in episodes] == list(range(1, len(episodes) + 1))
    assert {event["new"] for event in events(path) if event["key"] == "phase"} == {"warmup", "transition"}
    kinds = [load(snapshot).state["kind"] for snapshot in all_snapshots(path / "snapshots")]
    assert kinds == ["phase_end", "phase_end"]
    state = newest(path).state
    assert state["counters"] == {"frames": 480, "episodes": len(episodes), "updates": 10}
    assert state["policy_version"] == 10
    assert len(json.loads((path / "random_policy.json").read_text())["episodes"]) == 4
    assert "transition" in capsys.readouterr().out


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_resumed_run_goes_on_without_gap_or_repeat(make_config, tmp_path, monkeypatch, number) -> None:
    path = tmp_path / "run"
    config = make_config("env.max_episode_steps=9", "policy.lstm=4", "phases.transition.until.frames=960")
    stop_after(monkeypatch, 8, number)
    assert train(config, path) == 128 + number
    stopped = newest(path)
    assert stopped.state["kind"] == "signal"
    assert stopped.state["counters"]["frames"] == 8 * FRAMES
    before = rows(path / "metrics.csv"), rows(path / "episodes.csv"), events(path)
    with (path / "metrics.csv").open("a") as file:  # what was written after the snapshot, had there been a crash
        file.write("480,torn")
    monkeypatch.undo()
    monkeypatch.setattr(trainer, "write_report", lambda path: path)
    monkeypatch.setattr("tempfile.tempdir", os.fspath(tmp_path / "temporary"))
    assert resume(path) == 0

    table, episodes = rows(path / "metrics.csv"), rows(path / "episodes.csv")
    assert table[0] == before[0][0]  # the row of the stop itself is written again, as part of a longer one
    assert episodes[: len(before[1])] == before[1]
    assert events(path)[: len(before[2])] == before[2]
    frames = [int(row["frames"]) for row in table]
    assert frames == sorted(set(frames))
    assert frames[-1] == 960
    assert [float(row["wall_seconds"]) for row in table] == sorted(float(row["wall_seconds"]) for row in table)
    assert [int(episode["episode"]) for episode in episodes] == list(range(1, len(episodes) + 1))
    seeds = [(episode["seed_core"], episode["seed_disp"]) for episode in episodes]
    assert len(set(seeds)) == len(seeds), "an episode was played twice"
    assert [event["new"] for event in events(path) if event["key"] == "phase"] == ["warmup", "transition"]

    finished = newest(path)
    assert finished.state["counters"] == {"frames": 960, "episodes": len(episodes), "updates": 20}
    assert {int(state["step"]) for state in finished.optimizer["state"].values()} == {20}
    assert {int(state["step"]) for state in stopped.optimizer["state"].values()} == {8}
    controller = stopped.state["controller"]["settings"]
    assert controller["phase"] == "transition"
    assert controller["temperature"] == pytest.approx(1.0 - 0.5 * (384 - 240) / 720)
    assert float(table[-1]["router_temperature"]) == pytest.approx(1.0 - 0.5 * (960 - FRAMES - 240) / 720)


@pytest.mark.usefixtures("no_report")
def test_a_run_that_was_stopped_twice_is_bit_for_bit_the_run_that_was_not(make_config, tmp_path, monkeypatch) -> None:
    """Weights, optimiser, every figure, every episode, mid-episode games and a recurrent policy's memory included."""
    overrides = ["env.max_episode_steps=29", "policy.lstm=4", "monitoring.every_seconds=1e-9"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(make_config(*overrides), whole) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert train(make_config(*overrides), parts) == 143
    with monkeypatch.context() as patch:  # and once in the middle of a rollout
        genuine, turns = PolicyServer.serve, iter(range(1, 1000))
        patch.setattr(
            PolicyServer,
            "serve",
            lambda self, version: (next(turns) == 13 and os.kill(os.getpid(), 15)) or genuine(self, version),
        )
        assert resume(parts) == 143
    assert newest(parts).state["counters"]["frames"] == 4 * FRAMES
    assert resume(parts) == 0
    assert same_weights(whole, parts)
    mine, other = newest(parts).optimizer["state"], newest(whole).optimizer["state"]
    for number, state in other.items():
        assert all(torch.equal(value, mine[number][name]) for name, value in state.items())
    assert measured(whole) == measured(parts)
    assert (whole / "episodes.csv").read_bytes() == (parts / "episodes.csv").read_bytes()
    assert newest(whole).state["runtime"] == newest(parts).state["runtime"]
    lengths = [int(episode["length"]) for episode in rows(whole / "episodes.csv")]
    assert max(lengths) > 2 * 8, "no episode was cut by a stop"


@pytest.mark.usefixtures("no_report")
def test_games_that_cannot_be_played_again_begin_new_episodes(make_config, tmp_path, monkeypatch, capsys) -> None:
    """Longer than is kept, or under another character: told, and no seed comes twice."""
    for number, override in enumerate(["snapshots.replay_steps=5", "env.character=val-hum-law-fem"]):
        path = tmp_path / str(number)
        with monkeypatch.context() as patch:
            stop_after(patch, 3)
            train(make_config("snapshots.replay_steps=5" if number == 0 else "seed=1"), path)
        assert resume(path, override) == 0
        assert "6 games could not be played on and begin new episodes" in capsys.readouterr().out
        seeds = [row["seed_core"] for row in rows(path / "episodes.csv")]
        assert len(set(seeds)) == len(seeds)


@pytest.mark.usefixtures("no_report")
def test_restored_parts_are_those_that_were_saved(make_config, nle_package, tmp_path, monkeypatch) -> None:
    path = tmp_path / "run"
    config = make_config("policy.lstm=4")
    stop_after(monkeypatch, 3)
    train(config, path)
    snapshot = newest(path)
    with RunDirectory.open(path) as run, trainer.Console() as console:
        games = tmp_path / "games"
        games.mkdir()
        parts = trainer.Trainer(config, run, nle_package, games, console, snapshot)
        state = parts._state("signal")
        weights = parts._policy.state_dict()
        parts.close()
    changing = ("wall_seconds", "starts", "number", "snapshots")  # this is another start
    assert {k: v for k, v in state.items() if k not in changing} == {
        k: v for k, v in snapshot.state.items() if k not in changing
    }
    assert all(torch.equal(value, weights[name]) for name, value in snapshot.weights.items())


@pytest.mark.usefixtures("no_report")
def test_a_finished_run_resumes_into_a_longer_curriculum(make_config, tmp_path) -> None:
    path = tmp_path / "run"
    assert train(make_config("env.max_episode_steps=9"), path) == 0
    assert resume(path) == 0  # nothing left to do
    assert [int(row["frames"]) for row in rows(path / "metrics.csv")] == [240, 480]
    assert resume(path, "phases.transition.until.frames=720") == 0
    assert [int(row["frames"]) for row in rows(path / "metrics.csv")] == [240, 480, 720]
    seeds = [row["seed_core"] for row in rows(path / "episodes.csv")]
    assert len(set(seeds)) == len(seeds)


def between_updates(monkeypatch, **acts: Callable[[trainer.Trainer], None]) -> None:
    """Does something to the trainer before the update of that number, counted in the whole process: `at_3=...`."""
    genuine, calls = trainer.Trainer._look_after_others, iter(range(1, 1_000_000))

    def look(self: trainer.Trainer) -> None:
        acts.get(f"at_{next(calls)}", lambda _: None)(self)
        genuine(self)

    monkeypatch.setattr(trainer.Trainer, "_look_after_others", look)


def die(_: trainer.Trainer) -> None:
    raise ArithmeticError("as if killed")


@pytest.mark.usefixtures("no_report")
def test_what_an_operator_changed_survives_a_death_before_the_next_snapshot(make_config, tmp_path, monkeypatch) -> None:
    """A value that was held, and a key of the configuration that a resume has changed: in force, and an event still."""
    path = tmp_path / "run"
    hold = operator.hold("losses.entropy", 0.125, lambda overrides: None)
    between_updates(monkeypatch, at_3=lambda it: it.change(hold), at_4=die, at_6=die)
    with pytest.raises(ArithmeticError):
        train(make_config(), path)
    assert newest(path).state["controller"]["holds"] == {"losses.entropy": 0.125}
    with pytest.raises(ArithmeticError):
        resume(path, "phases.warmup.learning_rate=0.25")
    assert resume(path) == 0
    by_hand = [(event["key"], event["new"]) for event in events(path) if event["by"] == "operator"]
    assert by_hand[:2] == [("losses.entropy", 0.125), ("phases.warmup.learning_rate", 0.25)]
    settings = load(path / "snapshots" / "step-000000000240").optimizer["settings"]
    assert (settings["phase"], settings["learning_rate"], settings["losses"]["entropy"]) == ("warmup", 0.25, 0.125)


@pytest.mark.usefixtures("no_report")
def test_a_run_that_an_operator_ended_is_complete_until_its_end_is_changed(
    make_config, tmp_path, monkeypatch, capsys
) -> None:
    path = tmp_path / "run"
    between_updates(monkeypatch, at_7=lambda it: it.change(operator.next_phase()))
    assert train(make_config(), path) == 0
    capsys.readouterr()
    assert resume(path) == 0
    assert "the run is complete" in capsys.readouterr().out
    assert newest(path).state["counters"]["frames"] == 6 * FRAMES
    assert resume(path, "phases.transition.until.frames=432") == 0
    assert newest(path).state["counters"]["frames"] == 432


@pytest.mark.usefixtures("no_report")
def test_a_stop_before_the_first_update_can_be_resumed(make_config, tmp_path, monkeypatch) -> None:
    path = tmp_path / "run"
    genuine = InlineRuntime.collect
    with monkeypatch.context() as patch:
        patch.setattr(InlineRuntime, "collect", lambda self, stop: os.kill(os.getpid(), 15) or genuine(self, stop))
        assert train(make_config(), path) == 143
    assert newest(path).state["counters"]["frames"] == 0
    assert resume(path) == 0
    assert [int(row["frames"]) for row in rows(path / "metrics.csv")] == [240, 480]


@pytest.mark.usefixtures("no_report")
def test_snapshots_come_in_time_and_at_phase_ends_and_old_ones_go(make_config, tmp_path) -> None:
    config = make_config("snapshots.every_seconds=1e-9", "snapshots.keep_last=2")
    assert train(config, tmp_path / "run") == 0
    kept = [int(path.name.removeprefix("step-")) for path in all_snapshots(tmp_path / "run" / "snapshots")]
    assert (kept[0], kept[-1]) == (240, 480)  # each phase's end
    assert len(kept) <= 3  # and one more that is among the two newest; none while an earlier one is being written


@pytest.mark.usefixtures("no_report")
def test_updates_that_are_not_finite_are_said_and_the_run_goes_on(make_config, tmp_path, monkeypatch, capsys) -> None:
    genuine, calls = loading.make_batch, iter(range(100))

    def poisoned(rollouts):
        batch = genuine(rollouts)
        if next(calls) == 2:
            batch.reward.fill_(float("nan"))
        return batch

    monkeypatch.setattr(loading, "make_batch", poisoned)
    assert train(make_config(), tmp_path / "run") == 0
    assert "update 3 skipped: its loss or gradient was not finite (1 since the start)" in capsys.readouterr().out
    first = rows(tmp_path / "run" / "metrics.csv")[0]  # the frames of the skipped update were played all the same
    assert float(first["frames_per_second"]) * float(first["wall_seconds"]) == pytest.approx(int(first["frames"]))
    snapshot = newest(tmp_path / "run")
    assert snapshot.state["policy_version"] == 9
    assert all(torch.isfinite(value).all() for value in snapshot.weights.values())


@pytest.mark.usefixtures("no_report")
def test_a_phase_begins_smoothly_and_the_row_of_its_first_update_says_so(make_config, tmp_path) -> None:
    """Softmax gives way to sparsemax at the same temperature, for weights that have learnt fast for a while."""
    config = make_config(
        "monitoring.every_seconds=1e-9", "phases.warmup.learning_rate=0.01", "phases.warmup.until.frames=960",
        "phases.transition.until.frames=1152",
    )  # fmt: skip
    assert train(config, tmp_path / "run") == 0
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    told = {row["phase"]: float(row["boundary_kl"]) for row in rows if row["boundary_kl"]}
    assert list(told) == ["transition"]
    assert 1e-9 < told["transition"] < 0.02
    scores = {row["phase"]: float(row["mean_episode_score"]) for row in rows if row["mean_episode_score"]}
    assert abs(scores["transition"] - scores["warmup"]) < 5


# The command line.


def refused(capsys, *argv: str) -> str:
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith("polybeast-moe: ")
    assert err.count("\n") == 1
    assert out == ""
    return err


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("policy.class=nowhere.Policy", "cannot import 'nowhere'"),
        ("policy.class=polybeast_moe.models.policy.GraphPolicy", "did you mean 'GraphMoEPolicy'"),
        ("graph={enabled: true, file: FOREIGN}", "FOREIGN"),
        ("phases.warmup.until.frames=-3", "phases.warmup.until.frames"),
    ],
)
def test_what_cannot_run_leaves_nothing(tiny_file, tmp_path, capsys, override: str, wanted: str) -> None:
    foreign = tmp_path / "FOREIGN"
    foreign.write_text("not: a graph\n")
    line = refused(
        capsys, "train", str(tiny_file), "--run-dir", str(tmp_path / "run"), override.replace("FOREIGN", str(foreign))
    )
    assert wanted in line
    assert not (tmp_path / "run").exists()


def test_a_folder_for_games_that_cannot_be_made_is_one_line(
    tiny_file, tmp_path, temporary, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert "set TMPDIR" in refused(capsys, "train", str(tiny_file), "--run-dir", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_report")
def test_weights_of_another_network_are_refused_in_one_line(tiny_file, tmp_path, capsys, monkeypatch) -> None:
    """The policy's own code, or the graph's file, has changed under its name since the run began."""
    run = str(tmp_path / "run")
    stop_after(monkeypatch, 1)
    assert cli.main(["train", str(tiny_file), "--run-dir", run]) == 143
    capsys.readouterr()
    genuine = trainer.build_policy
    monkeypatch.setattr(
        trainer, "build_policy", lambda config, graph, num_actions: genuine(config, graph, num_actions=2)
    )
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    assert "its weights are of another network" in refused(capsys, "resume", run)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before


def start(*arguments: str) -> subprocess.Popen[str]:
    """Starts the program in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "polybeast_moe", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.02)


def processes_of(group: int) -> list[int]:
    living = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getpgid(int(entry.name)) == group:
                living.append(int(entry.name))
        except ProcessLookupError:
            continue
    return living


@pytest.mark.parametrize(("mode", "number"), [("inline", signal.SIGTERM), ("asynchronous", signal.SIGINT)])
def test_a_signal_in_the_middle_leaves_a_snapshot_and_nothing_else(
    tiny_file, tmp_path, temporary, mode: str, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    overrides = ["phases.transition.until.frames=1_000_000", "monitoring.every_seconds=0.05", f"runtime.mode={mode}"]
    overrides += ["graph.enabled=true", "runtime.actors=1", "runtime.policy_threads=1", "runtime.prefetch=true"]
    process = start("train", str(tiny_file), "--run-dir", str(run), *overrides)
    try:
        wait_for(run / "metrics.csv", process)
        assert list(temporary.iterdir())
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does: to the whole foreground group
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number, err
        assert f"polybeast-moe resume {run}" in out
        assert "Traceback" not in err
        assert processes_of(process.pid) == []
        assert list(temporary.iterdir()) == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    stopped = newest(run)
    assert stopped.state["kind"] == "signal"
    frames = stopped.state["counters"]["frames"]
    assert int(rows(run / "metrics.csv")[-1]["frames"]) == frames > 0
    if mode == "asynchronous":
        return
    assert cli.main(["resume", str(run), f"phases.transition.until.frames={frames + 500}"]) == 0
    assert int(rows(run / "metrics.csv")[-1]["frames"]) >= frames + 500
    assert (run / "report" / "index.html").exists()


@pytest.mark.usefixtures("no_report")
def test_a_run_keeps_replays_of_its_best_episodes(make_config, tmp_path) -> None:
    run = tmp_path / "run"
    assert train(make_config("monitoring.replays=3"), run) == 0
    best = sorted(int(row["score"]) for row in rows(run / "episodes.csv"))[-3:]
    replays = [Replay.load(path) for path in (run / "replays").iterdir()]
    assert sorted(replay.record["score"] for replay in replays) == best
    assert all(list(replay.play(("blstats",)))[-1].info["episode_record"]["score"] in best for replay in replays)
