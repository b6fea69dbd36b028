"""A knowledge graph: conditions, operators and effects, and the edges between them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from polybeast_moe.config import SEMANTIC_EXPERTS

EXPERTS = SEMANTIC_EXPERTS
"""Whom an operator may speak for."""

RELATIONS = ("satisfies", "context_of", "leads_to")
"""In the order of their codes."""

ENDS = {
    "satisfies": ("condition", "operator"),
    "context_of": ("condition", "operator"),
    "leads_to": ("operator", "effect"),
}
"""What each relation leads from and to."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """Something that an observation shows."""

    name: str


@dataclasses.dataclass(frozen=True)
class Operator:
    """Something that the hero can do."""

    name: str
    expert: str | None  # one of EXPERTS; None in a foreign graph where no expert is known
    actions: tuple[str, ...]  # names of NLE's actions, see polybeast_moe.graph.actions
    requires: tuple[str, ...] = ()  # conditions without which it is impossible: all of them must be lit
    excludes: tuple[str, ...] = ()  # conditions with which it is impossible: none of them may be lit


@dataclasses.dataclass(frozen=True)
class Effect:
    """Something that an operator may bring about."""

    name: str
    description: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Edges:
    """Edges as three int64 arrays of the same length: node numbers and relation codes (indices into RELATIONS)."""

    source: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    relation: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """A graph whose nodes are numbered conditions first, then operators, then effects.

    Attributes:
        conditions, operators, effects: the nodes, in the order of their numbers.
        edges: source, target and relation of every edge; a foreign graph may repeat edges.
        condition_bits: for each condition, its bit in the words that the engine writes, or None if the engine knows no
            such condition (foreign graphs only): it is then never lit.
        unbound: the names of what could not be bound: conditions without a bit, operators without an expert.
    """

    conditions: tuple[Condition, ...]
    operators: tuple[Operator, ...]
    effects: tuple[Effect, ...]
    edges: Edges
    condition_bits: tuple[int | None, ...]
    unbound: tuple[str, ...] = ()

    @property
    def num_nodes(self) -> int:
        """Number of nodes of all three types."""
        return len(self.conditions) + len(self.operators) + len(self.effects)

    @property
    def num_edges(self) -> int:
        """Number of edges, repeats counted."""
        return len(self.edges.source)

    @property
    def node_names(self) -> tuple[str, ...]:
        """Names in the order of the node numbers."""
        groups: tuple[tuple[Condition | Operator | Effect, ...], ...]
        groups = self.conditions, self.operators, self.effects
        return tuple(node.name for group in groups for node in group)

    @property
    def node_types(self) -> npt.NDArray[np.int64]:
        """Shape [num_nodes]: 0 for a condition, 1 for an operator, 2 for an effect."""
        counts = len(self.conditions), len(self.operators), len(self.effects)
        return np.repeat(np.arange(3, dtype=np.int64), counts)

    @property
    def operator_experts(self) -> tuple[int | None, ...]:
        """For each operator the index of its expert in EXPERTS, or None."""
        return tuple(None if node.expert is None else EXPERTS.index(node.expert) for node in self.operators)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of the content: nodes with their types, experts, actions and gates, and the sorted edges."""
        triples = zip(self.edges.source.tolist(), self.edges.target.tolist(), self.edges.relation.tolist(), strict=True)
        content: dict[str, Any] = {
            "conditions": [node.name for node in self.conditions],
            "operators": [[node.name, node.expert, list(node.actions)] for node in self.operators],
            "effects": [node.name for node in self.effects],
            "edges": sorted(triples),
        }
        gates = [[node.name, list(node.requires), list(node.excludes)] for node in self.operators]
        if any(requires or excludes for _, requires, excludes in gates):
            content["gates"] = gates
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def edges_of(triples: list[tuple[int, int, int]]) -> Edges:
    """Returns edges from (source, target, relation) triples, in their order; the arrays are read-only."""
    columns = np.array(triples, dtype=np.int64).reshape(-1, 3)
    arrays = [np.ascontiguousarray(columns[:, column]) for column in range(3)]
    for array in arrays:
        array.setflags(write=False)
    return Edges(*arrays)
