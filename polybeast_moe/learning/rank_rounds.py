"""How the ranks of a run go through an update together: rank 0 leads, the others follow.

Every update is one round: all ranks collect rollouts, for at most the configured patience, and meet; the lead's order
says what to do. After an update every rank hands over what its own games showed, and is told what the phase controller
has made of it. The order of collectives is the same on all ranks because each of them answers an order.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from polybeast_moe.config import RunConfig
from polybeast_moe.envs.episode_record import EpisodeRecord
from polybeast_moe.errors import RunFailed
from polybeast_moe.learning.distributed import Ranks
from polybeast_moe.learning.learner import Learner, UpdateReport
from polybeast_moe.learning.phases import Settings
from polybeast_moe.learning.usage import usage
from polybeast_moe.runtime.loading import Feed
from polybeast_moe.runtime.process import StopRequests
from polybeast_moe.runtime.rollouts import Batch, Rollout
from polybeast_moe.snapshots.contents import on_host


@dataclass(frozen=True)
class Begin:
    """What the lead begins a run with."""

    config: RunConfig
    log: str
    """The run's log, which every rank on a shared file system writes to."""


@dataclass(frozen=True)
class RunState:
    """The state in which a run begins or goes on: the same on every rank, but for what its snapshot kept of each."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    version: int
    starts: int
    """How often the run was started before."""
    ranks: list[dict[str, Any]]
    """What a snapshot kept of ranks 1, 2, ...; another number than there are now is no harm."""

    def of(self, rank: int) -> dict[str, Any] | None:
        """Returns what was kept of a rank; None of one that was not there."""
        return self.ranks[rank - 1] if rank <= len(self.ranks) else None


@dataclass(frozen=True)
class RankOrder:
    """What the lead has all ranks do at a meeting."""

    do: Literal["update", "states", "rest", "end"]
    """states: hand over what a snapshot keeps; rest: games stand still."""
    settings: Settings | None = None


@dataclass(frozen=True)
class RankArrival:
    """What a rank brings to a meeting."""

    frames: int
    """Of the rollouts that it has ready; 0: none in time."""
    stop: int = 0
    """The signal that has asked it to stop; 0: none."""
    order: RankOrder | None = None
    """The lead's."""


@dataclass(frozen=True)
class RankUpdate:
    """What a rank's own rollouts showed in one update."""

    frames: int
    report: UpdateReport
    episodes: list[EpisodeRecord]
    messages: list[str] = field(default_factory=list)


class RankRounds:
    """The rounds that the lead calls. Alone, every method does the lead's own part and nothing else."""

    def __init__(self, ranks: Ranks, patience: float) -> None:
        self.ranks = ranks
        self._patience = patience
        self._ended = ranks.size == 1
        self._asked_to_stop = 0

    def begin(self, begin: Begin) -> None:
        """Has everybody build what a run needs."""
        self.ranks.from_lead(begin)

    def share(self, policy: nn.Module, learner: Learner, starts: int, saved: Mapping[str, Any]) -> None:
        """Brings everybody to where the lead stands; `saved` is the state of the snapshot that the run goes on from."""
        if self.ranks.size > 1:
            kept = saved.get("ranks", [])
            weights, optimizer = on_host(policy.state_dict()), on_host(learner.optimizer_state())
            self.ranks.from_lead(RunState(weights, optimizer, learner.version, starts, kept))

    def collect(self, feed: Feed, interrupted: Callable[[], bool]) -> list[Rollout] | None:
        """Collects as the feed does, but gives [] where no whole batch comes within the patience."""
        if self.ranks.size == 1:
            return feed.collect(interrupted)
        rollouts = feed.collect(until(self._patience, interrupted))
        return [] if rollouts is None and not interrupted() else rollouts

    def update(
        self, learner: Learner, batch: Batch | None, episodes: list[EpisodeRecord], settings: Settings
    ) -> RankUpdate | None:
        """Has every rank take one step; returns what all rollouts showed together, None where nobody had any."""
        frames = batch.steps * batch.games if batch is not None else 0
        if self.ranks.size == 1:
            return RankUpdate(frames, learner.update(batch, settings), episodes)
        total = self._meet(RankOrder("update", settings), frames)
        if not total:
            return None
        own = RankUpdate(frames, learner.update(batch, settings, frames / total), episodes)
        return together(self.ranks.to_lead(own))

    def tell(self, settings: Settings, finished: bool) -> None:
        """Tells what the phase controller has made of an update, and whether that was the last one."""
        self.ranks.from_lead((settings, finished))

    def rest(self) -> None:
        """Has all games stand still until the next update."""
        if not self._ended:
            self._meet(RankOrder("rest"))

    def pass_on_stop(self, stop: StopRequests) -> None:
        """Stops the run if some rank was asked to."""
        if self._asked_to_stop and not stop():
            signal.raise_signal(self._asked_to_stop)

    def states(self, policy: nn.Module) -> list[dict[str, Any]]:
        """Returns what a snapshot must keep of ranks 1, 2, ...

        Raises:
            RunFailed: a rank's weights are not the lead's.
        """
        if self._ended:
            return []
        self._meet(RankOrder("states"))
        own, *others = self.ranks.to_lead({"weights": digest(policy)})
        for rank, state in enumerate(others, start=1):
            if state.pop("weights") != own["weights"]:
                raise RunFailed(f"rank {rank} has other weights than rank 0: its arithmetic differs")
        return others

    def end(self) -> None:
        """Sends everybody home. Safe to call twice."""
        if not self._ended:
            self._meet(RankOrder("end"))
            self._ended = True

    def _meet(self, order: RankOrder, frames: int = 0) -> int:
        arrivals = self.ranks.everyone(RankArrival(frames, order=order))
        self._asked_to_stop = max(arrival.stop for arrival in arrivals)
        return sum(arrival.frames for arrival in arrivals) if order.do == "update" else 0


def until(patience: float, interrupted: Callable[[], bool]) -> Callable[[], bool]:
    """Returns a condition that holds once `interrupted` does, or after `patience` seconds from now."""
    deadline = time.monotonic() + patience
    return lambda: interrupted() or time.monotonic() > deadline


def together(updates: list[RankUpdate]) -> RankUpdate:
    """Joins what ranks saw: means weighted by frames, usage from everybody's mean alpha, episodes in order of ranks.

    The norm of the gradient, whether it was applied, and a rollback are everybody's.

    Raises:
        RunFailed: ranks do not agree on the gradient that they all applied.
    """
    if len({repr(update.report.diagnostics["grad_norm"]) for update in updates}) > 1:
        raise RunFailed("ranks applied different gradients: " + _shown(updates))
    seen = [update for update in updates if update.frames]
    total = sum(update.frames for update in seen)
    diagnostics = {
        key: sum(update.report.diagnostics[key] * update.frames for update in seen) / total
        for key in seen[0].report.diagnostics
    }
    diagnostics["grad_norm"] = seen[0].report.diagnostics["grad_norm"]
    alphas = [[weight * update.frames / total for weight in update.report.mean_alpha] for update in seen]
    mean_alpha = [sum(column) for column in zip(*alphas, strict=True)]
    diagnostics |= usage(mean_alpha, diagnostics["alpha_entropy"])
    report = seen[0].report._replace(diagnostics=diagnostics, mean_alpha=mean_alpha)
    episodes = [episode for update in updates for episode in update.episodes]
    messages = [f"rank {rank}: {line}" for rank, update in enumerate(updates) for line in update.messages]
    return RankUpdate(total, report, episodes, messages)


def digest(policy: nn.Module) -> str:
    """Returns a hash of all weights: equal on ranks that hold the same policy."""
    found = hashlib.sha256()
    for name, value in policy.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _shown(updates: list[RankUpdate]) -> str:
    return ", ".join(f"rank {i} {update.report.diagnostics['grad_norm']!r}" for i, update in enumerate(updates))
