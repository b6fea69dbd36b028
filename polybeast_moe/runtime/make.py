"""Makes the runtime that a configuration asks for, on whatever rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from polybeast_moe.config import RunConfig
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.models import Policy
from polybeast_moe.runtime.asynchronous import AsynchronousRuntime
from polybeast_moe.runtime.base import Runtime
from polybeast_moe.runtime.inline import InlineRuntime


def make_runtime(
    config: RunConfig,
    policy: Policy,
    package: NlePackage,
    games: Path,
    *,
    starts: int,
    log_path: Path,
    log: Callable[[str], None],
    rank: int = 0,
) -> Runtime:
    """Returns a runtime that has not started.

    Args:
        config: with every default of the machine filled in; its seed is this rank's.
        policy: whose weights are published.
        package: the installed NetHack.
        games: an empty folder for NetHack's files.
        starts: how often the run was started before. Every start numbers its episodes anew: no seed comes twice.
        log_path: where child processes write.
        log: tells the user of their deaths.
        rank: of this process, for the names of its children.
    """
    first_episode = starts << 40
    if config.runtime.mode == "inline":
        return InlineRuntime(config, policy, package, games, first_episode=first_episode)
    return AsynchronousRuntime(
        config, policy, package, games, first_episode=first_episode, log_path=log_path, log=log, rank=rank
    )
