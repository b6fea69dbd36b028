"""The command `evaluate`: plays, prints a table, writes JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polybeast_moe.config import EnvConfig, RunConfig
from polybeast_moe.config.env import CHARACTER_ROLES
from polybeast_moe.config_files import load_config
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.ablate import ablate, changes
from polybeast_moe.evaluation.evaluate import Figures, evaluate_policy
from polybeast_moe.evaluation.interventions import all_experts
from polybeast_moe.evaluation.play import GAMES
from polybeast_moe.evaluation.portraits import ExpertPortraits, together
from polybeast_moe.evaluation.printing import details, score_table
from polybeast_moe.evaluation.specialisation import StateCollector, measure
from polybeast_moe.evaluation.trained import TrainedPolicy, load_trained
from polybeast_moe.files import replace_file
from polybeast_moe.monitoring.resources import usable_cores


@dataclass(frozen=True)
class EvaluateRequest:
    """What the command line asks for."""

    snapshots: Sequence[str]
    episodes: int
    seed: int | None = None
    policy: str = "trained"
    character: str | None = None
    max_steps: int | None = None
    greedy: bool = False
    games: int = GAMES
    specialisation: bool = False
    ablate: bool = False
    json: Path | None = None


@dataclass(frozen=True)
class _Contestant:
    """One line of the table: who plays, under which protocol. `trained` None: uniformly random actions."""

    name: str
    trained: TrainedPolicy | None
    config: RunConfig


def run_evaluate(request: EvaluateRequest) -> int:
    """Evaluates every snapshot asked for; returns the exit code.

    Raises:
        UserError: something asked for cannot be, before anything is played.
    """
    _check(request)
    seed = secrets.randbits(31) if request.seed is None else request.seed
    torch.set_num_threads(max(1, usable_cores() - 1))  # one is the engine's
    found = [_evaluated(contestant, request, seed) for contestant in _contestants(request)]
    console = Console(highlight=False)
    console.print(score_table(found))
    for figures in found:
        console.print(details(figures), soft_wrap=True)
    if request.json is not None:
        _write(request.json, found[0] if len(found) == 1 else {"seed": seed, "evaluations": found})
    return 0


def _check(request: EvaluateRequest) -> None:
    if request.policy == "trained" and not request.snapshots:
        raise UserError("evaluate: name a run directory or a snapshot, or ask for --policy random")
    if request.policy == "random" and (request.ablate or request.specialisation):
        raise UserError("--policy random has no experts: leave out --ablate and --specialisation")
    for name, value in (("--episodes", request.episodes), ("--games", request.games)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    if request.seed is not None and not 0 <= request.seed < 2**63:
        raise UserError(f"--seed must be a whole number in [0, 2**63), not {request.seed}")
    if request.json is not None and (request.json.is_dir() or not request.json.absolute().parent.is_dir()):
        raise UserError(f"--json {request.json}: there is no such folder to write the file to")


def _contestants(request: EvaluateRequest) -> list[_Contestant]:
    loaded = [load_trained(path) for path in request.snapshots]
    entries: list[tuple[str, TrainedPolicy | None, RunConfig]] = [
        (f"{trained.path.absolute().parent.parent.name}/{trained.frames}", trained, trained.config)
        for trained in loaded
    ]
    if request.ablate:
        for one in loaded:
            changes(one)  # or refuses
    if request.policy == "random":
        configs = [trained.config for trained in loaded] or [load_config("quickstart", ["env.max_episode_steps=5000"])]
        entries = [("random policy", None, config) for config in configs]
    characters: Sequence[str | None] = CHARACTER_ROLES if request.character == "all" else [request.character]
    found = []
    for name, trained, config in entries:
        for character in characters:
            asked = _asked(config, character, request)
            own = None if trained is None else dataclasses.replace(trained, config=asked)
            found.append(_Contestant(name if len(characters) == 1 else f"{name} {character}", own, asked))
    return found


def _asked(config: RunConfig, character: str | None, request: EvaluateRequest) -> RunConfig:
    """The run's configuration with what the command line asks for instead."""
    asked = {"character": character, "max_episode_steps": request.max_steps}
    given = {key: value for key, value in asked.items() if value is not None}
    try:
        env = EnvConfig.model_validate({**config.env.model_dump(), **given})
    except ValidationError as error:
        detail = error.errors()[0]
        option = "character" if detail["loc"][0] == "character" else "max-steps"
        raise UserError(f"--{option}: {detail['msg'].removeprefix('Value error, ')}") from None
    return config.model_copy(update={"env": env})


class _Bars:
    """One progress bar after the other, on the terminal alone; gone when all is done."""

    def __init__(self, total: int) -> None:
        speed = TextColumn("{task.fields[speed]}")
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), speed, TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._total = total

    def __call__(self, name: str) -> Callable[[int, int], None]:
        """Begins a bar; returns what `play_episodes` reports to."""
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        task = self._progress.add_task(name, total=self._total, speed="")

        def report(ended: int, steps: int) -> None:
            elapsed = self._progress.tasks[0].elapsed or 0.0
            speed = f"{steps / elapsed:,.0f} frames/s" if elapsed > 0 else ""
            self._progress.update(task, completed=ended, speed=speed)

        return report

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()


def _evaluated(contestant: _Contestant, request: EvaluateRequest, seed: int) -> Figures:
    trained, config = contestant.trained, contestant.config
    protocol = {"env": config.env.model_dump(mode="json"), "games": request.games}
    versions = {"versions": {name: version(name) for name in ("polybeast-moe", "torch", "nle")}}
    with _Bars(request.episodes) as bars:
        if trained is None:
            found = evaluate_policy(
                None, config, "softmax", 1.0, request.episodes, seed, games=request.games, progress=bars("random play")
            )
            assert found is not None  # nobody interrupts but by an exception
            figures, played = found
            return {"name": contestant.name, "policy": "random", **figures, **protocol, **versions} | {
                "records": played.records
            }
        who: Figures = {"name": contestant.name, "policy": "trained", "snapshot": str(trained.path)}
        who |= {"trained_frames": trained.frames, "phase": trained.phase, "routing": trained.routing}
        who |= {"temperature": trained.temperature, "actions": "greedy" if request.greedy else "drawn"}
        return {**who, **_of_trained(contestant.name, trained, request, seed, bars), **protocol, **versions}


def _of_trained(name: str, trained: TrainedPolicy, request: EvaluateRequest, seed: int, bars: _Bars) -> Figures:
    """Figures of a trained policy, of its experts too where they are asked for."""
    collector = StateCollector() if request.specialisation or request.ablate else None
    portraits = ExpertPortraits(trained.policy, trained.config) if collector is not None else None
    with all_experts(trained.policy) if collector is not None else contextlib.nullcontext():
        found = evaluate_policy(
            trained.policy,
            trained.config,
            trained.routing,
            trained.temperature,
            request.episodes,
            seed,
            greedy=request.greedy,
            games=request.games,
            watch=None if collector is None or portraits is None else together(collector, portraits),
            progress=bars(name),
        )
    assert found is not None
    figures, played = found
    if collector is not None:
        figures["specialisation"] = measure(collector.states(), trained.config.policy.expert_names)
    if portraits is not None:
        figures["specialisation"] |= portraits.figures()
    if request.ablate:
        figures["ablations"] = ablate(trained, played, greedy=request.greedy, games=request.games, progress=bars)
    return {**figures, "records": played.records}


def _write(path: Path, content: Figures) -> None:
    try:
        replace_file(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written: {error.strerror}") from None
