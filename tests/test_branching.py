"""Runs that begin with another run's snapshot, and what a resume refuses, reads and records."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import events, newest, newest_path, rows

from polybeast_moe import cli, trainer
from polybeast_moe.config_files import load_config
from polybeast_moe.learning.phases import Counters
from polybeast_moe.snapshots import load
from polybeast_moe.snapshots.directory import all_snapshots

pytestmark = pytest.mark.usefixtures("no_report")

DEEP = """\
phases:
  - {name: deep, until: {frames: 720}, routing: sparsemax, temperature: {target_alpha_entropy: 0.4}}
"""


@pytest.fixture(scope="module")
def trained_once(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ended") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_report", lambda path: path)
        assert cli.main(["train", str(tiny_file), "--run-dir", str(path), "policy.lstm=4", "seed=3"]) == 0
    return path


@pytest.fixture
def ended(trained_once: Path, tmp_path: Path) -> Path:
    """A run that has walked both of its phases, the test's own."""
    return Path(shutil.copytree(trained_once, tmp_path / "first"))


def test_one_command_fine_tunes_the_end_of_another_run(ended: Path, tmp_path: Path) -> None:
    """A file of phases alone: the rest is as the snapshot's run had it, and everything goes on from there."""
    deep, run = tmp_path / "deep.yaml", tmp_path / "second"
    deep.write_text(DEEP)
    assert cli.main(["train", str(deep), "--from", str(newest_path(ended)), "--run-dir", str(run)]) == 0
    config = load_config(run / "config.yaml")
    assert (config.policy.lstm, config.seed, config.env.max_episode_steps) == (4, 3, 30)
    assert [phase.name for phase in config.phases] == ["deep"]
    assert [int(row["frames"]) for row in rows(run)] == [720]
    before, after = newest(ended), newest(run)
    assert after.state["counters"]["updates"] == 15
    assert {int(state["step"]) for state in after.optimizer["state"].values()} == {15}
    told = events(run)
    assert (told[0]["key"], told[0]["new"], told[0]["by"]) == ("origin", str(newest_path(ended)), "operator")
    assert (told[0]["frames"], told[1]["key"], told[1]["new"]) == (480, "phase", "deep")
    in_force = before.state["controller"]["settings"]["temperature"]
    left = next(event for event in told if event["key"] == "temperature")
    assert (left["old"], left["new"]) == (in_force, "alpha entropy target 0.4"), (
        "the loop begins at the last temperature"
    )
    assert int(rows(run, "episodes.csv")[0]["episode"]) == before.state["counters"]["episodes"] + 1


def test_the_bundled_deep_finetune_goes_on_from_a_phase_three(ended: Path, tmp_path: Path) -> None:
    run = tmp_path / "deep"
    until = "phases.deep_finetune.until={frames: 576}"
    assert cli.main(["train", "phases/deep_finetune", "--from", str(ended), "--run-dir", str(run), until]) == 0
    assert int(rows(run)[-1]["frames"]) == 576


def test_weights_alone_begin_a_run_of_their_own(ended: Path, tiny_file: Path, tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "weights"
    begun: list[dict[str, torch.Tensor]] = []
    genuine = trainer.Trainer.run

    def noted(self, stop):
        begun.append({name: value.clone() for name, value in self._policy.state_dict().items()})
        assert self._counters == Counters()
        genuine(self, stop)

    monkeypatch.setattr(trainer.Trainer, "run", noted)
    line = ["train", str(tiny_file), "--from-weights", str(newest_path(ended)), "--run-dir", str(run), "policy.lstm=4"]
    assert cli.main(line) == 0
    assert all(torch.equal(value, begun[0][name]) for name, value in newest(ended).weights.items())
    assert [int(row["frames"]) for row in rows(run)] == [240, 480]
    assert events(run)[0]["new"] == f"weights of {newest_path(ended)}"


def test_what_does_not_fit_a_snapshot_leaves_nothing(ended: Path, tiny_file: Path, tmp_path: Path, refused) -> None:
    new = ["--run-dir", str(tmp_path / "new")]
    line = ["train", str(tiny_file), "--from", str(newest_path(ended)), *new]
    assert "policy.lstm cannot change" in refused(*line, "policy.lstm=8")
    assert "480 frames and" in refused(*line)  # both phases are over
    assert "there is no such directory" in refused("train", str(tiny_file), "--from", str(tmp_path / "nowhere"), *new)
    (newest_path(ended) / "state.json").write_text("{}")
    assert "state.json" in refused(*line)
    assert not (tmp_path / "new").exists()


def rewrite(snapshot: Path, state: dict[str, Any], number: int = 2) -> None:
    """Writes a state with a manifest that fits: whoever did it knew how."""
    text = json.dumps(state).encode()
    (snapshot / "state.json").write_bytes(text)
    manifest = json.loads((snapshot / "manifest.json").read_text())
    manifest["files"]["state.json"] = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
    (snapshot / "manifest.json").write_text(json.dumps({**manifest, "format": number}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: {},
        lambda state: {**state, "counters": {"frames": "many"}},
        lambda state: {**state, "controller": []},
        lambda state: {**state, "metrics_window": None},
        lambda state: {**state, "random": {"torch": "!"}},
        lambda state: {**state, "sinks": {"csv": {}}},
    ],
)
def test_a_state_by_hand_is_refused_in_one_line_and_nothing_changes(ended: Path, refused, damage) -> None:
    rewrite(newest_path(ended), damage(newest(ended).state))
    before = {path: path.read_bytes() for path in ended.rglob("*") if path.is_file() and path.name != ".lock"}
    line = refused("resume", str(ended))
    assert "its state is not a run's" in line or "the snapshot records no length" in line
    assert {path: path.read_bytes() for path in ended.rglob("*") if path.is_file() and path.name != ".lock"} == before


@pytest.mark.parametrize("games", [None, [], [[{"seeds": 1}]], [["x"] * 3] * 2, [[{"next_episode": -1}] * 3] * 2])
def test_games_by_hand_begin_anew(ended: Path, capsys, games) -> None:
    state = newest(ended).state
    rewrite(newest_path(ended), {**state, "runtime": {**state["runtime"], "games": games}})
    assert cli.main(["resume", str(ended), "phases.transition.until.frames=528"]) == 0
    assert "new episodes" in capsys.readouterr().out
    assert int(rows(ended)[-1]["frames"]) == 528


def test_another_graph_under_the_same_name_is_refused(tiny_file: Path, tmp_path: Path, refused) -> None:
    graph, run = tmp_path / "graph.yaml", tmp_path / "run"
    shutil.copy(Path(__file__).parents[1] / "configs" / "graphs" / "nethack.yaml", graph)
    options = ["graph.enabled=true", f"graph.file={graph}", "phases.transition.until.frames=288"]
    assert cli.main(["train", str(tiny_file), "--run-dir", str(run), *options]) == 0
    graph.write_text("# the same graph\n" + graph.read_text())
    assert cli.main(["resume", str(run), "phases.transition.until.frames=336"]) == 0
    text = graph.read_text()
    assert text.count("expert: combat") > 1
    graph.write_text(text.replace("expert: combat", "expert: survival", 1))
    assert "the knowledge graph has changed" in refused("resume", str(run))


def test_overrides_of_a_resume_are_recorded(ended: Path) -> None:
    changes = [
        "phases.transition.until.frames=528",
        "monitoring.every_seconds=7",
        "phases.transition.learning_rate=1e-5",
    ]
    assert cli.main(["resume", str(ended), *changes]) == 0
    by_hand = {event["key"]: (event["old"], event["new"]) for event in events(ended) if event["by"] == "operator"}
    assert by_hand["phases.transition.until.frames"] == (480, 528)
    assert by_hand["monitoring.every_seconds"] == (1000.0, 7.0)
    assert by_hand["phases.transition.learning_rate"] == (5e-4, 1e-5)
    assert by_hand["learning_rate"] == (5e-4, 1e-5)


@pytest.mark.parametrize("number", [1, 3])
def test_a_snapshot_of_another_format_is_refused_by_its_number(
    ended: Path, tiny_file: Path, tmp_path: Path, refused, number: int
) -> None:
    rewrite(newest_path(ended), newest(ended).state, number)
    line = ["train", str(tiny_file), "--from", str(newest_path(ended)), "--run-dir", str(tmp_path / "new")]
    assert f"format {number} is unknown (this version reads 2)" in refused(*line, "policy.lstm=4")
    assert not (tmp_path / "new").exists()


def test_the_newest_good_one_is_taken_and_the_others_are_named(ended: Path, capsys) -> None:
    older, newer = all_snapshots(ended / "snapshots")
    os.truncate(newer / "weights.safetensors", 10)
    capsys.readouterr()
    assert cli.main(["resume", str(ended)]) == 0
    assert f"snapshot {newer} passed over: weights.safetensors has 10 bytes" in capsys.readouterr().err
    assert older.exists()
    assert load(newer).state["counters"]["frames"] == 480
