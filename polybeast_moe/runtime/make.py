"""Makes the runtime that a configuration asks for."""

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
    games_folder: Path,
    *,
    starts: int,
    log_path: Path,
    log: Callable[[str], None],
    rank: int = 0,
) -> Runtime:
    """Returns the runtime of a rank of a run that was started `starts` times before; `games_folder`: for its files."""
    first_episode = starts << 40  # every start of the run numbers its episodes anew: no seed comes twice
    if config.runtime.mode == "inline":
        return InlineRuntime(config, policy, package, games_folder, first_episode=first_episode)
    return AsynchronousRuntime(
        config, policy, package, games_folder, first_episode=first_episode, log_path=log_path, log=log, rank=rank
    )
