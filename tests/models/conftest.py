"""Fixtures: a small configuration, graph and observations."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small import ACTIONS, random_conditions, random_graph

from polybeast_moe.config import RunConfig
from polybeast_moe.graph import KnowledgeGraph
from polybeast_moe.models import Observation


@pytest.fixture(autouse=True, scope="session")
def _temporary_files_removed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """PyG writes the code that it generates for a layer into temporary files, and leaves them behind."""
    before = tempfile.tempdir
    tempfile.tempdir = str(tmp_path_factory.mktemp("generated"))
    yield
    tempfile.tempdir = before


@pytest.fixture
def make_config() -> Callable[..., RunConfig]:
    """Makes a small configuration; keywords are sections, merged into it."""

    def make(**sections: dict[str, Any]) -> RunConfig:
        small: dict[str, dict[str, Any]] = {
            "graph": {"hidden": 16, "heads": 4},
            "policy": {"hidden": 24, "conv_channels": 8, "glyph_embedding": 4, "expert_hidden": 12},
        }
        merged = {name: {**small.get(name, {}), **sections.get(name, {})} for name in {*small, *sections}}
        phases = [{"name": "only", "until": {"frames": 1}, "routing": "softmax"}]
        return RunConfig.model_validate({**merged, "phases": phases})

    return make


@pytest.fixture(params=["as loaded", "relayed"])
def graph(request: pytest.FixtureRequest) -> KnowledgeGraph:
    """Conditions and operators at random, with parallel edges, an operator that hears no condition, and one condition
    that the engine does not know. Bits are not in the order of the nodes. "relayed" adds edges between operators.
    """
    return random_graph(operator_edges=10 if request.param == "relayed" else 0)


@pytest.fixture
def observe() -> Callable[..., Observation]:
    """Makes N rows of an observation at random."""

    def make(rows: int, crop: int = 9) -> Observation:
        blstats = torch.randint(0, 30, (rows, 27))
        blstats[:, 21:24] = torch.randint(0, 5, (rows, 3))
        return Observation(
            glyph_crop=torch.randint(0, 5977, (rows, crop, crop)).short(),
            blstats=blstats,
            conditions=random_conditions(rows, max(1, rows // 2)),
            previous_action=torch.randint(0, ACTIONS + 1, (rows,)),
            message=torch.randint(0, 127, (rows, 256)).byte(),
        )

    return make
