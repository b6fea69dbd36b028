"""The policy as a whole: shapes, purity, recurrence, routing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from small import ACTIONS, random_graph, randomise
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from polybeast_moe.config import RunConfig
from polybeast_moe.errors import UserError
from polybeast_moe.graph import KnowledgeGraph
from polybeast_moe.learning.losses import spread
from polybeast_moe.models import Observation, Policy, PolicyOutput, build_policy, describe
from polybeast_moe.models.gat import OperatorStates
from polybeast_moe.models.graph_stream import moments
from polybeast_moe.models.interface import moved
from polybeast_moe.models.policy import GraphMoEPolicy
from polybeast_moe.ops.mixture import Routing

MakeConfig = Callable[..., RunConfig]
Observe = Callable[..., Observation]


def make_policy(config: RunConfig, graph: KnowledgeGraph | None = None) -> GraphMoEPolicy:
    if graph is None and config.reads_graph:
        graph = random_graph()
    policy = build_policy(config, graph, num_actions=ACTIONS)
    assert isinstance(policy, GraphMoEPolicy)
    return policy


def rows_of(observation: Observation, rows: slice) -> Observation:
    return Observation(*(None if field is None else field[rows] for field in observation))


def tensors(output: PolicyOutput) -> list[torch.Tensor]:
    return [field for field in output if field is not None]


@pytest.mark.parametrize("lstm", [0, 8])
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("crop", [3, 5, 9, 21])
def test_shapes(make_config: MakeConfig, observe: Observe, lstm: int, enabled: bool, crop: int) -> None:
    config = make_config(policy={"lstm": lstm}, graph={"enabled": enabled}, env={"crop_size": crop})
    policy = make_policy(config)
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
    output = make_policy(make_config())(observe(64))
    assert (output.alpha - 0.25).abs().max() < 0.05
    assert output.logits.abs().max() < 0.2


def test_same_input_same_output_and_rows_do_not_mix(make_config: MakeConfig, observe: Observe) -> None:
    policy = make_policy(make_config())
    observation = observe(16)
    whole = policy(observation)
    for one, other in zip(tensors(whole), tensors(policy(observation)), strict=True):
        assert torch.equal(one, other)
    part = policy(rows_of(observation, slice(5, 9)))
    torch.testing.assert_close(part.logits, whole.logits[5:9])
    torch.testing.assert_close(part.value, whole.value[5:9])


def test_every_parameter_learns(make_config: MakeConfig, observe: Observe) -> None:
    policy = make_policy(make_config(policy={"lstm": 8}))
    output = policy(observe(32), first=torch.zeros(4, 8, dtype=torch.bool), temperature=2.0, routing="softmax")
    (output.logits.pow(2).sum() + output.value.sum() + output.alpha_entropy.sum()).backward()
    assert [name for name, parameter in policy.named_parameters() if parameter.grad is None] == []


def test_lstm_over_a_batch_equals_episodes_alone(make_config: MakeConfig, observe: Observe) -> None:
    """Three games of six steps; the second starts anew at step 2, the third at steps 0 and 5."""
    policy = make_policy(make_config(policy={"lstm": 8}))
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
    policy = make_policy(make_config(policy={"lstm": lstm}))
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
    policy = make_policy(make_config(policy={"expert_intent": False}))
    assert policy.graph is not None
    randomise(policy.graph)
    observation = observe(8)
    dark = observation._replace(conditions=torch.zeros_like(observation.conditions))
    lit, unlit = policy(observation), policy(dark)
    assert torch.equal(lit.expert_logits, unlit.expert_logits)
    assert not torch.allclose(lit.router_scores, unlit.router_scores)


def test_operator_prior_raises_the_expert_whose_operators_score(make_config: MakeConfig, observe: Observe) -> None:
    policy = make_policy(make_config())
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


def test_a_router_cannot_scale_a_temperature_away(make_config: MakeConfig, observe: Observe) -> None:
    """Scores within [-1, 1] differ by at most 2; four experts stay in sparsemax's support while 2 / tau <= 1 / 4."""
    policy = make_policy(make_config())
    assert policy.router is not None
    with torch.no_grad():
        policy.router.last.weight *= 1000
    output = policy(observe(256), routing="sparsemax", temperature=8.0)
    assert output.router_scores.abs().max() == 1.0
    assert output.router_scores.std() > 0.5  # at the bound on both sides
    assert (output.alpha > 0).all()
    output.alpha[:, 0].sum().backward()
    assert policy.router.last.weight.grad is not None
    assert policy.router.last.weight.grad.abs().max() > 1e-3


@pytest.mark.parametrize("experts", [1, 4, 64])
@pytest.mark.parametrize("routing", ["sparsemax", "softmax"])
def test_experts_that_run_only_where_they_have_weight_change_nothing(
    make_config: MakeConfig, observe: Observe, experts: int, routing: Routing
) -> None:
    names = [f"expert_{i}" for i in range(experts)]
    dense = make_policy(make_config(policy={"experts": names, "expert_execution": "dense"}))
    sparse = make_policy(make_config(policy={"experts": names, "expert_execution": "sparse"}))
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
    policy = make_policy(make_config(policy={"expert_execution": "sparse"}))
    torch.nn.init.normal_(policy.router.last.weight, std=3.0)
    seen = observe(20)
    sparse = policy(seen, routing="sparsemax", temperature=0.05)
    every = policy(seen, routing="sparsemax", temperature=0.05, every_expert=True)
    silent = sparse.alpha == 0
    assert silent.any()
    assert not sparse.expert_logits[silent].any()
    assert every.expert_logits[silent].any(-1).all()
    assert torch.allclose(every.logits, sparse.logits, atol=1e-6)


def test_the_graphs_prior_comes_as_scores_of_its_own_where_losses_may_want_it(
    make_config: MakeConfig, observe: Observe
) -> None:
    policy, seen = make_policy(make_config()), observe(8)
    output = policy(seen)
    prior = policy.graph(seen.conditions).prior
    assert torch.allclose(output.graph_prior, torch.tanh(prior))  # the bound is 1
    assert policy.infer(seen).graph_prior is None
    assert make_policy(make_config(policy={"router": {"operator_prior": False}}))(seen).graph_prior is None


def test_the_spread_of_node_states_is_0_where_all_are_alike_and_its_gradient_parts_them() -> None:
    one = torch.randn(1, 16)
    assert spread_of(one.expand(9, -1)).item() == pytest.approx(0.0, abs=1e-6)
    assert spread_of(one.expand(9, -1) * torch.tensor([1.0, -1.0] * 4 + [0.0])[:, None]).item() == pytest.approx(1.0)
    states = (one + 0.1 * torch.randn(9, 16)).requires_grad_()
    before = spread_of(states)
    before.backward()
    variance = states.detach().var(0, correction=0).sum() / states.detach().square().sum(-1).mean()
    assert before.item() == pytest.approx(variance.item(), rel=1e-4)
    assert spread_of(states.detach() + states.grad / states.grad.norm()) > before + 0.01
    assert spread_of(3 * states.detach()).item() == pytest.approx(before.item(), rel=1e-4)


def spread_of(states: Tensor) -> Tensor:
    """Of one operator whose states so many rows show."""
    row = torch.arange(len(states))[:, None]
    found = moments(OperatorStates(states, torch.zeros(len(states), dtype=torch.int64), row))
    assert found is not None
    return spread(found)


def test_moments_count_a_state_as_often_as_rows_show_it(make_config: MakeConfig, observe: Observe) -> None:
    policy, seen = make_policy(make_config()), observe(24)
    halves = [policy(rows_of(seen, half)).graph_moments for half in (slice(0, 12), slice(12, 24))]
    whole = policy(seen).graph_moments
    torch.testing.assert_close(whole, torch.stack(halves).mean(0), rtol=1e-5, atol=1e-6)
    policy.graph.deduplicate = False
    torch.testing.assert_close(policy(seen).graph_moments, whole, rtol=1e-5, atol=1e-6)


def test_a_policy_tells_the_spread_of_its_graph_where_it_learns(make_config: MakeConfig, observe: Observe) -> None:
    policy, seen = make_policy(make_config()), observe(12)
    output = policy(seen)
    assert 0 < spread(output.graph_moments).item() < 1
    spread(output.graph_moments).backward()
    assert any(p.grad is not None and p.grad.any() for p in policy.graph.attention.parameters())
    assert policy.infer(seen).graph_moments is None


@pytest.mark.parametrize("lstm", [0, 8])
def test_nothing_in_inference_on_a_device_waits_for_it(
    make_config: MakeConfig, observe: Observe, lstm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device has shapes and no values: what could be captured as a CUDA graph runs on it."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it knows no such device
    policy = make_policy(make_config(graph={"deduplicate": False}, policy={"lstm": lstm})).to("meta")
    seen = moved(observe(8), lambda tensor: tensor.to("meta"))
    temperature = torch.ones((), device="meta")
    for routing in ("softmax", "sparsemax"):
        output = policy.infer(seen, policy.initial_state(8), routing=routing, temperature=temperature)
        assert output.logits.shape == (8, ACTIONS)
        assert output.logits.device.type == "meta"


def test_a_plan_is_made_where_the_graph_wants_one(make_config: MakeConfig, observe: Observe) -> None:
    seen = observe(8)
    policy = make_policy(make_config())
    plan = policy.plan(seen.conditions)
    assert plan is not None
    for ours, other in zip(tensors(policy(seen._replace(graph_plan=plan))), tensors(policy(seen)), strict=True):
        torch.testing.assert_close(ours, other)
    for graph in ({"enabled": False}, {"deduplicate": False}):
        assert make_policy(make_config(graph=graph)).plan(seen.conditions) is None


def test_experts_run_sparsely_where_that_is_less_work(make_config: MakeConfig) -> None:
    policy = make_policy(make_config(policy={"experts": [f"expert_{i}" for i in range(64)], "expert_hidden": 512}))
    scores = torch.nn.functional.one_hot(torch.arange(256) % 64).float()
    assert policy._support(scores, "sparsemax", 0.1) is not None
    assert policy._support(scores, "sparsemax", 100.0) is None
    assert policy._support(scores, "softmax", 0.1) is None
    assert policy._support(scores[:2], "sparsemax", 0.1) is None


@pytest.mark.parametrize("experts", [2, 4, 64])
def test_a_single_expert_has_the_mixtures_parameters(make_config: MakeConfig, experts: int) -> None:
    names = [f"expert_{i}" for i in range(experts)]
    mixture = make_policy(make_config(policy={"experts": names}))
    single = make_policy(make_config(policy={"experts": names, "single_expert": "equal_parameters"}))
    ours, theirs = (sum(p.numel() for p in policy.parameters()) for policy in (single, mixture))
    assert ours == pytest.approx(theirs, rel=0.02)
    assert len(single.experts.bias_in) == 1


@pytest.mark.parametrize("support", [1, 2])
def test_a_single_expert_does_the_mixtures_operations(make_config: MakeConfig, observe: Observe, support: int) -> None:
    sizes = {"hidden": 64, "expert_hidden": 64, "expert_execution": "sparse"}
    mixture = make_policy(make_config(policy=sizes))
    matched = {"single_expert": "equal_operations", "single_expert_support": support}
    single = make_policy(make_config(policy={**sizes, **matched}))
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


@pytest.mark.parametrize(
    ("reads", "field"), [("full_map", "glyphs"), ("landmarks", "glyphs"), ("inventory", "inv_glyphs")]
)
def test_what_a_policy_reads_must_be_stored(make_config: MakeConfig, observe: Observe, reads: str, field: str) -> None:
    with pytest.raises(ValidationError, match=r"needs env\.store_"):
        make_config(policy={reads: True})
    policy = make_policy(make_config(policy={reads: True}, env={"store_glyphs": True, "store_inventory": True}))
    with pytest.raises(ValueError, match=rf"observation\.{field}"):
        policy(observe(4))
    assert "visual" in describe(policy)


class Constant(Policy):
    """A policy of a user's own."""

    def __init__(self, config: RunConfig, graph: KnowledgeGraph | None, *, num_actions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_actions))

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 0)

    def forward(self, observation: Observation, state: Tensor | None = None, **settings: object) -> PolicyOutput:
        rows = len(observation.blstats)
        logits, zeros = self.table.expand(rows, -1), torch.zeros(rows)
        alpha = torch.ones(rows, 1)
        return PolicyOutput(logits, zeros, alpha, torch.zeros(rows, 1), zeros, logits[:, None], state, None)


def test_a_policy_of_ones_own_is_named_by_import_path(make_config: MakeConfig) -> None:
    config = make_config(policy={"class": f"{__name__}.Constant"})
    policy = build_policy(config, None, num_actions=5)
    assert isinstance(policy, Constant)
    assert "total" in describe(policy)


class DeepValue(GraphMoEPolicy):
    """The example of docs/policy.md."""

    def __init__(self, config: RunConfig, graph: KnowledgeGraph | None, *, num_actions: int) -> None:
        super().__init__(config, graph, num_actions=num_actions)
        features = self.value.in_features
        self.value = nn.Sequential(nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, 1))


def test_a_part_can_be_replaced_in_a_subclass(make_config: MakeConfig, observe: Observe) -> None:
    config = make_config(policy={"class": f"{__name__}.DeepValue", "lstm": 4})
    policy = build_policy(config, random_graph(), num_actions=ACTIONS)
    output = policy.infer(observe(6), policy.initial_state(6))
    assert output.value.shape == (6,)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("GraphMoEPolicy", "package.module.NAME"),
        ("no_such_package.Policy", "no_such_package"),
        ("polybeast_moe.models.policy.GraphMoEPolici", "did you mean 'GraphMoEPolicy'"),
        ("polybeast_moe.models.policy.expert_mixture", "no subclass of polybeast_moe.models.Policy"),
    ],
)
def test_an_unknown_class_is_the_users_error(make_config: MakeConfig, path: str, hint: str) -> None:
    with pytest.raises(UserError, match=r"policy\.class") as error:
        build_policy(make_config(policy={"class": path}), random_graph(), num_actions=5)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


def test_describe_accounts_for_every_parameter(make_config: MakeConfig) -> None:
    policy = make_policy(make_config(policy={"lstm": 8}))
    lines = [line.split() for line in describe(policy).splitlines()[1:]]
    parameters = {name: int(number.replace(",", "")) for name, number, *_ in lines}
    assert parameters["total"] == sum(p.numel() for p in policy.parameters())
    assert parameters["total"] == sum(number for name, number in parameters.items() if name != "total")
    assert set(parameters) >= {"visual", "graph", "core", "router", "experts", "value"}
    costs = {name: float(per_row.replace(",", "")) for name, _, per_row, _ in lines}
    hidden, features = 12, 8 + 16  # experts: two products over the core's units and the intent
    assert costs["experts"] == pytest.approx(2 * 4 * (features * hidden + hidden * ACTIONS) / 1e3, abs=0.05)


def test_a_hard_coded_router_reads_the_map_and_a_kept_pair_shares_the_work(
    make_config: MakeConfig, observe: Observe
) -> None:
    hard = {"kind": "scenes", "operator_prior": False}
    policy = make_policy(make_config(policy={"router": hard}, env={"store_glyphs": True}))
    observation = observe(8)
    with pytest.raises(ValueError, match="glyphs"):
        policy(observation)
    observation = observation._replace(glyphs=torch.full((8, 21, 79), 2378, dtype=torch.int16))
    observation.blstats[:, [10, 11, 21]] = torch.tensor([14, 14, 1])
    observation.blstats[:, 25] = torch.tensor([0, 8] * 4)  # every second one is food poisoned
    alpha = policy(observation, routing="sparsemax", temperature=0.5).alpha
    assert alpha.tolist() == [[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]] * 4

    pair = make_policy(make_config(policy={"router": {"keep": 2}}))
    output = pair(observation, routing="softmax")
    assert ((output.alpha > 0).sum(1) == 2).all()
    assert output.router_scores.isfinite().all()  # losses may still act on all


@pytest.mark.parametrize(
    ("policy", "env", "message"),
    [
        ({"router": {"kind": "frozen"}}, {}, "operator_prior: false"),
        ({"router": {"kind": "scenes", "operator_prior": False}}, {}, "store_glyphs"),
        ({"router": {"kind": "scenes", "operator_prior": False}, "experts": ["a", "b"]}, {}, "needs the experts"),
        ({"router": {"keep": 5}}, {}, "more than there are experts"),
    ],
)
def test_routers_that_cannot_be_are_refused(make_config: MakeConfig, policy, env, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_config(policy=policy, env=env)
