"""Knowledge graphs: what a policy knows of NetHack before it plays."""

from __future__ import annotations

from polybeast_moe.graph.loader import load_graph
from polybeast_moe.graph.schema import EXPERTS, RELATIONS, Condition, Edges, Effect, KnowledgeGraph, Operator

__all__ = [
    "EXPERTS",
    "RELATIONS",
    "Condition",
    "Edges",
    "Effect",
    "KnowledgeGraph",
    "Operator",
    "load_graph",
]
