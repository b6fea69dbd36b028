"""The command `evaluate`: plays, prints a table, writes JSON."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from polybeast_moe.config import EnvConfig, RunConfig
from polybeast_moe.config.env import CHARACTER_ROLES
from polybeast_moe.config_files import load_config
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.evaluate import Figures, evaluate_policy
from polybeast_moe.evaluation.play import GAMES
from polybeast_moe.evaluation.trained import TrainedPolicy, load_trained
from polybeast_moe.monitoring.resources import usable_cores
from polybeast_moe.ops.mixture import Routing


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    snapshots: Sequence[str]
    episodes: int
    seed: int | None = None
    policy: str = "trained"
    character: str | None = None
    max_episode_steps: int | None = None
    greedy: bool = False
    games: int = GAMES
    json: Path | None = None


@dataclass(frozen=True)
class _Contestant:
    """One line of the table: who plays, under which protocol. `trained` None: uniformly random actions."""

    name: str
    trained: TrainedPolicy | None
    config: RunConfig


def run_evaluate(request: Request) -> int:
    """Evaluates every snapshot asked for; returns the exit code.

    Raises:
        UserError: something asked for cannot be, before anything is played.
    """
    _check(request)
    seed = secrets.randbits(31) if request.seed is None else request.seed
    torch.set_num_threads(max(1, usable_cores() - 1))  # one is the engine's
    found = [_evaluated(contestant, request, seed) for contestant in _contestants(request)]
    console = Console(highlight=False)
    console.print(_table(found))
    for figures in found:
        console.print(_details(figures), soft_wrap=True)
    if request.json is not None:
        _write(request.json, found[0] if len(found) == 1 else {"seed": seed, "evaluations": found})
    return 0


def _check(request: Request) -> None:
    if request.policy == "trained" and not request.snapshots:
        raise UserError("evaluate: name a run directory or a snapshot, or ask for --policy random")
    for name, value in (("--episodes", request.episodes), ("--games", request.games)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    if request.seed is not None and not 0 <= request.seed < 2**63:
        raise UserError(f"--seed must be a whole number in [0, 2**63), not {request.seed}")
    if request.json is not None and (request.json.is_dir() or not request.json.absolute().parent.is_dir()):
        raise UserError(f"--json {request.json}: there is no such folder to write the file to")


def _contestants(request: Request) -> list[_Contestant]:
    loaded = [load_trained(path) for path in request.snapshots]
    entries: list[tuple[str, TrainedPolicy | None, RunConfig]] = [
        (f"{trained.path.absolute().parent.parent.name}/{trained.frames}", trained, trained.config)
        for trained in loaded
    ]
    if request.policy == "random":
        configs = [trained.config for trained in loaded] or [load_config("quickstart", ["env.max_episode_steps=5000"])]
        entries = [("random policy", None, config) for config in configs]
    characters: Sequence[str | None] = CHARACTER_ROLES if request.character == "all" else [request.character]
    return [
        _Contestant(
            name if len(characters) == 1 else f"{name} {character}", trained, _asked(config, character, request)
        )
        for name, trained, config in entries
        for character in characters
    ]


def _asked(config: RunConfig, character: str | None, request: Request) -> RunConfig:
    """The run's configuration with what the command line asks for instead."""
    asked = {"character": character, "max_episode_steps": request.max_episode_steps}
    given = {key: value for key, value in asked.items() if value is not None}
    try:
        env = EnvConfig.model_validate({**config.env.model_dump(), **given})
    except ValidationError as error:
        detail = error.errors()[0]
        option = str(detail["loc"][0]).replace("_", "-")
        raise UserError(f"--{option}: {detail['msg'].removeprefix('Value error, ')}") from None
    return config.model_copy(update={"env": env})


def _evaluated(contestant: _Contestant, request: Request, seed: int) -> Figures:
    trained = contestant.trained
    policy = None if trained is None else trained.policy
    routing: Routing = "softmax" if trained is None else trained.routing
    temperature = 1.0 if trained is None else trained.temperature
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(contestant.name, total=request.episodes, speed="")

        def progress(ended: int, steps: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            speed = f"{steps / elapsed:,.0f} frames/s" if elapsed > 0 else ""
            bar.update(task, completed=ended, speed=speed)

        found = evaluate_policy(
            policy,
            contestant.config,
            routing,
            temperature,
            request.episodes,
            seed,
            greedy=request.greedy,
            games=request.games,
            progress=progress,
        )
    assert found is not None  # nobody interrupts but by an exception
    figures, played = found
    who: Figures = {"name": contestant.name, "policy": "random" if trained is None else "trained"}
    if trained is not None:
        who |= {"snapshot": str(trained.path), "trained_frames": trained.frames, "phase": trained.phase}
        who |= {"routing": routing, "temperature": temperature, "actions": "greedy" if request.greedy else "drawn"}
    protocol = {"env": contestant.config.env.model_dump(mode="json"), "games": request.games}
    versions = {"versions": {name: version(name) for name in ("polybeast-moe", "torch", "nle")}}
    return {**who, **figures, **protocol, **versions, "records": played.records}


def _table(found: Sequence[Figures]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", overflow="fold")
    for title in ("games", "mean ± se", "95 %", "median", "IQM", "sd/mean", "max", "length"):
        table.add_column(title, justify="right")
    for figures in found:
        error, cv = figures["standard_error"], figures["score_cv"]
        table.add_row(
            figures["name"],
            str(figures["episodes"]),
            f"{figures['mean_score']:.1f}" + ("" if error is None else f" ± {error:.1f}"),
            "{:.1f}-{:.1f}".format(*figures["mean_score_interval"]),
            f"{figures['median_score']:.0f}",
            f"{figures['interquartile_mean']:.1f}",
            "-" if cv is None else f"{cv:.2f}",
            f"{figures['max_score']:.0f}",
            f"{figures['mean_length']:.0f}",
        )
    return table


def _details(figures: Figures) -> str:
    """A few lines on one evaluation."""

    def listed(values: dict[str, float], form: str) -> str:
        return ", ".join(f"{name} {value:{form}}" for name, value in values.items())

    lines = [
        "",
        f"{figures['name']} (seed {figures['seed']}, {figures['env']['character']}, at most "
        f"{figures['env']['max_episode_steps']} steps)",
        f"  score     {listed(figures['score_parts'], '.1f')}; quartiles "
        + "{:.0f} and {:.0f}".format(*figures["score_quartiles"]),
        f"  depth     {figures['mean_depth']:.2f} on average, {figures['max_depth']} at most",
        f"  ends      {listed(figures['ends'], 'd')}",
    ]
    if "expert_shares" in figures:
        lines += [
            f"  routing   {figures['routing']} at temperature {figures['temperature']:.3g}: alpha entropy "
            f"{figures['alpha_entropy']:.3f}, usage entropy {figures['usage_entropy']:.3f}",
            f"  experts   {listed(figures['expert_shares'], '.3f')}",
        ]
    lines += [f"  speed     {figures['frames_per_second']:,.0f} frames/s over {figures['frames']:,} frames"]
    return "\n".join(lines)


def _write(path: Path, content: Figures) -> None:
    aside = path.with_name(path.name + ".part")
    try:
        aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written: {error.strerror}") from None
