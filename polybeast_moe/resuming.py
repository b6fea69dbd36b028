"""How the parts of a run come back to where a snapshot was taken, and what is said when they cannot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import config_of
from polybeast_moe.errors import UserError
from polybeast_moe.learning.learner import Learner
from polybeast_moe.learning.phases import ControllerState, Counters
from polybeast_moe.models import Policy
from polybeast_moe.monitoring.metrics import MetricsWindow
from polybeast_moe.run_directory import RunDirectory, changes
from polybeast_moe.runtime.base import Runtime
from polybeast_moe.snapshots import Snapshot, SnapshotError
from polybeast_moe.snapshots.contents import library_versions
from polybeast_moe.snapshots.randomness import restore_random_states


@contextmanager
def well_formed(snapshot: Snapshot) -> Iterator[None]:
    """Turns what reading a state raises that is not a run's into a SnapshotError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SnapshotError(f"snapshot {snapshot.path}: its state is not a run's: {error!r}") from None


def take_over(
    snapshot: Snapshot, policy: Policy, graph: str | None, learner: Learner, window: MetricsWindow
) -> tuple[Counters, ControllerState]:
    """Restores what a resumed run and a run that begins with a snapshot both take from it; `graph`: see below.

    Raises:
        UserError: it is of another network, or not a run's.
    """
    restore_weights(policy, snapshot, graph)
    with well_formed(snapshot):
        state = snapshot.state
        learner.restore(snapshot.optimizer, state["policy_version"])
        window.restore(state["metrics_window"])
        restore_random_states(state["random"])
        return Counters(**state["counters"]), ControllerState.from_dict(state["controller"])


def restore_weights(policy: Policy, snapshot: Snapshot, graph: str | None) -> None:
    """Loads a snapshot's weights; `graph` is the hash of the policy's knowledge graph, None without one.

    Raises:
        UserError: they are of another network.
    """
    place = f"snapshot {snapshot.path}: its weights are of another network"
    with well_formed(snapshot):
        before = snapshot.state["graph"]
    if before != graph:
        raise UserError(f"{place}: the knowledge graph has changed since")
    try:
        policy.load_state_dict(snapshot.weights)
    except RuntimeError as error:  # a policy of the user's own that has changed under its name, for example
        raise UserError(f"{place}: {' '.join(str(error).split())[:200]}") from None


def restore_games(runtime: Runtime, snapshot: Snapshot, log: Callable[[str], None]) -> float:
    """Brings games to where they stood and tells `log` of those that cannot be; returns the seconds it took."""
    began = time.monotonic()
    try:
        with well_formed(snapshot):
            lost = runtime.restore(snapshot.state["runtime"])
    except SnapshotError as error:  # somebody wrote there: weights and counters are as they should be all the same
        lost = f"all games begin new episodes: {error}"
    if lost:
        log(f"resumed: {lost}")
    return time.monotonic() - began


def changes_since(snapshot: Snapshot, run_dir: RunDirectory, config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Returns the keys in which `config` differs from the one that the snapshot was taken under: old and new value.

    Not from the run's `config.yaml`: a start that died before its own first snapshot has changed that already.
    """
    try:
        before = config_of(snapshot.state["config"], f"snapshot {snapshot.path}")
    except UserError:  # an older version wrote it, whose keys are not today's
        before = run_dir.config()
    return changes(before, config)


def tell_of_other_versions(snapshot: Snapshot, log: Callable[[str], None]) -> None:
    """Says which libraries are not those that wrote the snapshot: going on is then not exact to the bit."""
    here = library_versions()
    others = [
        f"{name} {was} (now {here[name]})" for name, was in snapshot.versions.items() if here.get(name, was) != was
    ]
    if others:
        log(f"the snapshot was written with {', '.join(others)}")
