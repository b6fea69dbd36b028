"""The plan of the curriculum's result: benchmarks/curriculum.yaml as arms, and what each sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from polybeast_moe import yaml_text
from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import load_config, resolve_config_path
from polybeast_moe.errors import UserError, nearest

ABLATIONS = 2  # plays of each change: itself, and noise of its size


@dataclass(frozen=True)
class Arm:
    """One way to train: a share of the configuration's length, and settings of its own."""

    name: str
    asks: str
    length: float
    settings: Mapping[str, Any]
    ablate: bool = False


class Run(NamedTuple):
    """One training run of the plan."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """What is run and how it is judged."""

    file: Path
    config: str
    """Path or bundled name, as `train` takes it."""
    seeds: tuple[int, ...]
    always: Mapping[str, Any]
    episodes: int
    evaluation_seed: int
    band: tuple[float, float]
    compare_with: str
    frozen: str
    expected: Mapping[str, float]
    arms: tuple[Arm, ...]
    remarks: tuple[str, ...] = ()
    """Sentences for the page: what rows cannot tell."""

    def runs(self) -> Iterator[Run]:
        """Every run, seed after seed: whoever stops early has all arms of the first seeds."""
        return (Run(arm, seed) for seed in self.seeds for arm in self.arms)

    def overrides(self, run: Run) -> list[str]:
        """What `train` is given after the configuration's name. Raises UserError where it would refuse that."""
        base = load_config(self.config)
        found = [f"seed={run.seed}", *_assigned(self.always, base), *_shortened(base, run.arm.length)]
        return [*found, *_assigned(run.arm.settings, base)]

    def configuration(self, run: Run) -> RunConfig:
        """The run's resolved configuration."""
        return load_config(self.config, self.overrides(run))

    def fingerprint(self, run: Run) -> str:
        """Of all that a run's figures depend on but the code: rows of another plan are told by it."""
        text = resolve_config_path(self.config).read_text(encoding="utf-8")
        asked = {"config": yaml_text.parse(text, self.config)[0], "overrides": self.overrides(run)}
        asked |= {"ablate": run.arm.ablate, "band": self.band, "episodes": self.episodes, "seed": self.evaluation_seed}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def minutes(self, run: Run) -> float:
        """How long it is expected to take at most: every episode at its step limit."""
        config = self.configuration(run)
        last, steps = config.phases[-1].until, config.env.max_episode_steps
        frames = last.frames or (last.episodes or 0) * steps
        changes = (len(config.policy.expert_names) + 2 + config.graph.enabled) if run.arm.ablate else 0
        played = self.episodes * steps * (1 + ABLATIONS * changes)
        return (frames / self.expected["training"] + played / self.expected["evaluation"]) / 60


def read_plan(file: Path) -> Plan:
    """Reads a plan; `config` may be named relative to its folder.

    Raises:
        UserError: it cannot be read, something is missing, or an arm is no configuration or the same as another.
    """
    try:
        data, _ = yaml_text.parse(file.read_text(encoding="utf-8"), str(file))
        beside = file.parent / data["config"]
        plan = Plan(
            file=file,
            config=str(beside) if beside.is_file() else data["config"],
            seeds=tuple(data["seeds"]),
            always=data["always"],
            episodes=data["evaluation"]["episodes"],
            evaluation_seed=data["evaluation"]["seed"],
            band=(data["band"][0], data["band"][1]),
            compare_with=data["compare_with"],
            frozen=data["frozen"],
            expected=data["expected"],
            arms=tuple(
                Arm(name, arm["asks"], arm["length"], arm.get("settings", {}), arm.get("ablate", False))
                for name, arm in data["arms"].items()
            ),
            remarks=tuple(data.get("remarks", ())),
        )
    except OSError as error:
        raise UserError(f"plan {file}: cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"plan {file}: {error} is missing or no section") from None
    _check(plan)
    return plan


def chosen(plan: Plan, arms: list[str] | None, seeds: list[int] | None) -> list[Run]:
    """The plan's runs of these arms and seeds; None: all. Raises UserError for one that is not in the plan."""
    names = [arm.name for arm in plan.arms]
    for name in arms or ():
        if name not in names:
            raise UserError(f"--only {name}: the plan has no such arm{nearest(name, names)}")
    for seed in seeds or ():
        if seed not in plan.seeds:
            raise UserError(f"--seeds {seed}: the plan has {', '.join(map(str, plan.seeds))}")
    wanted_arms, wanted_seeds = arms or names, seeds or plan.seeds
    return [run for run in plan.runs() if run.arm.name in wanted_arms and run.seed in wanted_seeds]


def _check(plan: Plan) -> None:
    names = [arm.name for arm in plan.arms]
    for name in (plan.compare_with, plan.frozen):
        if name not in names:
            raise UserError(f"plan {plan.file}: there is no arm {name!r}{nearest(name, names)}")
    seen: dict[str, str] = {}
    for arm in plan.arms:
        try:
            found = json.dumps(plan.configuration(Run(arm, plan.seeds[0])).to_plain(), sort_keys=True)
        except UserError as error:
            raise UserError(f"plan {plan.file}: arm {arm.name}: {error}") from None
        if found in seen:
            raise UserError(f"plan {plan.file}: arms {seen[found]} and {arm.name} are the same")
        seen[found] = arm.name


def _assigned(settings: Mapping[str, Any], base: RunConfig) -> list[str]:
    """`key=value` for every setting, `phases.*.` written out for every phase."""
    found = []
    for key, value in settings.items():
        every = [f"phases.{phase.name}." for phase in base.phases] if key.startswith("phases.*.") else [""]
        found += [f"{one}{key.removeprefix('phases.*.') if one else key}={json.dumps(value)}" for one in every]
    return found


def _shortened(base: RunConfig, length: float) -> list[str]:
    """Every phase's end, at that share of the way."""
    found = []
    for phase in base.phases:
        for unit in ("episodes", "frames"):
            end = getattr(phase.until, unit)
            if end is not None and length != 1:
                found.append(f"phases.{phase.name}.until.{unit}={round(end * length)}")
    return found
