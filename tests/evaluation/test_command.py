"""The command `evaluate`: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polybeast_moe import cli
from polybeast_moe.config.env import CHARACTER_ROLES
from polybeast_moe.evaluation.draws import episode_seeds
from polybeast_moe.evaluation.trained import load_trained
from polybeast_moe.snapshots import find_snapshot, load, save
from polybeast_moe.snapshots.directory import all_snapshots


def evaluate(*argv: object) -> int:
    return cli.main(["evaluate", *map(str, argv)])


def evaluated(path: Path, *argv: object) -> dict:
    assert evaluate(*argv, "--json", path) == 0
    return json.loads(path.read_text())


def test_json_has_every_figure_and_every_episode(trained_run, tmp_path, capsys) -> None:
    found = evaluated(tmp_path / "a.json", trained_run, "--episodes", 5, "--seed", 8)
    contract = {"episodes", "mean_score", "standard_error", "median_score", "mean_return", "mean_length", "seed"}
    assert contract <= found.keys()
    assert (found["episodes"], found["seed"]) == (5, 8)
    assert [record["seed_core"] for record in found["records"]] == [episode_seeds(8, i)[0] for i in range(5)]
    assert found["mean_score"] == pytest.approx(sum(record["score"] for record in found["records"]) / 5)
    state = json.loads((all_snapshots(trained_run / "snapshots")[-1] / "state.json").read_text())
    in_force = state["controller"]["settings"]
    assert (found["routing"], found["temperature"], found["phase"]) == (
        in_force["routing"],
        in_force["temperature"],
        "transition",
    )
    assert found["env"]["max_episode_steps"] == 40
    out = capsys.readouterr().out
    assert f"tiny/{found['trained_frames']}" in out
    assert max(map(len, out.splitlines())) <= 100
    assert not list(tmp_path.glob(".*.json.*"))


def test_the_same_seed_gives_the_same_figures_and_none_a_fresh_one(trained_run, tmp_path) -> None:
    once, again = (evaluated(tmp_path / name, trained_run, "--episodes", 3, "--seed", 5) for name in ("a", "b"))
    assert once["records"] == again["records"]
    fresh, other = (evaluated(tmp_path / name, trained_run, "--episodes", 2) for name in ("c", "d"))
    assert fresh["seed"] != other["seed"]
    replayed = evaluated(tmp_path / "e", trained_run, "--episodes", 2, "--seed", fresh["seed"])
    assert replayed["records"] == fresh["records"]


def test_several_snapshots_share_a_table_and_their_games(trained_run, recurrent_run, tmp_path, capsys) -> None:
    first = all_snapshots(trained_run / "snapshots")[0]
    found = evaluated(tmp_path / "a.json", trained_run, first, recurrent_run, "--episodes", 3, "--seed", 2)
    names = [one["name"] for one in found["evaluations"]]
    assert len(set(names)) == 3
    table = capsys.readouterr().out.split("\n\n")[0]
    assert all(name in table for name in names)
    seeds = [[record["seed_core"] for record in one["records"]] for one in found["evaluations"]]
    assert seeds[0] == seeds[1] == seeds[2]


def test_random_play_under_a_runs_protocol(trained_run, tmp_path) -> None:
    found = evaluated(tmp_path / "a.json", trained_run, "--policy", "random", "--episodes", 6, "--seed", 2)
    assert found["policy"] == "random"
    assert found["env"]["max_episode_steps"] == 40
    assert "expert_shares" not in found
    alone = evaluated(tmp_path / "b.json", "--policy", "random", "--episodes", 2, "--max-steps", 30)
    assert alone["mean_length"] <= 30


def test_every_role_can_be_played(trained_run, tmp_path) -> None:
    found = evaluated(tmp_path / "a.json", trained_run, "--episodes", 1, "--character", "all", "--seed", 1)
    assert [one["env"]["character"] for one in found["evaluations"]] == CHARACTER_ROLES
    assert len({one["records"][0]["return"] for one in found["evaluations"]}) > 2


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], "name a run directory or a snapshot"),
        (["nowhere"], "nowhere: neither a run directory nor a snapshot"),
        (["."], "not a snapshot, it has no manifest.json"),
        (["RUN", "--episodes", "0"], "--episodes must be at least 1"),
        (["RUN", "--seed", "-1"], "--seed must be"),
        (["RUN", "--character", "monk"], "--character: 'monk' is no character"),
        (["RUN", "--max-steps", "0"], "--max-steps: "),
        (["RUN", "--json", "no/where.json"], "no/where.json: there is no such folder"),
        (["RUN", "--policy", "best"], "invalid choice: 'best'"),
    ],
)
def test_mistakes_are_told_before_anything_is_played(trained_run, tmp_path, monkeypatch, refused, argv, wanted) -> None:
    monkeypatch.chdir(tmp_path)
    assert wanted in refused("evaluate", *(str(trained_run) if word == "RUN" else word for word in argv))
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_snapshot_is_refused(tmp_path, refused) -> None:
    (tmp_path / "config.yaml").write_text("phases: []")
    assert "no good snapshot" in refused("evaluate", str(tmp_path))


def test_weights_of_another_graph_are_refused(trained_run, tmp_path, refused) -> None:
    before = load(find_snapshot(trained_run))
    state = {**before.state, "graph": "another file's"}
    other = save(tmp_path, before.state["counters"]["frames"], before.weights, before.optimizer, state)
    assert "the knowledge graph has changed since" in refused("evaluate", str(other))


def test_a_policy_can_play_under_another_configuration(trained_run) -> None:
    trained = load_trained(trained_run, ["env.max_episode_steps=7"])
    assert trained.config.env.max_episode_steps == 7
    assert trained.frames == load_trained(trained_run).frames


def test_a_policy_comes_back_with_its_weights_and_settings(trained_run) -> None:
    path = all_snapshots(trained_run / "snapshots")[0]
    trained = load_trained(path)
    assert (trained.path, trained.frames) == (path, int(path.name.removeprefix("step-")))
    assert trained.routing == "sparsemax"
    assert 0.5 <= trained.temperature <= 1.0
    assert trained.config.env.max_episode_steps == 40
    assert load_trained(trained_run).frames == 288


def test_specialisation_and_ablation_are_told_on_demand(trained_run, tmp_path, capsys) -> None:
    found = evaluated(tmp_path / "a.json", trained_run, "--episodes", 2, "--seed", 1, "--ablate", "--games", 2)
    out = capsys.readouterr().out
    assert {"scene_information", "dominant_shares", "jensen_shannon"} <= found["specialisation"].keys()
    assert len(found["ablations"]) == 7
    for name, figures in found["ablations"].items():
        assert name in out
        assert {"score_lost", "perturbation", "beyond_perturbation", "divergence"} <= figures.keys()
    plain = evaluated(tmp_path / "b.json", trained_run, "--episodes", 2, "--seed", 1, "--games", 2)
    assert "specialisation" not in plain
    scores = [[record["score"] for record in one["records"]] for one in (plain, found)]
    assert scores[0] == scores[1]  # that all experts run does not change what is played


def test_random_play_has_no_experts_to_measure(trained_run, refused) -> None:
    assert "random has no experts" in refused("evaluate", str(trained_run), "--policy", "random", "--ablate")
