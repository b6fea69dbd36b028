"""A run that was really trained, for a moment: what is evaluated, watched and measured here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from polybeast_moe import trainer
from polybeast_moe.config_files import load_config
from polybeast_moe.run_directory import RunDirectory

FEW = ("phases.transition.until.frames=288", "env.max_episode_steps=40")


def train(tiny_file: Path, path: Path, *overrides: str) -> Path:
    config = load_config(tiny_file, [*FEW, *overrides])
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, RunDirectory.create(path, config) as run:
        patch.setattr(trainer, "write_report", lambda path: path)  # figures take longer than the run
        patch.setattr(trainer, "print_phase_table", lambda rows: None)
        assert trainer.train(config, run) == 0
    torch.set_num_threads(before)
    return path


@pytest.fixture(scope="session")
def trained_run(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with snapshots of six updates: graph, four experts, sparsemax, masked actions."""
    masked = ("graph.enabled=true", "policy.action_mask=true")
    return train(tiny_file, tmp_path_factory.mktemp("runs") / "tiny", *masked)


@pytest.fixture(scope="session")
def recurrent_run(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose policy has a recurrent core and reads the map, its landmarks and the inventory."""
    more = ("policy.lstm=8", "policy.full_map=true", "policy.landmarks=true", "policy.inventory=true")
    stored = ("env.store_glyphs=true", "env.store_inventory=true")
    return train(tiny_file, tmp_path_factory.mktemp("runs") / "recurrent", *more, *stored)
