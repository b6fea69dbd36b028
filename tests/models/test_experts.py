"""Experts: run where they have weight, at the same result; and one alone that costs what the mixture costs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small import policy_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from polybeast_moe.config import RunConfig
from polybeast_moe.models import Observation
from polybeast_moe.ops.mixture import Routing

MakeConfig = Callable[..., RunConfig]
Observe = Callable[..., Observation]


@pytest.mark.parametrize("experts", [1, 4, 64])
@pytest.mark.parametrize("routing", ["sparsemax", "softmax"])
def test_experts_that_run_only_where_they_have_weight_change_nothing(
    make_config: MakeConfig, observe: Observe, experts: int, routing: Routing
) -> None:
    names = [f"expert_{i}" for i in range(experts)]
    dense = policy_of(make_config(policy={"experts": names, "expert_execution": "dense"}))
    sparse = policy_of(make_config(policy={"experts": names, "expert_execution": "sparse"}))
    for parameter in dense.parameters():
        nn.init.normal_(parameter, std=0.3)
    sparse.load_state_dict(dense.state_dict())
    observation = observe(40)
    for policy in (dense, sparse):
        output = policy(observation, routing=routing, temperature=0.7)
        loss = (output.logits * torch.linspace(-1, 1, output.logits.numel()).view_as(output.logits)).sum()
        (loss + output.alpha_entropy.sum() + output.value.sum()).backward()
    if routing == "sparsemax" and experts > 4:
        assert (output.alpha > 0).float().mean() < 0.5
    torch.testing.assert_close(output.logits, dense(observation, routing=routing, temperature=0.7).logits)
    for (name, one), other in zip(dense.named_parameters(), sparse.parameters(), strict=True):
        assert one.grad is not None
        scale = one.grad.abs().max().item()
        torch.testing.assert_close(
            other.grad, one.grad, rtol=1e-4, atol=1e-5 * max(scale, 1), msg=lambda m, n=name: n + m
        )


def test_every_expert_speaks_when_asked_whatever_its_weight(make_config: MakeConfig, observe: Observe) -> None:
    policy = policy_of(make_config(policy={"expert_execution": "sparse"}))
    torch.nn.init.normal_(policy.router.last.weight, std=3.0)
    seen = observe(20)
    sparse = policy(seen, routing="sparsemax", temperature=0.05)
    every = policy(seen, routing="sparsemax", temperature=0.05, every_expert=True)
    silent = sparse.alpha == 0
    assert silent.any()
    assert not sparse.expert_logits[silent].any()
    assert every.expert_logits[silent].any(-1).all()
    assert torch.allclose(every.logits, sparse.logits, atol=1e-6)


def test_experts_run_sparsely_where_that_is_less_work(make_config: MakeConfig) -> None:
    policy = policy_of(make_config(policy={"experts": [f"expert_{i}" for i in range(64)], "expert_hidden": 512}))
    scores = torch.nn.functional.one_hot(torch.arange(256) % 64).float()
    assert policy._support(scores, "sparsemax", 0.1) is not None
    assert policy._support(scores, "sparsemax", 100.0) is None
    assert policy._support(scores, "softmax", 0.1) is None
    assert policy._support(scores[:2], "sparsemax", 0.1) is None


@pytest.mark.parametrize("experts", [2, 4, 64])
def test_a_single_expert_has_the_mixtures_parameters(make_config: MakeConfig, experts: int) -> None:
    names = [f"expert_{i}" for i in range(experts)]
    mixture = policy_of(make_config(policy={"experts": names}))
    single = policy_of(make_config(policy={"experts": names, "single_expert": "equal_parameters"}))
    ours, theirs = (sum(p.numel() for p in policy.parameters()) for policy in (single, mixture))
    assert ours == pytest.approx(theirs, rel=0.02)
    assert len(single.experts.bias_in) == 1


@pytest.mark.parametrize("support", [1, 2])
def test_a_single_expert_does_the_mixtures_operations(make_config: MakeConfig, observe: Observe, support: int) -> None:
    sizes = {"hidden": 64, "expert_hidden": 64, "expert_execution": "sparse"}
    mixture = policy_of(make_config(policy=sizes))
    matched = {"single_expert": "equal_operations", "single_expert_support": support}
    single = policy_of(make_config(policy={**sizes, **matched}))
    assert mixture.router is not None
    with torch.no_grad():  # so that `support` experts share every row
        mixture.router.last.weight.zero_()
        mixture.router.last.bias.copy_(torch.tensor([1.0] * support + [-1.0] * (4 - support)))
    operations = []
    for policy in (mixture, single):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = policy(observe(128), temperature=0.1)
        counts = counter.get_flop_counts()
        operations.append(
            sum(
                sum(counts[f"GraphMoEPolicy.{part}"].values())
                for part in ("router", "experts")
                if f"GraphMoEPolicy.{part}" in counts
            )
        )
    assert operations[1] == pytest.approx(operations[0], rel=0.02)
    assert (output.alpha == 1).all()
