"""A whole run, in one place: rollouts → update → metrics → phase → snapshot, until the curriculum ends."""

from __future__ import annotations

import time
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from polybeast_moe import resuming
from polybeast_moe.config import RunConfig
from polybeast_moe.control.desk import Desk
from polybeast_moe.control.server import ControlServer
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.envs.games_folder import GamesFolder
from polybeast_moe.envs.nle_package import NlePackage, check_nle
from polybeast_moe.errors import RunFailed
from polybeast_moe.evaluation.held_out import HeldOutEvaluation
from polybeast_moe.evaluation.random_policy import measure_random_policy
from polybeast_moe.evaluation.report import phase_table, print_phase_table, write_report
from polybeast_moe.graph.configured import configured_graph
from polybeast_moe.learning import live_changes
from polybeast_moe.learning.distributed import ALONE, Ranks
from polybeast_moe.learning.guards import guarded
from polybeast_moe.learning.learner import Learner
from polybeast_moe.learning.phases import ControllerState, Counters, PhaseEvent, Settings, advance
from polybeast_moe.learning.rank_rounds import Begin, RankRounds
from polybeast_moe.models import build_policy
from polybeast_moe.monitoring.console import Console
from polybeast_moe.monitoring.resources import usable_cores
from polybeast_moe.monitoring.status import Status
from polybeast_moe.ops.backends import select_mixture
from polybeast_moe.run_directory import RunDirectory
from polybeast_moe.runtime.base import Runtime
from polybeast_moe.runtime.device import on_this_machine, use
from polybeast_moe.runtime.episode_recorder import EpisodeRecorder
from polybeast_moe.runtime.loading import make_feed
from polybeast_moe.runtime.make import make_runtime
from polybeast_moe.runtime.process import StopRequests, keep_freed_memory, name_process, torch_cache_in
from polybeast_moe.runtime.rollouts import Rollout
from polybeast_moe.snapshots import Origin, Snapshot, SnapshotWriter, load
from polybeast_moe.snapshots.randomness import random_states, seed_all
from polybeast_moe.telemetry import Telemetry

_PAUSE_SECONDS = 0.05  # between looks at what operators want, while paused


def train(
    config: RunConfig,
    run_dir: RunDirectory,
    resume: Path | None = None,
    origin: Origin | None = None,
    ranks: Ranks = ALONE,
) -> int:
    """Trains until the last phase ends or somebody asks to stop; returns the exit code (see `StopRequests`).

    `resume` is the snapshot to go on from, `origin` the one that a new run begins with. With several `ranks` this is
    rank 0, and the others are in `follower.follow`.
    """
    keep_freed_memory()
    name_process("pbm-learner-0")
    runtime = on_this_machine(config.runtime, ranks.cores(usable_cores()), ranks.local_rank)
    torch.set_num_threads(runtime.threads or 1)
    package = check_nle()
    rounds = RankRounds(ranks, config.distributed.patience)
    rounds.begin(Begin(config, str(run_dir.log)))
    snapshot = load(resume) if resume is not None else None
    with (
        GamesFolder("polybeast-moe-") as games_folder,
        torch_cache_in(games_folder.path),
        StopRequests() as stop,
        Console() as console,
    ):
        trainer = Trainer(config, run_dir, package, games_folder.path, console, snapshot, origin, rounds)
        try:
            trainer.run(stop)
            rounds.end()
        finally:
            trainer.close()
        if not stop():
            measure_random_policy(config, run_dir.path, console.log, stop)
    if stop():
        print(f"Stopped {stop.reason}. Go on with: polybeast-moe resume {run_dir.path}")
        return stop.exit_code
    try:
        print_phase_table(phase_table(run_dir.path))
        print(f"Report: {write_report(run_dir.path)}")
    except OSError as error:
        raise RunFailed(f"trained to the end, but no report: {error}; write it with: polybeast-moe report") from None
    return 0


class Trainer:
    """Owns the parts of one run and the loop that joins them."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: RunDirectory,
        package: NlePackage,
        games_folder: Path,
        console: Console,
        snapshot: Snapshot | None = None,
        origin: Origin | None = None,
        rounds: RankRounds | None = None,
    ) -> None:
        """Builds every part; `games_folder` is an empty folder for NetHack's files, `snapshot` the state to go on from.

        A new run may begin with the weights, or the whole state, of an `origin`.
        """
        self._rounds = rounds or RankRounds(ALONE, config.distributed.patience)
        ranks = self._rounds.ranks
        runtime = on_this_machine(config.runtime, ranks.cores(usable_cores()), ranks.local_rank)
        self._config = config.model_copy(update={"runtime": runtime})
        self._given = config
        self._run_dir = run_dir
        self._console = console
        self._counters = Counters()
        self._controller = ControllerState()
        self._starts = 0
        self._snapshot_at = time.monotonic()
        self._changed: Future[Path] | None = None  # the snapshot of the last change by an operator
        with ExitStack() as parts:
            self._build(parts, package, games_folder, snapshot, origin)
            self._parts = parts.pop_all()

    def _build(
        self,
        parts: ExitStack,
        package: NlePackage,
        games_folder: Path,
        snapshot: Snapshot | None,
        origin: Origin | None,
    ) -> None:
        """Makes the parts, each the next one's ground; those that must be closed go into `parts` at once."""
        config, run_dir, console = self._given, self._run_dir, self._console
        device = torch.device(self._config.runtime.device)
        use(device)
        self._telemetry = parts.enter_context(closing(Telemetry(config, run_dir.path, console)))
        seed_all(config.seed)
        graph = configured_graph(config)
        self._graph_hash = graph.hash if graph is not None else None
        self._policy = build_policy(config, graph, num_actions=len(ACTIONS)).to(device)
        select_mixture(config.policy.mixture_backend, device, len(config.policy.experts))  # or refuses
        self._learner = Learner.configured(self._policy, config, self._rounds.ranks)
        self._recorder = EpisodeRecorder(config.env, run_dir.replays, config.monitoring.replays, console.log)
        keep, tables = config.snapshots, (run_dir.metrics, run_dir.episodes, run_dir.phases)
        writer = SnapshotWriter(
            run_dir.snapshots, keep_last=keep.keep_last, keep_every=keep.keep_every, before=tables, log=console.log
        )
        self._snapshots = parts.enter_context(closing(writer))
        held_out = HeldOutEvaluation(config.evaluation, usable_cores(), run_dir.log, console.log)
        self._held_out = parts.enter_context(closing(held_out))
        if snapshot is not None:
            self._restore(snapshot)
        elif origin is not None:
            self._begin_with(origin)
        self._rounds.share(self._policy, self._learner, self._starts, snapshot.state if snapshot is not None else {})
        self._runtime = parts.enter_context(closing(self._make_runtime(package, games_folder)))
        feed = make_feed(self._config, self._policy, self._runtime, console.log)
        self._feed = parts.enter_context(closing(feed))
        if snapshot is not None:
            self._telemetry.stand_still(resuming.restore_games(self._runtime, snapshot, console.log))
        desk = Desk(ControlServer(run_dir.path, games_folder, console.log), self, config)
        self._desk = parts.enter_context(closing(desk))

    def run(self, stop: StopRequests) -> None:
        """Trains until the curriculum ends or `stop` is asked for; the last act is a snapshot."""
        self._stop = stop
        self._settings = self._advance({})
        self._tell_runtime()
        self._rounds.tell(self._settings, self._controller.finished)
        if self._controller.finished:
            self._console.log("the run is complete: to go on in its last phase, resume with another phases.NAME.until")
        self._wait_for_start_up()
        while not self._controller.finished and not stop():
            self._desk.serve()
            self._look_after_others()
            if self._desk.paused:
                self._stand_still()
            elif (rollouts := self._rounds.collect(self._feed, self._interrupted)) is not None:
                self._update(rollouts)
        if stop():
            self._console.log("stopping: a snapshot is taken; a second signal would end the run without it")
            self.take_snapshot("signal")  # before the row below, which a resumed run writes as part of a longer one
            self._report(self._settings, due=self._telemetry.window.frames > 0)

    def _update(self, rollouts: list[Rollout]) -> None:
        """Learns from rollouts, and does what is due then: metrics, the next settings, a snapshot."""
        before = self._settings
        diagnostics = self._learn(rollouts, before)
        self._rounds.pass_on_stop(self._stop)
        if diagnostics is None:
            return
        self._settings = self._advance(diagnostics)
        self._tell_runtime()
        self._rounds.tell(self._settings, self._controller.finished)
        phase_ended = self._settings.phase != before.phase or self._controller.finished
        self._report(before, due=phase_ended)
        if phase_ended:
            self.take_snapshot("phase_end")
        elif time.monotonic() - self._snapshot_at >= self._config.snapshots.every_seconds and not self._snapshots.busy:
            self.take_snapshot("periodic")

    def _look_after_others(self) -> None:
        """Takes note of snapshots that were written and evaluations that have ended."""
        self._snapshots.look()
        self._telemetry.held_out(self._held_out.look(self._snapshots.newest))
        self._snapshots.kept = self._held_out.kept

    def _interrupted(self) -> bool:
        """Obeys operators while rollouts are collected; whether that must end."""
        self._desk.serve()
        return self._stop() or self._desk.paused or self._controller.finished

    def _stand_still(self) -> None:
        """Passes a moment of a pause. The run's clock stands still meanwhile."""
        began = time.monotonic()
        self._runtime.rest(_PAUSE_SECONDS)
        self._rounds.rest()
        self._rounds.pass_on_stop(self._stop)
        self._telemetry.stand_still(time.monotonic() - began)
        self._console.update(self._status(self._settings))

    def _wait_for_start_up(self) -> None:
        """Starts games and processes; the run's clock stands still meanwhile."""
        began = time.monotonic()
        self._console.log("starting games and processes; a first run compiles for some seconds")
        self._runtime.start(self._interrupted)
        self._snapshot_at = time.monotonic()
        self._telemetry.begin(self._snapshot_at - began, self._runtime.busy_seconds())

    def close(self) -> None:
        """Ends the games, writes what is still to be written and closes every file: each part, should one fail too."""
        self._parts.close()  # the last one first

    # What operators ask for (`control.desk.Controlled`).

    def status(self) -> dict[str, Any]:
        """Returns where the run stands, as JSON holds it."""
        self._snapshots.look()
        newest = self._snapshots.newest
        status = asdict(self._status(self._settings))
        return status | {
            "stopping": self._stop(),
            "holds": live_changes.as_shown(self._controller.holds),
            "updates": self._counters.updates,
            "actors": self._runtime.actors,
            "restarts": self._runtime.restarts,
            "fatal_games": self._runtime.fatal_games,
            "snapshot": str(newest) if newest is not None else None,
            "snapshot_wait_seconds": self._snapshots.waited_seconds,
        }

    def let_play(self, on: bool) -> None:
        """Lets the games go on, or stops them."""
        self._runtime.pause(not on)
        self._console.log("going on" if on else "paused by an operator")

    def stop(self) -> None:
        """Ends the run after a snapshot."""
        self._stop.ask()

    def change(self, changer: live_changes.Changer) -> Future[Path] | None:
        """Changes what the phase controller decides; the next inference and the next update know it.

        A run that dies goes on from its newest snapshot, so what has changed goes into one: it is returned. What was
        so already is in the one taken then, unless that failed.
        """
        before, held = self._settings, self._controller.holds
        changed = changer(self._config.phases, self._controller, self._counters)
        self._settings = self._take(*changed, metrics={})
        self._tell_runtime()
        if self._settings.phase != before.phase or self._controller.finished:
            self._report(before, due=self._telemetry.window.frames > 0)
            self._changed = self.take_snapshot("phase_end")
        elif self._controller.holds != held or _has_failed(self._changed):
            self._changed = self.take_snapshot("operator")
        return self._changed

    def _make_runtime(self, package: NlePackage, games_folder: Path) -> Runtime:
        return make_runtime(
            self._config,
            self._policy,
            package,
            games_folder,
            starts=self._starts,
            log_path=self._run_dir.log,
            log=self._console.log,
        )

    def _learn(self, rollouts: list[Rollout], settings: Settings) -> dict[str, float] | None:
        """One update: consumes the rollouts of all ranks, counts their frames and episodes; None: nobody had any."""
        began = time.perf_counter()
        batch = self._feed.batch() if rollouts else None
        episodes = [episode for rollout in rollouts for episode in rollout.episodes()]
        self._recorder.add(rollouts)
        self._runtime.give_back(rollouts)
        seen = self._rounds.update(self._learner, batch, episodes, settings)
        if seen is None:
            return None
        before = self._counters
        self._counters = Counters(before.frames + seen.frames, before.episodes + len(seen.episodes), before.updates + 1)
        self._telemetry.learnt(seen, settings, self._counters)
        self._telemetry.spent(time.perf_counter() - began, self._runtime.busy_seconds())
        return seen.report.diagnostics

    def _advance(self, metrics: dict[str, float]) -> Settings:
        """Asks the phase controller for the settings of the next update; `metrics`: of one just made, if any."""
        known = metrics | self._telemetry.window.episode_means() if metrics else metrics
        return self._take(*advance(self._config.phases, self._controller, self._counters, known), metrics=known)

    def _take(
        self, controller: ControllerState, settings: Settings, events: list[PhaseEvent], metrics: dict[str, float]
    ) -> Settings:
        """Keeps what the controller has decided and its events; returns the settings as the guards want them."""
        self._controller, settings, moved = guarded(self._config.guards, controller, settings, metrics, self._counters)
        self._telemetry.events([*events, *moved])
        return settings

    def _tell_runtime(self) -> None:
        self._runtime.set_control(
            phase=self._settings.phase_index,
            routing=self._settings.routing,
            temperature=self._settings.temperature,
            policy_version=self._learner.version,
        )

    def _report(self, settings: Settings, *, due: bool) -> None:
        """Writes a row of metrics when one is `due`, or after a while, and refreshes the console."""
        self._telemetry.row(settings, self._counters, self._runtime.restarts, due=due)
        self._console.update(self._status(settings))

    def _status(self, settings: Settings) -> Status:
        return self._telemetry.status(settings, self._counters, self._controller, self._snapshots.newest_at)

    def take_snapshot(self, kind: str) -> Future[Path]:
        """Has a snapshot written and old ones pruned. A full disk costs the snapshot, not the run."""
        self._snapshot_at = time.monotonic()
        try:
            state = self._state(kind)
        except OSError as error:  # the tables cannot be written
            return self._snapshots.failed(error)
        weights, optimizer = self._policy.state_dict(), self._learner.optimizer_state()
        return self._snapshots.take(self._counters.frames, weights, optimizer, state)

    def _state(self, kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "counters": asdict(self._counters),
            "policy_version": self._learner.version,
            "controller": self._controller.to_dict(),
            **self._telemetry.state(),
            "starts": self._starts,
            "runtime": self._runtime.state(),
            "random": random_states(),
            "ranks": self._rounds.states(self._policy),
            "graph": self._graph_hash,
            "held_out": self._held_out.state(),
            "config": self._given.to_plain(),  # what was chosen for this machine is not for the next
        }

    def _restore(self, snapshot: Snapshot) -> None:
        """Goes on with this run where its snapshot was taken."""
        self._take_over(snapshot)
        with resuming.well_formed(snapshot):
            state, changes = snapshot.state, resuming.changes_since(snapshot, self._run_dir, self._given)
            self._controller = live_changes.reopened(self._controller, changes)
            advance(self._config.phases, self._controller, self._counters, {})  # refuses a curriculum without its phase
            self._starts = state["starts"] + 1
            self._snapshots.go_on(snapshot)
            self._held_out.restore(state["held_out"])
            self._snapshots.kept = self._held_out.kept
            self._telemetry.restore(state)  # refuses files that cannot be cut back; nothing is refused after it
        resuming.tell_of_other_versions(snapshot, self._console.log)
        self._telemetry.events(live_changes.override_events(changes, self._controller, self._counters))
        self._run_dir.write_config(self._given)

    def _begin_with(self, origin: Origin) -> None:
        """Makes a new run the continuation of another one's snapshot, or begins it with its weights."""
        events: list[PhaseEvent] = []
        if origin.weights_only:
            resuming.restore_weights(self._policy, origin.snapshot, self._graph_hash)
        else:
            self._take_over(origin.snapshot)
            self._telemetry.window.begin_anew()
            with resuming.well_formed(origin.snapshot):
                self._starts = origin.snapshot.state["starts"] + 1  # so that none of its games is played again
            self._controller, events = live_changes.change_curriculum(
                self._controller, self._config.phases, self._counters
            )
        self._telemetry.events([live_changes.origin_event(origin.describe(), self._counters), *events])

    def _take_over(self, snapshot: Snapshot) -> None:
        self._counters, self._controller = resuming.take_over(
            snapshot, self._policy, self._graph_hash, self._learner, self._telemetry.window
        )


def _has_failed(snapshot: Future[Path] | None) -> bool:
    return snapshot is not None and snapshot.done() and snapshot.exception() is not None
