"""A resume goes on where the snapshot was taken: exactly where it can, and told where it cannot."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import torch
from run_files import events, newest, rows
from whole_runs import FRAMES, measured, resume, same_weights, stop_after, train

from polybeast_moe import cli, trainer
from polybeast_moe.learning import live_changes
from polybeast_moe.run_directory import RunDirectory
from polybeast_moe.runtime.inline import InlineRuntime
from polybeast_moe.runtime.policy_server import PolicyServer
from polybeast_moe.snapshots import load

pytestmark = pytest.mark.usefixtures("no_report", "temporary")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_resumed_run_goes_on_without_gap_or_repeat(make_config, tmp_path, monkeypatch, number) -> None:
    path = tmp_path / "run"
    config = make_config("env.max_episode_steps=9", "policy.lstm=4", "phases.transition.until.frames=960")
    with monkeypatch.context() as patch:
        stop_after(patch, 8, number)
        assert train(config, path) == 128 + number
    stopped = newest(path)
    assert stopped.state["kind"] == "signal"
    assert stopped.state["counters"]["frames"] == 8 * FRAMES
    before = rows(path), rows(path, "episodes.csv"), events(path)
    with (path / "metrics.csv").open("a") as file:  # what was written after the snapshot, had there been a crash
        file.write("480,torn")
    assert resume(path) == 0

    table, episodes = rows(path), rows(path, "episodes.csv")
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
    lengths = [int(episode["length"]) for episode in rows(whole, "episodes.csv")]
    assert max(lengths) > 2 * 8, "no episode was cut by a stop"


def test_games_that_cannot_be_played_again_begin_new_episodes(make_config, tmp_path, monkeypatch, capsys) -> None:
    """Longer than is kept, or under another character: told, and no seed comes twice."""
    for number, override in enumerate(["snapshots.replay_steps=5", "env.character=val-hum-law-fem"]):
        path = tmp_path / str(number)
        with monkeypatch.context() as patch:
            stop_after(patch, 3)
            train(make_config("snapshots.replay_steps=5" if number == 0 else "seed=1"), path)
        assert resume(path, override) == 0
        assert "6 games could not be played on and begin new episodes" in capsys.readouterr().out
        seeds = [row["seed_core"] for row in rows(path, "episodes.csv")]
        assert len(set(seeds)) == len(seeds)


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


def test_a_finished_run_resumes_into_a_longer_curriculum(make_config, tmp_path) -> None:
    path = tmp_path / "run"
    assert train(make_config("env.max_episode_steps=9"), path) == 0
    assert resume(path) == 0  # nothing left to do
    assert [int(row["frames"]) for row in rows(path)] == [240, 480]
    assert resume(path, "phases.transition.until.frames=720") == 0
    assert [int(row["frames"]) for row in rows(path)] == [240, 480, 720]
    seeds = [row["seed_core"] for row in rows(path, "episodes.csv")]
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


def test_what_an_operator_changed_survives_a_death_before_the_next_snapshot(make_config, tmp_path, monkeypatch) -> None:
    """A value that was held, and a key of the configuration that a resume has changed: in force, and an event still."""
    path = tmp_path / "run"
    hold = live_changes.hold("losses.entropy", 0.125, lambda overrides: None)
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


def test_a_run_that_an_operator_ended_is_complete_until_its_end_is_changed(
    make_config, tmp_path, monkeypatch, capsys
) -> None:
    path = tmp_path / "run"
    between_updates(monkeypatch, at_7=lambda it: it.change(live_changes.next_phase()))
    assert train(make_config(), path) == 0
    capsys.readouterr()
    assert resume(path) == 0
    assert "the run is complete" in capsys.readouterr().out
    assert newest(path).state["counters"]["frames"] == 6 * FRAMES
    assert resume(path, "phases.transition.until.frames=432") == 0
    assert newest(path).state["counters"]["frames"] == 432


def test_a_stop_before_the_first_update_can_be_resumed(make_config, tmp_path, monkeypatch) -> None:
    path = tmp_path / "run"
    genuine = InlineRuntime.collect
    with monkeypatch.context() as patch:
        patch.setattr(InlineRuntime, "collect", lambda self, stop: os.kill(os.getpid(), 15) or genuine(self, stop))
        assert train(make_config(), path) == 143
    assert newest(path).state["counters"]["frames"] == 0
    assert resume(path) == 0
    assert [int(row["frames"]) for row in rows(path)] == [240, 480]


def test_weights_of_another_network_are_refused_in_one_line(tiny_file, tmp_path, refused, monkeypatch) -> None:
    """The policy's own code, or the graph's file, has changed under its name since the run began."""
    run = str(tmp_path / "run")
    stop_after(monkeypatch, 1)
    assert cli.main(["train", str(tiny_file), "--run-dir", run]) == 143
    genuine = trainer.build_policy
    monkeypatch.setattr(
        trainer, "build_policy", lambda config, graph, num_actions: genuine(config, graph, num_actions=2)
    )
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    assert "its weights are of another network" in refused("resume", run)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
