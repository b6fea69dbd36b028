"""Policies from snapshots, with what they need to play: configuration, routing and temperature of that moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import config_of, with_overrides
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.graph.configured import configured_graph
from polybeast_moe.learning.guards import guarded
from polybeast_moe.learning.phases import ControllerState, Settings
from polybeast_moe.models import Policy, build_policy
from polybeast_moe.ops.mixture import Routing
from polybeast_moe.resuming import restore_weights
from polybeast_moe.snapshots import Snapshot, SnapshotError, find_snapshot, load


@dataclass(frozen=True)
class TrainedPolicy:
    """A policy as a snapshot holds it."""

    policy: Policy
    config: RunConfig
    routing: Routing
    temperature: float
    phase: str
    path: Path
    """The snapshot's directory."""
    frames: int
    """Consumed in training."""


def load_trained(path: str | Path, overrides: Sequence[str] = ()) -> TrainedPolicy:
    """Builds the policy of a snapshot, or of a run directory's newest good snapshot.

    Args:
        path: a snapshot's directory or a run's.
        overrides: `section.key=value`, where it is to play under another configuration than its run's.

    Raises:
        UserError: there is none, it does not verify, or its policy or graph cannot be built any more.
    """
    snapshot = load(find_snapshot(path))
    config = with_overrides(_config(snapshot), overrides)
    graph = configured_graph(config)
    policy = build_policy(config, graph, num_actions=len(ACTIONS))
    restore_weights(policy, snapshot, graph.hash if graph is not None else None)
    policy.requires_grad_(False)
    routing, temperature, phase = _settings(snapshot, config)
    frames = int(snapshot.state["counters"]["frames"])
    return TrainedPolicy(policy, config, routing, temperature, phase, snapshot.path, frames)


def _config(snapshot: Snapshot) -> RunConfig:
    if "config" not in snapshot.state:
        raise SnapshotError(f"snapshot {snapshot.path}: state.json has no configuration")
    return config_of(snapshot.state["config"], f"snapshot {snapshot.path}: its configuration is of another version")


def _settings(snapshot: Snapshot, config: RunConfig) -> tuple[Routing, float, str]:
    """Routing, temperature and phase that were in force."""
    try:
        settings: dict[str, Any] = snapshot.state["controller"]["settings"]
        if config.guards:  # the controller's settings are as if there were none
            state = ControllerState.from_dict(snapshot.state["controller"])
            _, moved, _ = guarded(config.guards, state, cast(Settings, state.settings), {}, state.start)
            settings = {**settings, "temperature": moved.temperature}
        return cast(Routing, settings["routing"]), float(settings["temperature"]), str(settings["phase"])
    except (KeyError, TypeError):
        raise SnapshotError(f"snapshot {snapshot.path}: state.json does not say routing and temperature") from None
