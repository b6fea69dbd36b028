"""Whole runs: the same seed gives the same run, phases are walked, a signal leaves a snapshot and nothing else."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from processes import of_session, open_files
from run_files import events, newest, rows
from waiting import PATIENCE, wait_until
from whole_runs import FRAMES, measured, same_weights, train

from polybeast_moe import cli, trainer
from polybeast_moe.envs.replay import Replay
from polybeast_moe.runtime import loading
from polybeast_moe.snapshots import load
from polybeast_moe.snapshots.directory import all_snapshots

pytestmark = pytest.mark.usefixtures("temporary")


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
    assert len(rows(first, "episodes.csv")) > 6
    without_time = [[{**event, "time": None} for event in events(path)] for path in (first, again)]
    assert without_time[0] == without_time[1]
    assert not same_weights(first, other)
    assert (first / "episodes.csv").read_bytes() != (other / "episodes.csv").read_bytes()


def test_what_was_built_is_closed_when_the_next_part_cannot_be(make_config, tmp_path, monkeypatch) -> None:
    """Of a runtime of processes: the weights' descriptor, and the log that its children would write to."""
    weights, log = "/memfd:pbm-weights (deleted)", str(tmp_path / "run" / "run.log")
    during: list[str] = []

    def fails(*_: object) -> None:
        during.extend(open_files())
        raise ArithmeticError

    monkeypatch.setattr(trainer, "ControlServer", fails)
    with pytest.raises(ArithmeticError) as error:
        train(make_config("runtime.mode=asynchronous"), tmp_path / "run")
    still_open = open_files()
    assert error.traceback  # it holds the half-built trainer, which nobody can close any more
    assert (during.count(log), still_open.count(log)) == (1, 0)
    assert still_open.count(weights) == during.count(weights) - 1  # the mapping keeps a descriptor of its own


@pytest.mark.usefixtures("no_report")
def test_a_run_walks_its_phases_and_counts_what_it_consumed(make_config, tmp_path, capsys) -> None:
    path = tmp_path / "run"
    assert train(make_config("env.max_episode_steps=10", "evaluation.random_episodes=4"), path) == 0
    table = rows(path)
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
    episodes = rows(path, "episodes.csv")
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
    first = rows(tmp_path / "run")[0]  # the frames of the skipped update were played all the same
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
    table = rows(tmp_path / "run")
    told = {row["phase"]: float(row["boundary_kl"]) for row in table if row["boundary_kl"]}
    assert list(told) == ["transition"]
    assert 1e-9 < told["transition"] < 0.02
    scores = {row["phase"]: float(row["mean_episode_score"]) for row in table if row["mean_episode_score"]}
    assert abs(scores["transition"] - scores["warmup"]) < 5


@pytest.mark.usefixtures("no_report")
def test_a_run_keeps_replays_of_its_best_episodes(make_config, tmp_path) -> None:
    run = tmp_path / "run"
    assert train(make_config("monitoring.replays=3"), run) == 0
    best = sorted(int(row["score"]) for row in rows(run, "episodes.csv"))[-3:]
    replays = [Replay.load(path) for path in (run / "replays").iterdir()]
    assert sorted(replay.record["score"] for replay in replays) == best
    assert all(list(replay.play(("blstats",)))[-1].info["episode_record"]["score"] in best for replay in replays)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("policy.class=nowhere.Policy", "cannot import 'nowhere'"),
        ("policy.class=polybeast_moe.models.policy.GraphPolicy", "did you mean 'GraphMoEPolicy'"),
        ("graph={enabled: true, file: FOREIGN}", "FOREIGN"),
        ("phases.warmup.until.frames=-3", "phases.warmup.until.frames"),
    ],
)
def test_what_cannot_run_leaves_nothing(tiny_file, tmp_path, refused, override: str, wanted: str) -> None:
    foreign = tmp_path / "FOREIGN"
    foreign.write_text("not: a graph\n")
    line = ["train", str(tiny_file), "--run-dir", str(tmp_path / "run"), override.replace("FOREIGN", str(foreign))]
    assert wanted in refused(*line)
    assert not (tmp_path / "run").exists()


def test_a_folder_for_games_that_cannot_be_made_is_one_line(tiny_file, tmp_path, refused, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert "set TMPDIR" in refused("train", str(tiny_file), "--run-dir", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("mode", "number"), [("inline", signal.SIGTERM), ("asynchronous", signal.SIGINT)])
def test_a_signal_in_the_middle_leaves_a_snapshot_and_nothing_else(
    tiny_file, tmp_path, temporary, begin, mode: str, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    overrides = ["phases.transition.until.frames=100_000_000", "monitoring.every_seconds=0.05", f"runtime.mode={mode}"]
    overrides += ["graph.enabled=true", "runtime.actors=1", "runtime.policy_threads=1", "runtime.prefetch=true"]
    process = begin("train", tiny_file, "--run-dir", run, *overrides, TMPDIR=temporary)
    wait_until(lambda: rows(run), process)
    assert list(temporary.iterdir())
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to the whole foreground group
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, err
    assert f"polybeast-moe resume {run}" in out
    assert "Traceback" not in err
    assert of_session(process.pid) == []
    assert list(temporary.iterdir()) == []
    stopped = newest(run)
    assert stopped.state["kind"] == "signal"
    frames = stopped.state["counters"]["frames"]
    assert int(rows(run)[-1]["frames"]) == frames > 0
    if mode == "asynchronous":
        return
    assert cli.main(["resume", str(run), f"phases.transition.until.frames={frames + 500}"]) == 0
    assert int(rows(run)[-1]["frames"]) >= frames + 500
    assert (run / "report" / "index.html").exists()
