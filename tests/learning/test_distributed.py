"""Ranks that learn together: real processes under torchrun, joined by Gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_program import make_learner
from torch._C._distributed_c10d import TCPStore

from polybeast_moe.config import RunConfig
from polybeast_moe.learning import losses
from polybeast_moe.learning.distributed import _FAILURE, ALONE, Ranks, joined
from polybeast_moe.learning.phases import ControllerState, Counters, LossSettings, Settings, advance
from polybeast_moe.runtime.rollouts import Rollout, make_batch

pytestmark = pytest.mark.timeout(900)  # several processes import torch

PROGRAM = Path(__file__).with_name("ranks_program.py")
EXPERTS = 16
CHANGES = (
    "graph.enabled=true",
    "runtime.groups=4",
    "learner.slots_per_batch=4",
    "env.max_episode_steps=9",
    "policy.lstm=4",
    "policy.expert_execution=sparse",
    f"policy.experts=[{', '.join(f'expert_{i}' for i in range(EXPERTS))}]",
    "learner.reward.normalise=true",
    "learner.optimizer.eps=0.01",  # else Adam makes whole steps of what rounding leaves of a gradient
)


def torchrun(size: int, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    command += [f"--log-dir={folder / 'torchrun'}", PROGRAM]  # a folder of its own would stay
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run([*command, folder], capture_output=True, text=True, env=environment)


@pytest.fixture
def recorded(make_config, make_policy, start_inline):
    """A configuration, and the rollouts of three updates."""
    config = make_config(*CHANGES)
    runtime = start_inline(config, make_policy(make_config(*CHANGES, "graph.enabled=false")))
    kept: list[list[Rollout]] = []
    for _ in range(3):
        rollouts = runtime.collect()
        kept.append([_copy(rollout) for rollout in rollouts])
        runtime.give_back(rollouts)
    assert sum(int(rollout["final_count"][0]) for rollouts in kept for rollout in rollouts) > 4
    return config, kept


def _copy(rollout: Rollout) -> Rollout:
    copy = object.__new__(Rollout)
    copy.slot, copy.fields = rollout.slot, {name: value.clone() for name, value in rollout.fields.items()}
    return copy


def settings_of(config: RunConfig) -> list[Settings]:
    """Sharp routing, so that some experts are idle on some rank; a weight on every loss; values that change.

    Two losses compare experts, for which all have to run: the first update does without them.
    """
    _, first, _ = advance(config.phases, ControllerState(), Counters(), {})
    every = LossSettings(**{loss.name: 0.3 for loss in fields(LossSettings)})
    without = replace(every, expert_diversity=0.0, semantic_orthogonality=0.0)
    return [
        replace(first, routing="sparsemax", temperature=temperature, learning_rate=rate, losses=losses)
        for temperature, rate, losses in ((0.05, 1e-2, without), (0.1, 2e-2, every), (0.02, 1e-2, every))
    ]


def write(folder: Path, config: RunConfig, updates: list[dict[str, Any]]) -> None:
    torch.save({"config": config.to_plain(), "updates": updates}, folder / "recorded.pt")


def dealt(rollouts: list[Rollout], size: int) -> list[Any]:
    each = len(rollouts) // size
    return [(make_batch(rollouts[i * each : (i + 1) * each]), 1 / size) for i in range(size)]


def assert_same(found: dict[str, Any], policy: torch.nn.Module, norms: list[float]) -> None:
    assert found["norms"] == pytest.approx(norms, rel=1e-4)
    for name, expected in policy.state_dict().items():
        torch.testing.assert_close(found["weights"][name], expected, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_with_parts_of_a_batch_equal_one_rank_with_all_of_it(recorded, tmp_path: Path, size: int) -> None:
    """Every loss and every mean over a batch, idle experts, a recurrent core, truncated games, three steps of Adam."""
    config, rollouts = recorded
    settings = settings_of(config)
    updates = [{"settings": s, "parts": dealt(r, size)} for s, r in zip(settings, rollouts, strict=True)]
    write(tmp_path, config, updates)
    done = torchrun(size, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]

    policy, learner = make_learner(config, ALONE, seed=0)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    alpha = policy(updates[0]["parts"][0][0].observation, updates[0]["parts"][0][0].initial_state,
                   first=updates[0]["parts"][0][0].first, temperature=0.05).alpha  # fmt: skip
    assert (alpha.sum(0) == 0).any(), "no expert is idle on rank 0: the test is too easy"
    norms = [learner.update(make_batch(r), s).diagnostics["grad_norm"] for s, r in zip(settings, rollouts, strict=True)]
    assert max((policy.state_dict()[name] - value).abs().max() for name, value in before.items()) > 1e-2
    ranks = [torch.load(tmp_path / f"rank-{i}.pt", weights_only=True) for i in range(size)]
    for found in ranks:
        assert_same(found, policy, norms)
        assert all(torch.equal(found["weights"][name], ranks[0]["weights"][name]) for name in before)

    said = [json.loads((tmp_path / f"rank-{i}.json").read_text()) for i in range(size)]
    assert all(one["everyone"] == [10 * i for i in range(size)] for one in said)
    assert all(one["from_lead"] == "said by 0" for one in said)
    assert [one["to_lead"] for one in said] == [[*range(size)], *([[]] * (size - 1))]
    assert said[0]["seed"] == 7
    assert len({one["seed"] for one in said}) == size


def test_shares_weigh_unequal_batches_and_a_rank_without_one_changes_nothing(recorded, tmp_path: Path) -> None:
    """Three rollouts against one; then everything on rank 0; then everything on rank 1."""
    config, rollouts = recorded
    settings = settings_of(config)
    parts = [
        [(make_batch(rollouts[0][:3]), 0.75), (make_batch(rollouts[0][3:]), 0.25)],
        [(make_batch(rollouts[1]), 1.0), (None, 0.0)],
        [(None, 0.0), (make_batch(rollouts[2]), 1.0)],
    ]
    write(tmp_path, config, [{"settings": s, "parts": p} for s, p in zip(settings, parts, strict=True)])
    (tmp_path / "fail").touch()
    done = torchrun(2, tmp_path)
    policy, learner = make_learner(config, ALONE, seed=0)
    norms = [learner.update(make_batch(r), s).diagnostics["grad_norm"] for s, r in zip(settings, rollouts, strict=True)]
    for i in range(2):
        assert_same(torch.load(tmp_path / f"rank-{i}.pt", weights_only=True), policy, norms)

    # And then rank 1 failed, on purpose: everybody ends, and the reason is there to be read.
    assert done.returncode != 0
    assert "ValueError: rank 1 has had enough" in done.stderr
    assert "another rank failed: rank 1: ValueError: rank 1 has had enough" in done.stderr


def test_without_torchrun_a_process_is_alone(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")  # as some schedulers set it
    with joined() as ranks:
        assert ranks == ALONE
        assert ranks.lead
        assert ranks.everyone(3) == [3]
        assert ranks.to_lead(3) == [3]
        assert ranks.from_lead(3) == 3
        value = torch.ones(2)
        assert ranks.mean(value, 1.0) is value
        assert ranks.seed(5) == 5
        assert ranks.cores(2) == 2


def test_a_rank_whose_store_is_gone_still_tells_its_own_reason() -> None:
    patience = timedelta(seconds=60)
    served = TCPStore("127.0.0.1", 0, 2, True, patience, False)
    ranks = Ranks(1, 2, _store=TCPStore("127.0.0.1", served.port, 2, False, patience))
    reason = ValueError("rank 1 has had enough")
    assert ranks.explain(reason) is reason
    assert served.get(_FAILURE) == b"rank 1: ValueError: rank 1 has had enough"
    del served
    for _ in range(2):  # the first words may still go into the socket
        assert ranks.explain(reason) is reason


def test_a_pair_of_steps_counts_alike_on_whichever_rank_it_is() -> None:
    """Half of the games of a rank begin new episodes all the time: it has few pairs."""
    scores, first = torch.randn(6, 8, 4, dtype=torch.float64), torch.zeros(6, 8, dtype=torch.bool)
    first[:, :4] = torch.rand(6, 4) < 0.8
    alpha = torch.softmax(scores, -1)

    def loss(games: slice, **over_ranks: Any) -> torch.Tensor:
        parts = scores[:, games], alpha[:, games], first[:, games]
        return losses.temporal_consistency_loss(*parts, 1.0, "softmax", **over_ranks)

    pairs = (~first[1:]).double().mean()
    halves = [loss(games, over_ranks=lambda own: pairs) for games in (slice(0, 4), slice(4, 8))]
    together = loss(slice(0, 8))
    torch.testing.assert_close(sum(halves) / 2, together)
    assert not torch.isclose((loss(slice(0, 4)) + loss(slice(4, 8))) / 2, together)


def test_means_over_ranks_are_taken_where_they_are_not_linear() -> None:
    scores = torch.randn(40, 4, dtype=torch.float64)
    halves = [torch.softmax(part, -1).mean(0) for part in scores.chunk(2)]
    together = losses.load_balance_loss(scores)
    half = losses.load_balance_loss(scores[:20], over_ranks=lambda own: (own + halves[1]) / 2)
    torch.testing.assert_close(half, together)
    assert not torch.isclose(losses.load_balance_loss(scores[:20]), together)
