"""Back to the last good weights after updates without a finite gradient; a real policy, its weights poisoned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from polybeast_moe.config import LearnerConfig, RollbackConfig, RunConfig
from polybeast_moe.errors import RunFailed
from polybeast_moe.learning.learner import Learner
from polybeast_moe.learning.phases import LossSettings, Settings
from polybeast_moe.models import Policy
from polybeast_moe.runtime.rollouts import Batch, make_batch

PHASE = Settings("only", 0, "softmax", 1.0, 1e-3, LossSettings(1.0, 0.5, 0.01, 0.0, 0.005))


class Run:
    """Updates of a tiny policy on one batch of real games."""

    def __init__(self, policy: Policy, batch: Batch, **rollback: int) -> None:
        self.policy, self.batch = policy, batch
        self.learner = Learner(policy, LearnerConfig(rollback=RollbackConfig(**rollback)))
        self.returns = 0

    def update(self, times: int = 1) -> bool:
        for _ in range(times):
            report = self.learner.update(self.batch, PHASE)
            self.returns += report.rolled_back
        return report.applied

    def weights(self) -> list[torch.Tensor]:
        return [value.clone() for value in self.policy.state_dict().values()]

    def poison(self) -> None:
        with torch.no_grad():
            next(self.policy.parameters()).fill_(float("nan"))


@pytest.fixture
def begin_run(make_policy, start_inline) -> Callable[..., Run]:
    def begin(config: RunConfig, **rollback: int) -> Run:
        policy = make_policy(config)
        return Run(policy, make_batch(start_inline(config, policy).collect()), **rollback)

    return begin


@pytest.fixture
def run(make_config, begin_run) -> Run:
    return begin_run(make_config(), after=3, copy_every=4, give_up_after=2)


def test_bfloat16_learns_nearly_the_same(make_config, begin_run) -> None:
    """The real policy, graph included: its losses are close, its gradients finite and its weights stay float32."""
    run = begin_run(make_config("graph.enabled=true", "policy.expert_execution=sparse"))
    exact = run.learner.update(run.batch, replace(PHASE, learning_rate=0.0)).diagnostics
    narrow = Learner(run.policy, LearnerConfig(precision="bfloat16"))
    before = run.weights()
    report = narrow.update(run.batch, PHASE)
    assert report.applied
    assert report.diagnostics["loss_baseline"] == pytest.approx(exact["loss_baseline"], rel=0.05)
    assert report.diagnostics["policy_entropy"] == pytest.approx(exact["policy_entropy"], rel=0.01)
    assert report.diagnostics["loss_baseline"] != exact["loss_baseline"]  # it did run in fewer digits
    assert not equal(run.weights(), before)
    assert all(value.dtype == torch.float32 for value in run.policy.parameters())


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_after_a_run_of_skipped_updates_the_last_good_weights_come_back(run: Run) -> None:
    run.update(4)
    good, moments = run.weights(), run.learner.optimizer_state()["state"][0]["exp_avg"].clone()
    run.update(5)  # a newer copy at 8, which nothing has confirmed yet
    assert not equal(run.weights(), good)
    run.poison()
    assert not run.update(2)
    assert not equal(run.weights(), good)
    version = run.learner.version
    run.update()
    assert equal(run.weights(), good)
    assert torch.equal(run.learner.optimizer_state()["state"][0]["exp_avg"], moments)
    assert run.learner.version == version + 1  # so that whoever plays takes them over
    assert run.returns == 1
    assert run.update(3)
    assert all(torch.isfinite(value).all() for value in run.weights())


def test_one_skipped_update_now_and_then_changes_nothing(run: Run) -> None:
    clean = run.batch.reward.clone()
    for _ in range(5):
        run.batch.reward.fill_(float("nan"))
        before = run.weights()
        assert not run.update(2)
        assert equal(run.weights(), before)
        run.batch.reward.copy_(clean)
        assert run.update()
    assert run.returns == 0


def test_a_run_that_good_weights_do_not_help_is_given_up(run: Run) -> None:
    run.update(9)
    run.batch.reward.fill_(float("nan"))
    run.update(8)
    with pytest.raises(RunFailed, match="9 updates in a row had no finite gradient, from the last good weights too"):
        run.update()
    assert all(torch.isfinite(value).all() for value in run.weights())
