"""The device path on a GPU, against the CPU's: skipped where there is none. benchmarks/gpu_check.sh runs it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from whole_runs import resume, train

from polybeast_moe.config import RunConfig
from polybeast_moe.learning.learner import Learner
from polybeast_moe.learning.phases import ControllerState, Counters, advance
from polybeast_moe.models import Policy
from polybeast_moe.runtime.inference import Answer, make_infer
from polybeast_moe.runtime.inline import InlineRuntime
from polybeast_moe.runtime.loading import batch_on, make_feed
from polybeast_moe.runtime.rollouts import make_batch
from polybeast_moe.runtime.weights import SharedWeights
from polybeast_moe.snapshots.contents import capture
from polybeast_moe.snapshots.randomness import random_states, restore_random_states

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = torch.device("cuda", 0)
GRAPH = ("graph.enabled=true", "policy.mixture_backend=auto", "policy.lstm=4", "env.max_episode_steps=5")


@pytest.fixture
def played(make_config, make_policy, start_inline) -> tuple[RunConfig, Policy, InlineRuntime, list[Any]]:
    """A policy on the CPU and rollouts of its own, games truncated in them."""
    config = make_config(*GRAPH)
    policy = make_policy(config)
    runtime = start_inline(config, policy)
    return config, policy, runtime, runtime.collect()


def test_weights_go_from_the_gpu_to_whoever_plays() -> None:
    torch.manual_seed(0)
    learner, on_gpu, on_cpu = nn.Linear(300, 200).to(GPU), nn.Linear(300, 200).to(GPU), nn.Linear(300, 200)
    weights = SharedWeights.create(learner)
    readers = [(module, SharedWeights(module, weights.fd)) for module in (on_gpu, on_cpu)]
    for version in range(3):
        with torch.no_grad():
            learner.weight.add_(1.0)
        weights.publish(learner, version)
        for module, reader in readers:
            assert reader.load(module) == version
            assert torch.equal(module.weight.cpu(), learner.weight.cpu())


def test_a_snapshot_is_of_the_moment_in_which_it_is_taken() -> None:
    """Kernels that are still running come before the copy, the next update behind it."""
    weight = torch.zeros(1 << 20, device=GPU)
    for _ in range(200):
        weight.add_(1.0)
    contents = capture(0, {"weight": weight}, {"state": {0: {"step": weight}}}, {})
    weight.fill_(-1.0)
    for taken in (contents.weights["weight"], contents.optimizer["state"][0]["step"]):
        assert taken.device.type == "cpu"
        assert torch.equal(taken, torch.full((1 << 20,), 200.0))


def test_random_states_of_the_gpu_come_back() -> None:
    torch.zeros(1, device=GPU)
    states = random_states()
    assert len(states["cuda"]) == torch.cuda.device_count()
    drawn = torch.rand(8, device=GPU)
    restore_random_states(states)
    assert torch.equal(torch.rand(8, device=GPU), drawn)


def test_batches_are_the_same_over_pinned_memory(played) -> None:
    config, policy, runtime, rollouts = played
    expected, on_gpu = make_batch(rollouts), copy.deepcopy(policy).to(GPU)
    said: list[str] = []
    runtime.collect = lambda _interrupted: rollouts
    feed = make_feed(config, on_gpu, runtime, said.append)
    assert said == []
    assert rollouts[0]._memory.is_pinned()
    assert feed.collect() is rollouts
    batch = feed.batch()
    assert torch.equal(batch.observation.blstats.cpu(), expected.observation.blstats)
    assert torch.equal(batch.reward.cpu(), expected.reward)
    assert torch.equal(batch.final_game.cpu(), expected.final_game)
    assert batch.observation.graph_plan.number.device == GPU
    feed.close()
    assert not rollouts[0]._memory.is_pinned()


@pytest.mark.parametrize("execution", ["none", "cuda_graphs", "compile"])
def test_inference_answers_as_on_the_cpu(played, execution: str) -> None:
    config, policy, _, rollouts = played
    on_gpu = copy.deepcopy(policy).to(GPU)
    on_gpu.graph.deduplicate = execution == "none"
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"policy_graphs": execution})})
    infer = make_infer(on_gpu, config, 2)
    for t in range(6):
        games = 3 * (1 + t % 2)
        seen = make_batch(rollouts).observation
        seen = type(seen)(*(None if field is None else field[t * 6 : t * 6 + games] for field in seen))
        asked = {
            "routing": "softmax" if t % 3 else "sparsemax",
            "temperature": 0.5 + t,
            "first": torch.arange(games) == 0,
        }
        state = torch.randn(policy.initial_state(games).shape)
        answer, expected = infer(seen, state, **asked, weights_version=t), policy.infer(seen, state, **asked)
        for name in Answer._fields:
            torch.testing.assert_close(getattr(answer, name), getattr(expected, name), rtol=1e-2, atol=1e-3)
        with torch.no_grad():
            for ours, theirs in zip(on_gpu.parameters(), policy.parameters(), strict=True):
                ours.mul_(1.05)
                theirs.mul_(1.05)


@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16"}, {"compile": True}], ids=str)
def test_updates_learn_as_on_the_cpu(played, options: dict[str, Any]) -> None:
    config, policy, _, rollouts = played
    _, settings, _ = advance(config.phases, ControllerState(), Counters(), {})
    on_gpu = copy.deepcopy(policy).to(GPU)
    reports = []
    for where, chosen in ((policy, {}), (on_gpu, options)):
        learner = Learner(where, config.learner.model_copy(update=chosen))
        batch = make_batch(rollouts) if where is policy else batch_on(GPU, rollouts, on_gpu)
        reports.append([learner.update(batch, settings).diagnostics for _ in range(2)])
    tolerance = 0.1 if options.get("precision") else 1e-2
    for ours, expected in zip(*reports, strict=True):
        assert ours["loss_total"] == pytest.approx(expected["loss_total"], rel=tolerance, abs=tolerance)
        assert ours["grad_norm"] == pytest.approx(expected["grad_norm"], rel=tolerance)


@pytest.mark.parametrize(
    "overrides",
    [("runtime.mode=inline",), ("runtime.policy_graphs=none",), ("runtime.policy_graphs=cuda_graphs",)],
    ids=lambda overrides: overrides[0],
)
def test_whole_runs_train_snapshot_and_go_on(
    make_config: Callable[..., RunConfig], tmp_path: Path, no_report, overrides: tuple[str, ...]
) -> None:
    config = make_config(*GRAPH, "runtime.mode=asynchronous", "runtime.actors=1", "runtime.device=cuda", *overrides)
    assert train(config, tmp_path / "run") == 0
    assert resume(tmp_path / "run", "phases.transition.until.frames=720") == 0
    assert "died" not in (tmp_path / "run" / "run.log").read_text()
