"""benchmarks/play.py records what a run's newest snapshot plays, also under other settings than the run's own."""

from __future__ import annotations

from pathlib import Path

import torch
from nle import nethack
from scripts import BENCHMARKS, carried_out, ends_well
from whole_runs import train

PLAY = BENCHMARKS / "play.py"
ROWS = 64 * 32 * 2


def test_it_records_the_newest_snapshots_play(make_config, tmp_path: Path, no_report) -> None:
    config = make_config("policy.lstm=4", "graph.enabled=true", "phases.transition.until.frames=288")
    assert train(config, tmp_path / "run") == 0
    out = tmp_path / "played.pt"
    settings = ("env.max_episode_steps=5000", 'env.character="@"')
    words = ["--run", tmp_path / "run", "--rows", ROWS, "--every", 2, "--out", out, *settings]
    ends_well(carried_out(tmp_path, PLAY, *words))
    played = torch.load(out, weights_only=True)
    assert {name: len(rows) for name, rows in played.items()} == dict.fromkeys(played, ROWS)
    assert {"glyph_crop", "blstats", "conditions", "previous_action", "message"} == set(played)
    times = played["blstats"][:, nethack.NLE_BL_TIME].view(2, 32, 64)
    assert (times[:, 1:] >= times[:, :-1]).float().mean() > 0.9  # the steps of a game follow each other
    assert (times[1, 0] - times[0, -1]).float().median() > 5  # a stretch was left out
    assert len(played["blstats"][:, nethack.NLE_BL_ALIGN].unique()) == 3  # the run's own Monk is neutral


def test_a_run_without_a_snapshot_is_refused(tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(tiny_file.read_bytes())
    done = carried_out(tmp_path, PLAY, "--run", tmp_path, "--out", tmp_path / "x.pt")
    assert done.returncode == 2
    assert "no good snapshot" in done.stderr
    assert not (tmp_path / "x.pt").exists()
