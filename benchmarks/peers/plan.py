"""The plan of the comparison with the peers: `plan.yaml` as tasks, what each asks of an adapter, and its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from polybeast_moe.errors import UserError, nearest

PLAN = Path(__file__).with_name("plan.yaml")

Rows = Mapping[str, Sequence[dict[str, Any]]]
"""Measurement -> its rows so far, in the order in which they were measured."""


@dataclass(frozen=True)
class Arm:
    """One system in one measurement."""

    name: str
    system: str
    seconds: float
    warm_up: float
    network: str = "shared"
    engine: str = "stock"
    settings: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[Mapping[str, Any], ...] = ()
    best_of: str | None = None
    like: str | None = None
    reference: bool = False


@dataclass(frozen=True)
class Measurement:
    """Arms that take turns, `rounds` times; one with trials goes through these instead."""

    name: str
    asks: str
    arms: tuple[Arm, ...]
    rounds: int
    kill: float
    learning: bool


class Task(NamedTuple):
    """One run of one adapter: of a round (a seed), or of a trial; both count from 1."""

    measurement: Measurement
    arm: Arm
    index: int

    @property
    def name(self) -> str:
        return f"{self.measurement.name}/{self.arm.name}/{self.index}"


@dataclass(frozen=True)
class Plan:
    """All that is measured."""

    start: float
    measurements: tuple[Measurement, ...]

    def tasks(self) -> Iterator[Task]:
        """Every task, in the order of measuring: arms in turn, forwards in one round and backwards in the next."""
        for measurement in self.measurements:
            count = max([measurement.rounds, *(len(arm.trials) for arm in measurement.arms)])
            for index in range(1, count + 1):
                for arm in measurement.arms if index % 2 else reversed(measurement.arms):
                    yield Task(measurement, arm, index)

    def minutes(self, task: Task) -> float:
        """How long it takes."""
        if task.measurement.learning:
            return (task.arm.seconds + 5) / 60
        return (self.start + task.arm.warm_up + task.arm.seconds + task.measurement.kill) / 60

    def measurement(self, name: str) -> Measurement:
        """By name. Raises UserError."""
        known = {one.name: one for one in self.measurements}
        if name not in known:
            raise UserError(f"the plan has no measurement {name!r}{nearest(name, known)}")
        return known[name]


def read_plan(file: Path = PLAN) -> Plan:
    """Reads a plan. Raises UserError where something in it is missing, unknown, or of uneven numbers of trials."""
    data = yaml.safe_load(file.read_text())
    try:
        plan = Plan(data["start"], tuple(_measurement(name, one) for name, one in data["measurements"].items()))
    except (KeyError, TypeError) as error:
        raise UserError(f"plan {file}: {error} is missing or no setting of an arm") from None
    for measurement in plan.measurements:
        where = f"plan {file}: {measurement.name}"
        if len({len(arm.trials) for arm in measurement.arms}) != 1:
            raise UserError(f"{where}: every arm gets the same number of trials")
        for arm in measurement.arms:
            if arm.best_of is None:
                continue
            name, known = arm.like or arm.name, [one.name for one in plan.measurement(arm.best_of).arms]
            if name not in known:
                raise UserError(f"{where}: {arm.best_of} has no arm {name!r}{nearest(name, known)}")
    return plan


def _measurement(name: str, data: Mapping[str, Any]) -> Measurement:
    shared = {key: data[key] for key in ("seconds", "warm_up", "network") if key in data}
    arms = []
    for arm, own in data["arms"].items():
        given = {"warm_up": 0.0, **shared, **own}
        arms.append(Arm(arm, **{**given, "trials": tuple(given.get("trials", ()))}))
    return Measurement(
        name, data["asks"], tuple(arms), data.get("rounds", 1), data.get("kill", 0.0), data.get("learning", False)
    )


def settings_of(plan: Plan, task: Task, rows: Rows) -> dict[str, Any]:
    """What the system is set to. Raises UserError where a search that it rests on is not finished."""
    arm = task.arm
    found: dict[str, Any] = {}
    if arm.best_of is not None:
        found |= best(plan, arm.best_of, arm.like or arm.name, rows)
    return found | dict(arm.settings) | (dict(arm.trials[task.index - 1]) if arm.trials else {})


def best(plan: Plan, search: str, name: str, rows: Rows) -> dict[str, Any]:
    """The settings of the best trial of an arm: the most frames a second, or the highest last score."""
    measurement = plan.measurement(search)
    [arm] = [one for one in measurement.arms if one.name == name]
    tried = [row for row in rows.get(search, ()) if row["arm"] == name]
    if len(tried) < len(arm.trials):
        raise UserError(
            f"{search} has {len(tried)} of {len(arm.trials)} trials of {name}: "
            f"python benchmarks/side_by_side.py --only {search}"
        )
    finished = [row for row in tried if row["status"] == "finished"]
    if not finished:
        raise UserError(f"{search}: every trial of {name} failed")
    key = "last_score" if measurement.learning else "frames_per_second"
    return dict(max(finished, key=lambda row: row[key])["settings"])


def fingerprint(task: Task, settings: Mapping[str, Any]) -> str:
    """Of all that a row depends on but the code: rows of another plan are told by it."""
    arm, measurement = task.arm, task.measurement
    asked = [arm.system, arm.engine, arm.network, arm.seconds, arm.warm_up, measurement.kill, measurement.learning]
    return hashlib.sha256(json.dumps([*asked, dict(settings)], sort_keys=True).encode()).hexdigest()[:16]


def row_of(task: Task, rows: Rows) -> dict[str, Any] | None:
    """The task's row, if there is one."""
    for row in rows.get(task.measurement.name, ()):
        if (row["arm"], row["index"]) == (task.arm.name, task.index):
            return row
    return None


def refuse_other_plans(plan: Plan, rows: Rows) -> None:
    """Raises UserError where a row was made by another plan than this one: it would be compared with unlike rows."""
    known = {task.name: task for task in plan.tasks()}
    for name, kept in rows.items():
        for row in kept:
            task = known.get(f"{name}/{row['arm']}/{row['index']}")
            if task is None or row["plan"] != fingerprint(task, settings_of(plan, task, rows)):
                where = f"{name}.jsonl, {row['arm']} {row['index']}"
                raise UserError(f"{where}: made by another plan than this is now; take the line away and run it again")


def read_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every complete line of every measurement's file."""
    found = {}
    for file in sorted(folder.glob("*.jsonl")):
        text = file.read_text()
        found[file.stem] = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return found
