"""The policy as a whole: shapes, purity, recurrence, and what graph and router have a say in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from small import ACTIONS, policy_of, randomise, rows_of, tensors

from polybeast_moe.config import RunConfig
from polybeast_moe.models import Observation, build_policy, describe
from polybeast_moe.models.interface import moved

MakeConfig = Callable[..., RunConfig]
Observe = Callable[..., Observation]


@pytest.mark.parametrize("lstm", [0, 8])
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("crop", [3, 5, 9, 21])
def test_shapes(make_config: MakeConfig, observe: Observe, lstm: int, enabled: bool, crop: int) -> None:
    config = make_config(policy={"lstm": lstm}, graph={"enabled": enabled}, env={"crop_size": crop})
    policy = policy_of(config)
    steps, batch, experts = 3, 4, 4
    first = torch.zeros(steps, batch, dtype=torch.bool)
    output = policy(observe(steps * batch, crop), policy.initial_state(batch), first=first)
    rows = steps * batch
    assert output.logits.shape == (rows, ACTIONS)
    assert output.value.shape == output.alpha_entropy.shape == (rows,)
    assert output.alpha.shape == output.router_scores.shape == (rows, experts)
    assert output.expert_logits.shape == (rows, experts, ACTIONS)
    assert output.state is not None
    assert output.state.shape == (batch, policy.state_size) == (batch, 2 * lstm)
    if lstm:
        assert output.states is not None
        assert output.states.shape == (steps, batch, 2 * lstm)
        assert torch.equal(output.states[-1], output.state)
    torch.testing.assert_close(output.alpha.sum(1), torch.ones(rows))


def test_starts_near_uniform(make_config: MakeConfig, observe: Observe) -> None:
    output = policy_of(make_config())(observe(64))
    assert (output.alpha - 0.25).abs().max() < 0.05
    assert output.logits.abs().max() < 0.2


def test_same_input_same_output_and_rows_do_not_mix(make_config: MakeConfig, observe: Observe) -> None:
    policy = policy_of(make_config())
    observation = observe(16)
    whole = policy(observation)
    for one, other in zip(tensors(whole), tensors(policy(observation)), strict=True):
        assert torch.equal(one, other)
    part = policy(rows_of(observation, slice(5, 9)))
    torch.testing.assert_close(part.logits, whole.logits[5:9])
    torch.testing.assert_close(part.value, whole.value[5:9])


def test_every_parameter_learns(make_config: MakeConfig, observe: Observe) -> None:
    policy = policy_of(make_config(policy={"lstm": 8}))
    output = policy(observe(32), first=torch.zeros(4, 8, dtype=torch.bool), temperature=2.0, routing="softmax")
    (output.logits.pow(2).sum() + output.value.sum() + output.alpha_entropy.sum()).backward()
    assert [name for name, parameter in policy.named_parameters() if parameter.grad is None] == []


def test_lstm_over_a_batch_equals_episodes_alone(make_config: MakeConfig, observe: Observe) -> None:
    """Three games of six steps; the second starts anew at step 2, the third at steps 0 and 5."""
    policy = policy_of(make_config(policy={"lstm": 8}))
    observation = observe(18)
    state = torch.randn(3, policy.state_size)
    first = torch.zeros(6, 3, dtype=torch.bool)
    first[2, 1] = first[0, 2] = first[5, 2] = True
    output = policy(observation, state, first=first)
    assert output.states is not None
    for game in range(3):
        alone = state[game : game + 1]
        for step in range(6):
            row = rows_of(observation, slice(3 * step + game, 3 * step + game + 1))
            if first[step, game]:
                alone = policy.initial_state(1)
            one = policy(row, alone, first=torch.zeros(1, 1, dtype=torch.bool))
            alone = one.state
            torch.testing.assert_close(one.logits[0], output.logits[3 * step + game])
            torch.testing.assert_close(alone[0], output.states[step, game])


@pytest.mark.parametrize("lstm", [0, 8])
def test_infer_is_forward_one_step_at_a_time(make_config: MakeConfig, observe: Observe, lstm: int) -> None:
    policy = policy_of(make_config(policy={"lstm": lstm}))
    observation, state = observe(12), policy.initial_state(4)
    first = torch.rand(3, 4) < 0.3
    whole = policy(observation, state, first=first)
    for step in range(3):
        rows = slice(4 * step, 4 * step + 4)
        output = policy.infer(rows_of(observation, rows), state, first=first[step], weights_version=7)
        torch.testing.assert_close(output.logits, whole.logits[rows])
        assert not output.logits.requires_grad
        state = output.state


def test_experts_may_go_without_intent(make_config: MakeConfig, observe: Observe) -> None:
    policy = policy_of(make_config(policy={"expert_intent": False}))
    assert policy.graph is not None
    randomise(policy.graph)
    observation = observe(8)
    dark = observation._replace(conditions=torch.zeros_like(observation.conditions))
    lit, unlit = policy(observation), policy(dark)
    assert torch.equal(lit.expert_logits, unlit.expert_logits)
    assert not torch.allclose(lit.router_scores, unlit.router_scores)


def test_operator_prior_raises_the_expert_whose_operators_score(make_config: MakeConfig, observe: Observe) -> None:
    policy = policy_of(make_config())
    assert policy.graph is not None
    observation = observe(8)
    before = policy(observation).router_scores
    with torch.no_grad():
        policy.graph.read.bias[-1] += 0.5  # of every operator's score; "general" has no operator
    after = policy(observation).router_scores
    assert (after[:, :3] > before[:, :3] + 0.2).all()
    torch.testing.assert_close(after[:, 3], before[:, 3])


def test_without_a_graph_conditions_do_not_matter(make_config: MakeConfig, observe: Observe) -> None:
    policy = build_policy(make_config(graph={"enabled": False}), None, num_actions=ACTIONS)
    observation = observe(8)
    dark = observation._replace(conditions=torch.zeros_like(observation.conditions))
    assert torch.equal(policy(observation).logits, policy(dark).logits)


def test_the_graphs_prior_comes_as_scores_of_its_own_where_losses_may_want_it(
    make_config: MakeConfig, observe: Observe
) -> None:
    policy, seen = policy_of(make_config()), observe(8)
    output = policy(seen)
    prior = policy.graph(seen.conditions).prior
    assert torch.allclose(output.operator_prior, torch.tanh(prior))  # the bound is 1
    assert policy.infer(seen).operator_prior is None
    assert policy_of(make_config(policy={"router": {"operator_prior": False}}))(seen).operator_prior is None


@pytest.mark.parametrize("lstm", [0, 8])
def test_nothing_in_inference_on_a_device_waits_for_it(
    make_config: MakeConfig, observe: Observe, lstm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device has shapes and no values: what could be captured as a CUDA graph runs on it."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it knows no such device
    policy = policy_of(make_config(graph={"deduplicate": False}, policy={"lstm": lstm})).to("meta")
    seen = moved(observe(8), lambda tensor: tensor.to("meta"))
    temperature = torch.ones((), device="meta")
    for routing in ("softmax", "sparsemax"):
        output = policy.infer(seen, policy.initial_state(8), routing=routing, temperature=temperature)
        assert output.logits.shape == (8, ACTIONS)
        assert output.logits.device.type == "meta"


def test_a_plan_is_made_where_the_graph_wants_one(make_config: MakeConfig, observe: Observe) -> None:
    seen = observe(8)
    policy = policy_of(make_config())
    plan = policy.plan(seen.conditions)
    assert plan is not None
    for ours, other in zip(tensors(policy(seen._replace(graph_plan=plan))), tensors(policy(seen)), strict=True):
        torch.testing.assert_close(ours, other)
    for graph in ({"enabled": False}, {"deduplicate": False}):
        assert policy_of(make_config(graph=graph)).plan(seen.conditions) is None


@pytest.mark.parametrize(
    ("reads", "field"), [("full_map", "glyphs"), ("landmarks", "glyphs"), ("inventory", "inv_glyphs")]
)
def test_what_a_policy_reads_must_be_stored(make_config: MakeConfig, observe: Observe, reads: str, field: str) -> None:
    with pytest.raises(ValidationError, match=r"needs env\.store_"):
        make_config(policy={reads: True})
    policy = policy_of(make_config(policy={reads: True}, env={"store_glyphs": True, "store_inventory": True}))
    with pytest.raises(ValueError, match=rf"observation\.{field}"):
        policy(observe(4))
    assert "visual" in describe(policy)
