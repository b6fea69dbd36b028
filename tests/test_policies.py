"""Every kind of policy trains: the optional encoders, many experts, one expert, a policy of the user's own."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from torch import nn

from polybeast_moe import trainer
from polybeast_moe.models.policy import GraphMoEPolicy
from polybeast_moe.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = ("phases.warmup.until.frames=96", "phases.transition.until.frames=192", "graph.enabled=true")
MANY = f"policy.experts=[{', '.join(f'expert_{i}' for i in range(64))}]"


class DeepValue(GraphMoEPolicy):
    """The example of docs/policy.md."""

    def __init__(self, config, graph, *, num_actions):
        super().__init__(config, graph, num_actions=num_actions)
        features = self.value.in_features
        self.value = nn.Sequential(nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, 1))


@pytest.mark.parametrize(
    "overrides",
    [
        ("env.store_glyphs=true", "policy.full_map=true", "env.store_inventory=true", "policy.inventory=true"),
        ("policy.lstm=8", "env.store_inventory=true", "policy.inventory=true", "env.max_episode_steps=9"),
        (MANY, "policy.expert_execution=sparse"),
        ("policy.single_expert=equal_parameters",),
        (f"policy.class={__name__}.DeepValue",),
    ],
    ids=["map and inventory", "recurrent, truncated", "64 experts", "one expert", "own class"],
)
def test_it_trains(make_config, tmp_path: Path, monkeypatch, overrides: tuple[str, ...]) -> None:
    monkeypatch.setattr(trainer, "write_report", lambda path: path)
    config = make_config(*SHORT, *overrides)
    with RunDirectory.create(tmp_path / "run", config) as run:
        assert trainer.train(config, run) == 0
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["frames"]) == 192
    shares = [float(rows[-1][f"expert_{name}_share"]) for name in config.policy.expert_names]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert math.isfinite(float(rows[-1]["loss_total"]))
    assert float(rows[-1]["grad_norm"]) > 0
