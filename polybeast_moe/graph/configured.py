"""The knowledge graph that a configuration names."""

from __future__ import annotations

from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import resolve_data_file
from polybeast_moe.graph.loader import load_graph
from polybeast_moe.graph.schema import KnowledgeGraph


def configured_graph(config: RunConfig) -> KnowledgeGraph | None:
    """Returns the graph that the policy reads, None where it reads none. Raises UserError as `load_graph` does."""
    return load_graph(resolve_data_file(config.graph.file)) if config.reads_graph else None
