"""Ranks 1, 2, ... of a run: games, inference and updates like rank 0's, everything else as rank 0 says."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch

from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.envs.episode_record import EpisodeRecord
from polybeast_moe.envs.games_folder import GamesFolder
from polybeast_moe.envs.nle_package import NlePackage, check_nle
from polybeast_moe.graph.configured import configured_graph
from polybeast_moe.learning.distributed import Ranks
from polybeast_moe.learning.learner import Learner
from polybeast_moe.learning.phases import Settings
from polybeast_moe.learning.rank_rounds import Begin, RankArrival, RankUpdate, RunState, digest, until
from polybeast_moe.models import build_policy
from polybeast_moe.monitoring.resources import usable_cores
from polybeast_moe.runtime.device import on_this_machine, use
from polybeast_moe.runtime.loading import make_feed
from polybeast_moe.runtime.make import make_runtime
from polybeast_moe.runtime.process import StopRequests, keep_freed_memory, name_process, torch_cache_in
from polybeast_moe.runtime.rollouts import Batch
from polybeast_moe.snapshots.randomness import random_states, restore_random_states, seed_all


def follow(ranks: Ranks) -> int:
    """Takes part in the run that rank 0 begins, until it says that this is the end; returns the exit code."""
    keep_freed_memory()
    name_process(f"pbm-learner-{ranks.rank}")
    begin: Begin | None = ranks.from_lead(None)
    assert begin is not None
    runtime = on_this_machine(begin.config.runtime, ranks.cores(usable_cores()), ranks.local_rank)
    torch.set_num_threads(runtime.threads or 1)
    config = begin.config.model_copy(update={"runtime": runtime, "seed": ranks.seed(begin.config.seed)})
    package = check_nle()
    with GamesFolder("polybeast-moe-") as games_folder, torch_cache_in(games_folder.path), StopRequests() as stop:
        follower = Follower(config, ranks, package, games_folder.path, Path(begin.log))
        try:
            follower.run(stop)
        finally:
            follower.close()
    return 0


class Follower:
    """Owns a rank's policy, learner and runtime, and obeys orders."""

    def __init__(self, config: RunConfig, ranks: Ranks, package: NlePackage, games_folder: Path, log: Path) -> None:
        """Builds every part; `config` has this rank's seed and cores, `log` is the run's."""
        self._ranks = ranks
        self._patience = config.distributed.patience
        self._messages: list[str] = []
        self._idle = False
        device = torch.device(config.runtime.device)
        use(device)
        self._policy = build_policy(config, configured_graph(config), num_actions=len(ACTIONS)).to(device)
        self._learner = Learner.configured(self._policy, config, ranks)
        seed_all(config.seed)
        state: RunState = ranks.from_lead(_NOTHING)
        self._policy.load_state_dict(state.weights)
        self._learner.restore(state.optimizer, state.version)
        runtime = make_runtime(
            config,
            self._policy,
            package,
            games_folder,
            starts=state.starts,
            log_path=log if log.parent.is_dir() else games_folder / "run.log",
            log=self._messages.append,
            rank=ranks.rank,
        )
        with ExitStack() as parts:
            self._runtime = parts.enter_context(closing(runtime))
            feed = make_feed(config, self._policy, runtime, self._messages.append)
            self._feed = parts.enter_context(closing(feed))
            own = state.of(ranks.rank)
            if own is not None:  # else there were fewer ranks: this one begins with its seed
                told = runtime.restore(own["runtime"])
                self._messages.extend([told] if told else [])
                restore_random_states(own["random"])
            self._parts = parts.pop_all()

    def run(self, stop: StopRequests) -> None:
        """Collects and meets the others, round after round."""
        self._listen()
        self._runtime.start(stop)
        batch: Batch | None = None
        episodes: list[EpisodeRecord] = []
        while True:
            if batch is None and not self._idle:
                batch, episodes = self._collect(stop)
            arrivals = self._ranks.everyone(RankArrival(_frames(batch), stop.signal_number or 0))
            order = arrivals[0].order
            assert order is not None, "rank 0 gives an order at every meeting"
            if order.do == "end":
                return
            if order.do == "states":
                self._ranks.to_lead(self._state())
            elif order.do == "rest":
                self._rest(True)
            elif order.settings is not None:
                self._rest(False)
                total = sum(arrival.frames for arrival in arrivals)
                if total:
                    self._update(batch, episodes, order.settings, total)
                    batch, episodes = None, []

    def close(self) -> None:
        """Ends the games."""
        self._parts.close()

    def _collect(self, stop: StopRequests) -> tuple[Batch | None, list[EpisodeRecord]]:
        rollouts = self._feed.collect(until(self._patience, stop))
        if not rollouts:
            return None, []
        batch = self._feed.batch()
        episodes = [episode for rollout in rollouts for episode in rollout.episodes()]
        self._runtime.give_back(rollouts)
        return batch, episodes

    def _update(self, batch: Batch | None, episodes: list[EpisodeRecord], settings: Settings, total: int) -> None:
        frames = _frames(batch)
        report = self._learner.update(batch, settings, frames / total)
        self._ranks.to_lead(RankUpdate(frames, report, episodes, self._messages[:]))
        self._messages.clear()
        self._listen()

    def _listen(self) -> None:
        """Takes the settings of the next update from the lead, or the news that there is none."""
        told: tuple[Settings, bool] = self._ranks.from_lead(_NOTHING)
        settings, self._idle = told
        self._runtime.set_control(
            phase=settings.phase_index,
            routing=settings.routing,
            temperature=settings.temperature,
            policy_version=self._learner.version,
        )

    def _rest(self, on: bool) -> None:
        """Stops the games, or lets them go on."""
        if on != self._idle:
            self._runtime.pause(on)
        self._idle = on
        if on:
            self._runtime.rest(0.0)

    def _state(self) -> dict[str, Any]:
        return {"weights": digest(self._policy), "runtime": self._runtime.state(), "random": random_states()}


def _frames(batch: Batch | None) -> int:
    return batch.steps * batch.games if batch is not None else 0


_NOTHING: Any = None
