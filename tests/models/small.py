"""Small knowledge graphs, policies, conditions and weights."""

from __future__ import annotations

import torch
from torch import Tensor

from polybeast_moe.config import RunConfig
from polybeast_moe.graph import Condition, Effect, KnowledgeGraph, Operator
from polybeast_moe.graph.schema import edges_of
from polybeast_moe.models import Observation, PolicyOutput, build_policy
from polybeast_moe.models.graph_stream import GraphStream
from polybeast_moe.models.policy import GraphMoEPolicy

ACTIONS = 23
CONDITIONS = 70  # more than a word of bits


def random_graph(operator_edges: int = 0) -> KnowledgeGraph:
    generator = torch.Generator().manual_seed(1)

    def draw(high: int, count: int) -> list[int]:
        return torch.randint(high, (count,), generator=generator).tolist()

    experts = ("survival", "combat", "exploration")  # nothing for "general"
    operators = tuple(Operator(f"operator_{i}", experts[i % 3], ()) for i in range(12))
    triples = [(c, CONDITIONS + o, 0) for c, o in zip(draw(CONDITIONS, 60), draw(11, 60), strict=True)]
    triples += [*triples[:3], *triples[:1]]
    triples += [(CONDITIONS + o, CONDITIONS + 12 + e, 2) for o, e in zip(draw(12, 8), draw(5, 8), strict=True)]
    ends = zip(draw(12, operator_edges), draw(12, operator_edges), strict=True)
    triples += [(CONDITIONS + a, CONDITIONS + b, 1) for a, b in ends]
    bits: list[int | None] = torch.randperm(CONDITIONS, generator=generator).tolist()
    bits[5] = None
    return KnowledgeGraph(
        conditions=tuple(Condition(f"condition_{i}") for i in range(CONDITIONS)),
        operators=operators,
        effects=tuple(Effect(f"effect_{i}") for i in range(5)),
        edges=edges_of(triples),
        condition_bits=tuple(bits),
    )


def random_conditions(rows: int, distinct: int, words: int = 2) -> Tensor:
    """Packed conditions [rows, words] of which at most `distinct` differ; about one bit in four is lit."""
    patterns = torch.randint(-(2**63), 2**63 - 1, (2, distinct, words))
    return (patterns[0] & patterns[1])[torch.randint(distinct, (rows,))]


def randomise(stream: GraphStream) -> None:
    """Weights far enough from their small beginnings that every path matters."""
    for parameter in stream.parameters():
        torch.nn.init.normal_(parameter, std=0.5)


def policy_of(config: RunConfig, graph: KnowledgeGraph | None = None) -> GraphMoEPolicy:
    if graph is None and config.reads_graph:
        graph = random_graph()
    policy = build_policy(config, graph, num_actions=ACTIONS)
    assert isinstance(policy, GraphMoEPolicy)
    return policy


def rows_of(observation: Observation, rows: slice) -> Observation:
    return Observation(*(None if field is None else field[rows] for field in observation))


def tensors(output: PolicyOutput) -> list[torch.Tensor]:
    return [field for field in output if field is not None]
