"""The graph stream: exact graph attention, whatever is left out of the work."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small import CONDITIONS, policy_of, random_conditions, randomise, rows_of
from torch import Tensor

from polybeast_moe.config import SEMANTIC_EXPERTS, RunConfig
from polybeast_moe.config_files import resolve_data_file
from polybeast_moe.graph import KnowledgeGraph, load_graph
from polybeast_moe.learning.losses import spread
from polybeast_moe.models import Observation, gat, message_edges
from polybeast_moe.models.gat import OperatorStates
from polybeast_moe.models.graph_stream import GraphStream, moments

MakeConfig = Callable[..., RunConfig]
Observe = Callable[..., Observation]
GRAPHS = (
    Path(resolve_data_file("graphs/nethack.yaml")),
    Path(__file__).resolve().parents[3] / "shared" / "data" / "hypergraph_gat_structure.json",
)


def make_stream(make_config: MakeConfig, graph: KnowledgeGraph, implementation: str = "batched") -> GraphStream:
    config = make_config(graph={"implementation": implementation}).graph
    stream = GraphStream(config, graph, SEMANTIC_EXPERTS)
    randomise(stream)
    return stream


def results(stream: GraphStream, conditions: Tensor, **planned: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradients of a random linear loss."""
    stream.zero_grad()
    out = torch.cat(stream(conditions, **planned)[:2], dim=1)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out).roll(7, 0)
    (out * weights).sum().backward()
    return out.detach(), {name: parameter.grad.clone() for name, parameter in stream.named_parameters()}


def assert_same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-5)
    for name, gradient in one[1].items():
        scale = other[1][name].abs().max().clamp(min=1.0).item()
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-5, atol=1e-5 * scale, msg=lambda m, n=name: n + m)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyG's, when it is imported
def test_equals_pyg_forward_and_backward(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    ours, pyg = make_stream(make_config, graph), make_stream(make_config, graph, "pyg")
    pyg.load_state_dict(ours.state_dict())
    conditions = random_conditions(40, distinct=15)
    assert_same(results(ours, conditions), results(pyg, conditions))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.name)
def test_equals_pyg_on_whole_graphs(make_config: MakeConfig, path: Path) -> None:
    if not path.exists():
        pytest.skip("the reference graph is not here")
    whole = load_graph(path)
    ours, pyg = make_stream(make_config, whole), make_stream(make_config, whole, "pyg")
    pyg.load_state_dict(ours.state_dict())
    conditions = random_conditions(12, distinct=6, words=len(ours.conditions.mask))
    assert_same(results(ours, conditions), results(pyg, conditions))


def test_is_gat_by_its_definition(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    """One pattern, node by node and head by head, as the paper writes it."""
    stream = make_stream(make_config, graph)
    attention = stream.attention
    conditions = random_conditions(1, 1)
    lit = stream.conditions.unpack(conditions)[0].tolist()
    operators = range(CONDITIONS, CONDITIONS + len(graph.operators))
    senders = {node: [node] for node in range(graph.num_nodes)}
    for source, target in zip(graph.edges.source.tolist(), graph.edges.target.tolist(), strict=True):
        if target in operators and source != target and (source in operators or lit[source]):
            senders[target].append(source)
        if source in operators and target not in operators:
            senders[source].append(target)  # an operator hears the effects that it leads to

    # Attention numbers the effects before the operators, the graph after them.
    order = torch.cat([torch.arange(CONDITIONS), torch.arange(len(graph.operators)) + attention.num_fixed])
    order = torch.cat([order, torch.arange(CONDITIONS, attention.num_fixed)])
    states = attention.inputs()[order]
    for layer, norm in ((attention.first, attention.first_norm), (attention.second, attention.second_norm)):
        heads, width = layer.att_src.shape[1:]
        values = layer.lin(states).view(-1, heads, width)
        rows = []
        for node, neighbours in senders.items():
            parts = []
            for head in range(heads):
                logits = [
                    torch.nn.functional.leaky_relu(
                        layer.att_src[0, head] @ values[j, head] + layer.att_dst[0, head] @ values[node, head], 0.2
                    )
                    for j in neighbours
                ]
                weights = torch.stack(logits).softmax(0)
                parts.append(sum(weight * values[j, head] for weight, j in zip(weights, neighbours, strict=True)))
            rows.append(torch.cat(parts))
        states = norm(states + torch.relu(torch.stack(rows) + layer.bias))

    found = attention(stream.conditions.relevant(conditions))
    torch.testing.assert_close(found.states[found.row[0]], states[list(operators)], rtol=1e-4, atol=1e-5)


def test_leaving_out_repeats_changes_nothing(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    stream = make_stream(make_config, graph)
    conditions = random_conditions(64, distinct=9)
    once_a_pattern = results(stream, conditions)
    stream.deduplicate = False
    assert_same(once_a_pattern, results(stream, conditions))


def test_a_plan_made_beforehand_changes_nothing(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    """Conditions are not even looked at: what a device gets is the plan."""
    stream = make_stream(make_config, graph)
    conditions = random_conditions(64, distinct=9)
    plan = stream.plan(conditions)
    assert plan is not None
    assert_same(results(stream, conditions), results(stream, torch.zeros_like(conditions), plan=plan))
    with torch.no_grad():
        remembered = stream(conditions, weights_version=1)
        planned = stream(conditions, weights_version=1, plan=plan)
    torch.testing.assert_close(planned.intent, remembered.intent, rtol=1e-4, atol=1e-5)


def test_without_deduplication_shapes_depend_on_the_number_of_rows_alone(
    make_config: MakeConfig, graph: KnowledgeGraph
) -> None:
    """The meta device has shapes and no values: whoever looked at one would fail."""
    stream = make_stream(make_config, graph).to("meta")
    stream.deduplicate = False
    with torch.no_grad():
        read = stream(random_conditions(6, distinct=2).to("meta"))
    assert read.intent.shape == (6, stream.hidden)
    stream.deduplicate = True
    with pytest.raises((NotImplementedError, RuntimeError)):
        stream(random_conditions(6, distinct=2).to("meta"))


def test_both_ways_of_summing_over_operators_agree(
    make_config: MakeConfig, graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make_stream(make_config, graph)
    conditions = random_conditions(20, distinct=20)
    multiplied = results(stream, conditions)
    monkeypatch.setattr(gat, "_DENSE_STATES", 0)
    assert_same(multiplied, results(stream, conditions))


def test_bits_are_read_in_the_engines_order(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    stream = make_stream(make_config, graph)
    for node, bit in enumerate(graph.condition_bits):
        words = torch.zeros(1, 2, dtype=torch.int64)
        if bit is None:
            continue
        words[0, bit // 64] = (1 << (bit % 64)) - (1 << 64 if bit % 64 == 63 else 0)
        assert stream.conditions.unpack(words)[0].nonzero().flatten().tolist() == [node]
        assert torch.equal(stream.conditions.pack(stream.conditions.unpack(words).long()), words)


def test_a_condition_that_the_engine_does_not_know_is_never_lit(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    lit = make_stream(make_config, graph).conditions.unpack(torch.full((1, 2), -1))
    assert lit[0, graph.condition_bits.index(None)] == 0
    assert lit.sum() == CONDITIONS - 1


def test_a_condition_matters_exactly_where_it_has_an_operator(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    stream = make_stream(make_config, graph)
    heard = set(message_edges.message_edges(graph).condition[:, 0].tolist())
    dark = stream(torch.zeros(1, 2, dtype=torch.int64)).intent
    for node in range(CONDITIONS):
        one = torch.nn.functional.one_hot(torch.tensor([node]), CONDITIONS)
        changed = not torch.allclose(stream(stream.conditions.pack(one)).intent, dark, atol=1e-6)
        assert changed == (node in heard and graph.condition_bits[node] is not None)


def test_an_effect_matters_exactly_where_an_operator_leads_to_it(
    make_config: MakeConfig, graph: KnowledgeGraph
) -> None:
    stream = make_stream(make_config, graph)
    first = CONDITIONS + len(graph.operators)
    led_to = {target - first for target in graph.edges.target.tolist() if target >= first}
    conditions = random_conditions(4, 4)
    stream(conditions).intent.sum().backward()
    assert stream.attention.identity.grad is not None
    gradient = stream.attention.identity.grad[CONDITIONS : CONDITIONS + len(graph.effects)].abs().sum(1)
    assert set(gradient.nonzero().flatten().tolist()) == led_to
    assert led_to


def test_prior_is_the_log_mean_exp_of_an_experts_operators(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    stream = make_stream(make_config, graph)
    conditions = random_conditions(6, 6)
    found = stream.attention(stream.conditions.relevant(conditions))
    scores = 20 * torch.tanh(stream.read(found.states) / 20)[found.row][..., -1]  # capped softly at 20
    prior = stream(conditions).prior
    for index, expert in enumerate(SEMANTIC_EXPERTS):
        own = [i for i, operator in enumerate(graph.operators) if operator.expert == expert]
        expected = scores[:, own].logsumexp(1) - math.log(len(own)) if own else torch.zeros(6)
        torch.testing.assert_close(prior[:, index], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e3, 1e-3])
def test_extreme_weights_stay_finite(make_config: MakeConfig, graph: KnowledgeGraph, scale: float) -> None:
    stream = make_stream(make_config, graph)
    with torch.no_grad():
        for parameter in stream.parameters():
            parameter.mul_(scale)
    out, gradients = results(stream, random_conditions(20, 20))
    assert out.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_memory_gives_what_would_be_computed_until_the_version_changes(
    make_config: MakeConfig, graph: KnowledgeGraph
) -> None:
    stream = make_stream(make_config, graph)
    with torch.no_grad():
        for _ in range(3):
            conditions = random_conditions(30, 20)
            remembered = torch.cat(stream(conditions, weights_version=1)[:2], 1)
            torch.testing.assert_close(remembered, torch.cat(stream(conditions)[:2], 1), rtol=1e-5, atol=1e-5)
        for parameter in stream.parameters():
            parameter.add_(0.1)
        assert torch.equal(torch.cat(stream(conditions, weights_version=1)[:2], 1), remembered)
        fresh = torch.cat(stream(conditions, weights_version=2)[:2], 1)
        torch.testing.assert_close(fresh, torch.cat(stream(conditions)[:2], 1), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(fresh, remembered)


def test_memory_stays_within_its_limit(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    stream = make_stream(make_config, graph)
    stream.memory.limit = 50
    with torch.no_grad():
        for _ in range(20):
            stream(random_conditions(30, 30), weights_version=1)
    assert len(stream.memory) <= 50 + 30


def test_memory_is_not_used_with_gradients(make_config: MakeConfig, graph: KnowledgeGraph) -> None:
    out = make_stream(make_config, graph)(random_conditions(4, 4), weights_version=1)
    assert out.intent.requires_grad


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
    policy, seen = policy_of(make_config()), observe(24)
    halves = [policy(rows_of(seen, half)).graph_moments for half in (slice(0, 12), slice(12, 24))]
    whole = policy(seen).graph_moments
    torch.testing.assert_close(whole, torch.stack(halves).mean(0), rtol=1e-5, atol=1e-6)
    policy.graph.deduplicate = False
    torch.testing.assert_close(policy(seen).graph_moments, whole, rtol=1e-5, atol=1e-6)


def test_a_policy_tells_the_spread_of_its_graph_where_it_learns(make_config: MakeConfig, observe: Observe) -> None:
    policy, seen = policy_of(make_config()), observe(12)
    output = policy(seen)
    assert 0 < spread(output.graph_moments).item() < 1
    spread(output.graph_moments).backward()
    assert any(p.grad is not None and p.grad.any() for p in policy.graph.attention.parameters())
    assert policy.infer(seen).graph_moments is None
