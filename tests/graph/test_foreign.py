"""The reference project's JSON: read as it is, bound where it can be, the rest reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polybeast_moe import _C
from polybeast_moe.errors import UserError
from polybeast_moe.graph import EXPERTS, actions, foreign, load_graph

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "data" / "hypergraph_gat_structure.json"
SMALL: dict[str, Any] = {
    "meta": {"anything": 1},
    "nodes": [
        {"id": 7, "label": "eat_ac717ec4", "type": "operator"},
        {"id": 3, "label": "hunger_hungry", "type": "condition"},
        {"id": 4, "label": "from_eat.c", "type": "condition"},
        {"id": 9, "label": "juggle_ac717ec4", "type": "operator"},
        {"id": 1, "label": "nutrition_gained", "type": "effect"},
    ],
    "edges": [[3, 7, "satisfies"], [3, 7, "satisfies"], [4, 7, "context_of"], [7, 1, "leads_to"], [4, 9, "satisfies"]],
}


def write(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "graph.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_names_are_bound_and_the_rest_is_reported(tmp_path: Path) -> None:
    graph = load_graph(write(tmp_path, SMALL), ("blind", "hungry"))
    assert graph.node_names == ("hunger_hungry", "from_eat.c", "eat_ac717ec4", "juggle_ac717ec4", "nutrition_gained")
    assert graph.condition_bits == (1, None)
    assert graph.operator_experts == (EXPERTS.index("survival"), None)
    assert graph.unbound == ("from_eat.c", "juggle_ac717ec4")


def test_repeated_edges_are_kept(tmp_path: Path) -> None:
    graph = load_graph(write(tmp_path, SMALL), ("hungry",))
    assert graph.num_edges == 5
    assert list(zip(graph.edges.source, graph.edges.target, graph.edges.relation, strict=True))[:2] == [(0, 2, 0)] * 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"nodes": None}, "the lists 'nodes' and 'edges'"),
        ({"nodes": [{"id": 1, "label": "x", "type": "conditon"}]}, "nodes.0.: unknown type 'conditon'; did you mean"),
        ({"nodes": [{"id": 1, "label": "x", "type": "effect"}] * 2}, "nodes.1.: the id 1 is already taken"),
        ({"nodes": [{"label": "x", "type": "effect"}]}, "nodes.0.: expected an object with id"),
        ({"nodes": ["x"]}, "nodes.0.: expected an object"),
        ({"nodes": [{"id": 1, "label": 2, "type": "effect"}]}, "label and type must be text"),
        ({"edges": [[3, 7]]}, "edges.0.: expected .source, target, relation."),
        ({"edges": [[3, 8, "satisfies"]]}, "edges.0.: there is no node 8"),
        ({"edges": [[3, 7, "satisfy"]]}, "edges.0.: unknown relation 'satisfy'; did you mean 'satisfies'"),
        ({"edges": [[7, 3, "satisfies"]]}, "edges.0.: satisfies leads from condition to operator"),
        ({"edges": [[[], 3, "satisfies"]]}, "edges.0.: there is no node"),
        ({"nodes": [], "edges": []}, "the graph has no condition"),
    ],
)
def test_a_broken_file_is_refused(change: dict[str, Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=what):
        load_graph(write(tmp_path, {**SMALL, **change}), ())


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 100_000])
def test_what_is_no_such_json_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not valid JSON|expected a JSON object"):
        load_graph(write(tmp_path, text), ())


def test_the_longest_prefix_binds_an_operator() -> None:
    assert foreign.bind_operator("attack_ranged_rule_849ebdd8").actions == ("Command.THROW", "Command.FIRE")
    assert foreign.bind_operator("attack_melee_rule_15f7a59c").actions == ("CompassDirection",)
    assert foreign.bind_operator("eatery_1").expert is None


def test_every_binding_names_something_real() -> None:
    assert set(foreign.CONDITIONS.values()) <= set(_C.condition_names())
    for _, expert, names in foreign.OPERATORS:
        assert expert in EXPERTS
        assert all(actions.keys_of(name) for name in names)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference graph is not here")
def test_the_reference_graph_loads_as_it_is() -> None:
    graph = load_graph(REFERENCE)
    assert (graph.num_nodes, graph.num_edges) == (527, 3016)
    assert (len(graph.conditions), len(graph.operators), len(graph.effects)) == (147, 279, 101)
    bound = sum(bit is not None for bit in graph.condition_bits)
    assert bound >= 70
    assert sum(expert is None for expert in graph.operator_experts) <= 1
    assert len(graph.unbound) == 147 - bound + sum(expert is None for expert in graph.operator_experts)
