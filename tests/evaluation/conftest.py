"""A run that was really trained, for a moment: what is evaluated, watched and measured here."""

from __future__ import annotations

from pathlib import Path

import pytest
from whole_runs import train

from polybeast_moe import trainer
from polybeast_moe.config import RunConfig

FEW = ("phases.transition.until.frames=288", "env.max_episode_steps=40")


def trained(config: RunConfig, path: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_report", lambda path: path)  # figures take longer than the run
        patch.setattr(trainer, "print_phase_table", lambda rows: None)
        assert train(config, path) == 0
    return path


@pytest.fixture(scope="session")
def trained_run(make_config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with snapshots of six updates: graph, four experts, sparsemax, masked actions."""
    masked = ("graph.enabled=true", "policy.action_mask=true")
    return trained(make_config(*FEW, *masked), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def recurrent_run(make_config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose policy has a recurrent core and reads the map, its landmarks and the inventory."""
    more = ("policy.lstm=8", "policy.full_map=true", "policy.landmarks=true", "policy.inventory=true")
    stored = ("env.store_glyphs=true", "env.store_inventory=true")
    return trained(make_config(*FEW, *more, *stored), tmp_path_factory.mktemp("runs") / "recurrent")
