"""What experts do and what the graph attends to, recomputed from single moments; and how the report shows it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from polybeast_moe import cli
from polybeast_moe.config_files import load_config
from polybeast_moe.envs.engine import ACTION_LABELS, ACTION_NAMES
from polybeast_moe.evaluation.portraits import ExpertPortraits
from polybeast_moe.evaluation.report import write_report
from polybeast_moe.evaluation.report_data import read_run
from polybeast_moe.evaluation.report_experts import expert_sections
from polybeast_moe.graph.configured import configured_graph
from polybeast_moe.models import build_policy


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a moment, evaluated with everything that there is about its experts."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    short = ["phases.warmup.until.frames=256", "phases.transition.until.frames=512", "phases.finetune.until.frames=768"]
    short += ["phases.deep_finetune.until.frames=1024", "env.max_episode_steps=40", "runtime.mode=inline"]
    assert cli.main(["train", "debug", "--run-dir", str(path), *short, "evaluation.random_episodes=0"]) == 0
    words = ["--episodes", "6", "--seed", "1", "--games", "6", "--specialisation", "--ablate"]
    assert cli.main(["evaluate", str(path), *words, "--json", str(path / "specialisation.json")]) == 0
    return path


def test_actions_are_weighted_by_the_experts_weights_and_operators_averaged_by_scene() -> None:
    config = load_config("debug")
    torch.manual_seed(0)
    policy = build_policy(config, configured_graph(config), num_actions=len(ACTION_NAMES))
    portraits = ExpertPortraits(policy, config)
    rows, experts = 5, len(config.policy.experts)
    alpha = torch.rand(rows, experts, dtype=torch.float64)
    alpha[:, -1] = 0.0
    logits = torch.randn(rows, experts, len(ACTION_NAMES), dtype=torch.float64)
    blstats = np.zeros((rows, 27), dtype=np.int64)
    blstats[:, 10:12] = 10
    blstats[:2, 10] = 1  # close to death: the scene survival
    words = torch.randint(2**62, (rows, 4))
    moment: Any = SimpleNamespace(
        output=SimpleNamespace(alpha=alpha, expert_logits=logits),
        observation=SimpleNamespace(conditions=words),
        rows=SimpleNamespace(raw={"blstats": blstats, "glyphs": np.full((rows, 21, 79), 2359)}),
    )
    portraits(moment)
    found = portraits.figures()

    assert list(found["expert_actions"]) == list(config.policy.experts[:-1])  # the last one never had any weight
    first = (alpha[:, 0, None] * logits[:, 0].softmax(-1)).sum(0) / alpha[:, 0].sum()
    assert list(found["expert_actions"]["survival"].values()) == pytest.approx(first.tolist())
    assert set(found["scene_operators"]) == {"survival", "general"}
    for share in found["scene_operators"].values():
        assert sum(share.values()) == pytest.approx(1.0)
    assert policy.graph is not None
    attention = policy.graph.operator_attention(words).mean(1)
    assert list(found["scene_operators"]["survival"].values()) == pytest.approx(
        attention[:2].mean(0).tolist(), rel=1e-4
    )


def test_attention_to_operators_is_what_the_readout_uses() -> None:
    config = load_config("debug")
    torch.manual_seed(1)
    policy = build_policy(config, configured_graph(config), num_actions=len(ACTION_NAMES))
    stream = policy.graph
    words = torch.randint(2**62, (7, 4))
    with torch.no_grad():
        attention = stream.operator_attention(words)
        operators = stream.attention(stream.conditions.relevant(words))
        states = operators.states[operators.row].view(7, -1, stream.heads, stream.hidden // stream.heads)
        read = torch.einsum("nho,nohd->nhd", attention, states).flatten(1)
        torch.testing.assert_close(read, stream(words).intent, rtol=1e-4, atol=1e-5)


def test_every_action_has_a_name_of_its_own() -> None:
    assert len(set(ACTION_LABELS)) == len(ACTION_NAMES)
    assert {"N", "run N"} <= set(ACTION_LABELS)


def test_the_report_shows_what_the_evaluation_found(run_dir: Path) -> None:
    page = write_report(run_dir).read_text()
    for title in ("Experts by scene", "What each expert does", "Most active operators", "What is lost without them"):
        assert f"<h2>{title}</h2>" in page
    figures = json.loads((run_dir / "specialisation.json").read_text())
    matrix = figures["specialisation"]["scene_expert_matrix"]
    markdown = (run_dir / "report" / "report.md").read_text()
    for row in matrix.values():
        assert all(f"{value:.3f}" in markdown for value in row.values())
    for name in ("scene_experts", "expert_actions", "operators", "ablations"):
        assert (run_dir / "report" / f"{name}.png").stat().st_size > 5000


def test_without_an_evaluation_or_with_a_part_of_one_the_rest_is_left_out(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert expert_sections(read_run(tmp_path)) == []
    (tmp_path / "specialisation.json").write_text("{broken")
    assert expert_sections(read_run(tmp_path)) == []
    figures = json.loads((run_dir / "specialisation.json").read_text())
    figures.pop("ablations")
    figures["specialisation"].pop("scene_operators")
    (tmp_path / "specialisation.json").write_text(json.dumps({"seed": 1, "evaluations": [figures]}))
    titles = [section.title for section in expert_sections(read_run(tmp_path))]
    assert titles == ["Experts by scene", "What each expert does"]
