"""A whole run, in one place: rollouts → update → metrics → phase → snapshot, until the curriculum ends."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import resolve_data_file
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.envs.games_folder import GamesFolder
from polybeast_moe.envs.nle_package import NlePackage, check_nle
from polybeast_moe.errors import RunFailed, UserError
from polybeast_moe.evaluation.random_policy import measure_random_policy
from polybeast_moe.evaluation.report import phase_table, print_phase_table, write_report
from polybeast_moe.graph import KnowledgeGraph, load_graph
from polybeast_moe.learning.learner import Learner, UpdateReport
from polybeast_moe.learning.phases import ControllerState, Counters, PhaseEvent, Settings, advance, phase_progress
from polybeast_moe.models import build_policy
from polybeast_moe.monitoring.console import Console, Status
from polybeast_moe.monitoring.metrics import MetricsWindow
from polybeast_moe.monitoring.resources import ProcessMeter, usable_cores
from polybeast_moe.monitoring.sinks import CsvSink, Sink, Sinks
from polybeast_moe.ops.backends import select_mixture
from polybeast_moe.run_directory import RunDirectory
from polybeast_moe.runtime.asynchronous import AsynchronousRuntime
from polybeast_moe.runtime.base import Runtime
from polybeast_moe.runtime.defaults import with_defaults
from polybeast_moe.runtime.episode_recorder import EpisodeRecorder
from polybeast_moe.runtime.inline import InlineRuntime
from polybeast_moe.runtime.process import StopRequests, keep_freed_memory, name_process, torch_cache_in
from polybeast_moe.runtime.rollouts import Rollout, make_batch
from polybeast_moe.snapshots import Snapshot, load, prune, save

_GAMES_PREFIX = "polybeast-moe-"
_GIVE_UP_AFTER_SKIPPED = 100  # updates in a row


def train(config: RunConfig, run_dir: RunDirectory, resume: Path | None = None) -> int:
    """Trains until the last phase ends or a signal asks to stop; returns the exit code (128 + the signal's number).

    `resume` is the snapshot to go on from.
    """
    keep_freed_memory()
    name_process("pbm-learner-0")
    torch.set_num_threads(with_defaults(config.runtime, usable_cores()).threads or 1)
    package = check_nle()
    snapshot = load(resume) if resume is not None else None
    with (
        GamesFolder(_GAMES_PREFIX) as games,
        torch_cache_in(games.path),
        StopRequests() as stop,
        Console() as console,
    ):
        trainer = Trainer(config, run_dir, package, games.path, console, snapshot)
        try:
            trainer.run(stop)
        finally:
            trainer.close()
        if not stop():
            _measure_random_policy(config, package, games.path, run_dir.path, console, stop)
    if stop():
        print(f"Stopped by a signal. Go on with: polybeast-moe resume {run_dir.path}")
        return 128 + (stop.signal_number or 0)
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
        games: Path,
        console: Console,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Builds every part; `games` is an empty folder for NetHack's files, `snapshot` the state to go on from."""
        self._config = config.model_copy(update={"runtime": with_defaults(config.runtime, usable_cores())})
        self._given = config
        self._run_dir = run_dir
        self._console = console
        self._counters = Counters()
        self._controller = ControllerState()
        self._starts = 0
        self._skipped_in_a_row = 0
        self._began = time.monotonic()
        self._meter = ProcessMeter()
        self._last_row: dict[str, Any] = {}
        self._row_at = self._snapshot_at = self._began

        torch.manual_seed(config.seed)
        graph = _load_graph(config)
        self._policy = build_policy(config, graph, num_actions=len(ACTIONS))
        select_mixture(config.policy.mixture_backend, torch.device("cpu"), len(config.policy.experts))  # or refuses
        self._learner = Learner(self._policy, config.learner)
        self._window = MetricsWindow(config.policy.expert_names)
        self._recorder = EpisodeRecorder(config.env, run_dir.replays, config.monitoring.replays, console.log)
        self._sinks = Sinks(_sinks(config, run_dir.path), console.log)
        if snapshot is not None:
            self._restore(snapshot)
        self._runtime = self._make_runtime(package, games)
        if snapshot is not None:
            self._runtime.restore(snapshot.state["runtime"])
        self._busy = self._runtime.busy_seconds()

    def run(self, stop: StopRequests) -> None:
        """Trains until the curriculum ends or `stop` is asked for; the last act is a snapshot."""
        settings = self._advance({})
        self._tell_runtime(settings)
        self._wait_for_start_up(stop)
        while not self._controller.finished and not stop():
            self._tell_runtime(settings)
            rollouts = self._runtime.collect(stop)
            if rollouts is None:
                break
            diagnostics = self._learn(rollouts, settings)
            before, settings = settings, self._advance(diagnostics)
            phase_ended = settings.phase != before.phase or self._controller.finished
            self._report(before, due=phase_ended)
            if phase_ended:
                self._save("phase_end")
            elif time.monotonic() - self._snapshot_at >= self._config.snapshots.every_seconds:
                self._save("periodic")
        if stop():
            self._console.log("stopping: a snapshot is taken; a second signal would end the run without it")
            self._report(settings, due=self._window.frames > 0)
            self._save("signal")

    def _wait_for_start_up(self, stop: StopRequests) -> None:
        """Starts games and processes; the run's clock stands still meanwhile."""
        began = time.monotonic()
        self._runtime.start(stop)
        waited = time.monotonic() - began
        self._began += waited
        self._row_at = self._snapshot_at = time.monotonic()

    def close(self) -> None:
        """Ends the games and closes every file."""
        self._runtime.close()
        self._sinks.close()

    def _make_runtime(self, package: NlePackage, games: Path) -> Runtime:
        first_episode = self._starts << 40  # every start of the run numbers its episodes anew: no seed comes twice
        if self._config.runtime.mode == "inline":
            return InlineRuntime(self._config, self._policy, package, games, first_episode=first_episode)
        return AsynchronousRuntime(
            self._config,
            self._policy,
            package,
            games,
            first_episode=first_episode,
            log_path=self._run_dir.log,
            log=self._console.log,
        )

    def _learn(self, rollouts: list[Rollout], settings: Settings) -> dict[str, float]:
        """One update: consumes the rollouts, counts their frames and episodes."""
        began = time.perf_counter()
        batch = make_batch(rollouts)
        episodes = [episode for rollout in rollouts for episode in rollout.episodes()]
        self._recorder.add(rollouts)
        self._runtime.give_back(rollouts)
        report = self._learner.update(batch, settings)
        self._watch(report)
        frames = batch.steps * batch.games
        number = self._counters.episodes
        self._counters = Counters(self._counters.frames + frames, number + len(episodes), self._counters.updates + 1)
        for episode in episodes:
            self._window.episode(episode["score"], episode["return"])
        self._sinks.episodes(
            [
                {"episode": number + i, "frames": self._counters.frames, "phase": settings.phase, **episode}
                for i, episode in enumerate(episodes, start=1)
            ]
        )
        if report.applied:
            self._window.update(frames, report.diagnostics, report.mean_alpha)
        self._window.spent("update", time.perf_counter() - began)
        busy = self._runtime.busy_seconds()
        for part, seconds in busy.items():
            self._window.spent(part, seconds - self._busy[part])
        self._busy = busy
        return report.diagnostics

    def _watch(self, report: UpdateReport) -> None:
        """Tells of an update that was skipped; gives up after too many in a row."""
        self._skipped_in_a_row = 0 if report.applied else self._skipped_in_a_row + 1
        if not report.applied:
            self._console.log(f"update {self._counters.updates + 1} skipped: its loss or gradient was not finite")
        if self._skipped_in_a_row == _GIVE_UP_AFTER_SKIPPED:
            raise RunFailed(
                f"{_GIVE_UP_AFTER_SKIPPED} updates in a row had no finite gradient: lower learning_rate and resume "
                "from a snapshot before that"
            )

    def _advance(self, metrics: dict[str, float]) -> Settings:
        """Asks the phase controller for the settings of the next update and keeps its events."""
        self._controller, settings, events = advance(
            self._config.phases, self._controller, self._counters, {**metrics, **self._episode_metrics()}
        )
        self._keep_events(events)
        return settings

    def _episode_metrics(self) -> dict[str, float]:
        scores = self._window.scores
        return {"mean_episode_score": statistics.fmean(scores)} if scores else {}

    def _keep_events(self, events: list[PhaseEvent]) -> None:
        for event in events:
            self._sinks.event({"time": time.time(), **event.to_dict()})
            if event.key == "phase":
                self._console.log(f"phase {event.new} begins at {event.frames:,} frames, {event.episodes:,} episodes")

    def _tell_runtime(self, settings: Settings) -> None:
        self._runtime.set_control(
            phase=settings.phase_index,
            routing=settings.routing,
            temperature=settings.temperature,
            policy_version=self._learner.version,
        )

    def _report(self, settings: Settings, *, due: bool) -> None:
        """Writes a row of metrics when one is `due`, or after a while, and refreshes the console."""
        now = time.monotonic()
        if due or now - self._row_at >= self._config.monitoring.every_seconds:
            self._row_at = now
            self._last_row = self._window.row(updates=self._counters.updates, **self._standing(settings, now))
            self._sinks.metrics(self._last_row)
        self._console.update(self._status(settings, now))

    def _standing(self, settings: Settings, now: float) -> dict[str, Any]:
        """Where the run stands, under the names of `metrics.csv`."""
        return {
            "frames": self._counters.frames,
            "episodes": self._counters.episodes,
            "wall_seconds": now - self._began,
            "phase": settings.phase,
            "routing": settings.routing,
            "router_temperature": settings.temperature,
            "learning_rate": settings.learning_rate,
        }

    def _status(self, settings: Settings, now: float) -> Status:
        scores = self._window.scores
        row = {**self._last_row, **self._standing(settings, now)}
        phase_fraction = phase_progress(self._config.phases, self._controller, self._counters)
        return Status.from_row(
            row,
            self._config.policy.expert_names,
            fraction=_run_progress(self._config, self._counters, settings.phase_index, phase_fraction),
            phase_fraction=phase_fraction,
            median_score=statistics.median(scores) if scores else None,
            memory_bytes=self._meter.read().rss_bytes,
            snapshot_age_seconds=now - self._snapshot_at,
        )

    def _save(self, kind: str) -> None:
        """Writes a snapshot and prunes old ones. A full disk costs the snapshot, not the run."""
        root = self._run_dir.snapshots
        try:
            save(
                root,
                self._counters.frames,
                self._policy.state_dict(),
                self._learner.optimizer_state(),
                self._state(kind),
            )
            prune(root, self._config.snapshots.keep_last)
        except OSError as error:
            self._console.log(f"no snapshot: {error}; the ones before stand, the next try is in due time")
        self._snapshot_at = time.monotonic()

    def _state(self, kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "counters": asdict(self._counters),
            "policy_version": self._learner.version,
            "wall_seconds": time.monotonic() - self._began,
            "controller": self._controller.to_dict(),
            "metrics_window": self._window.state(),
            "sinks": self._sinks.state(),
            "starts": self._starts,
            "runtime": self._runtime.state(),
            "torch_random_state": torch.get_rng_state().numpy().tobytes().hex(),
            "config": self._config.to_plain(),
        }

    def _restore(self, snapshot: Snapshot) -> None:
        state = snapshot.state
        try:
            self._policy.load_state_dict(snapshot.weights)
        except RuntimeError as error:  # a graph of other nodes under the same name, for example
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"snapshot {snapshot.path}: its weights are of another network: {reason}") from None
        self._learner.restore(snapshot.optimizer, state["policy_version"])
        self._counters = Counters(**state["counters"])
        self._controller = ControllerState.from_dict(state["controller"])
        advance(self._config.phases, self._controller, self._counters, {})  # refuses a curriculum that lost its phase
        self._window.restore(state["metrics_window"])
        self._sinks.restore(state["sinks"])  # refuses files that cannot be cut back; from here on nothing is refused
        self._run_dir.write_config(self._given)
        self._starts = state["starts"] + 1
        self._began = time.monotonic() - state["wall_seconds"]
        torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["torch_random_state"]), dtype=torch.uint8))


def _measure_random_policy(
    config: RunConfig, package: NlePackage, games: Path, run_dir: Path, console: Console, stop: StopRequests
) -> None:
    try:
        measure_random_policy(config, package, games, run_dir, console.log, stop)
    except OSError as error:
        console.log(f"no random policy to compare with: {error}")


def _load_graph(config: RunConfig) -> KnowledgeGraph | None:
    return load_graph(resolve_data_file(config.graph.file)) if config.graph.enabled else None


def _sinks(config: RunConfig, run_dir: Path) -> list[Sink]:
    sinks: list[Sink] = [CsvSink(run_dir, config.policy.expert_names)]
    if config.monitoring.tensorboard:
        from polybeast_moe.monitoring.tensorboard import TensorBoardSink  # slow to import

        sinks.append(TensorBoardSink(run_dir, config.policy.expert_names))
    return sinks


def _run_progress(config: RunConfig, counters: Counters, phase_index: int, phase_fraction: float) -> float:
    """Returns how far the whole run has come, in [0, 1]: by its last total, or by phases where that is a metric."""
    until = config.phases[-1].until
    if until.frames is not None:
        return min(1.0, counters.frames / until.frames)
    if until.episodes is not None:
        return min(1.0, counters.episodes / until.episodes)
    return (phase_index + phase_fraction) / len(config.phases)
