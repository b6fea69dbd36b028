"""This project and the systems that one would otherwise use, on one machine, taking turns. `make benchmark`.

    python benchmarks/side_by_side.py --dry-run              # what is still to be run, and about how many minutes
    python benchmarks/side_by_side.py                        # all of it; may be stopped or killed, and started again
    python benchmarks/side_by_side.py --only search learning_search    # only which settings are best for each
    python benchmarks/side_by_side.py --only same_network --arms ours monobeast --rounds 3
    python benchmarks/side_by_side.py --results              # the page, of the rows that there are

The plan is benchmarks/peers/plan.yaml. Each task is one run of a peer's adapter in that peer's environment; its row is
appended to docs/results/peers/MEASUREMENT.jsonl as it ends, failure or not, and what has a row is not run again.
`--seconds` and `--out` are for trying things out: rows of other seconds than the plan's are another plan's.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peers import environments, page
from peers.games import read_episodes
from peers.job import Job
from peers.launch import Failed, run_adapter
from peers.plan import PLAN, Plan, Task, fingerprint, read_plan, read_rows, refuse_other_plans, row_of, settings_of
from peers.scores import learning_curve
from results import RESULTS, machine

from polybeast_moe.errors import UserError, nearest


def chosen(plan: Plan, arguments: argparse.Namespace) -> list[Task]:
    """The tasks that the command line asks for. Raises UserError for a name that the plan does not have."""
    for name in arguments.only or ():
        plan.measurement(name)
    arms = {arm.name for measurement in plan.measurements for arm in measurement.arms}
    for name in arguments.arms or ():
        if name not in arms:
            raise UserError(f"--arms {name}: the plan has no such arm{nearest(name, arms)}")
    return [
        task
        for task in plan.tasks()
        if (arguments.only is None or task.measurement.name in arguments.only)
        and (arguments.arms is None or task.arm.name in arguments.arms)
        and (arguments.rounds is None or task.arm.trials or task.index <= arguments.rounds)
    ]


def with_seconds(plan: Plan, seconds: float | None) -> Plan:
    """The plan, every arm measured for so long."""
    if seconds is None:
        return plan
    return dataclasses.replace(
        plan,
        measurements=tuple(
            dataclasses.replace(one, arms=tuple(dataclasses.replace(arm, seconds=seconds) for arm in one.arms))
            for one in plan.measurements
        ),
    )


def carry_out(task: Task, settings: dict[str, Any]) -> dict[str, Any]:
    """Runs one task; returns its row."""
    arm, measurement = task.arm, task.measurement
    row: dict[str, Any] = {
        "arm": arm.name,
        "index": task.index,
        "plan": fingerprint(task, settings),
        "settings": settings,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
    }
    with tempfile.TemporaryDirectory(prefix="side-by-side-", ignore_cleanup_errors=True) as directory:
        job = Job(
            folder=Path(directory),
            began=time.time(),
            seconds=arm.seconds,
            warm_up=arm.warm_up,
            network=arm.network,
            engine=arm.engine,
            seed=1 if arm.trials else task.index,
            learning=measurement.learning,
            kill=measurement.kill,
            settings=settings,
        )
        try:
            row |= {"status": "finished", **run_adapter(arm.system, job)}
        except Failed as failure:
            return {**row, "status": "failed", "reason": str(failure)}
        if measurement.learning:
            curve = learning_curve(read_episodes(job.episodes, job.began), row["progress"], arm.seconds)
            if not curve:
                return {**row, "status": "failed", "reason": "no episode ended"}
            row |= {"curve": curve, "last_score": curve[-1]["score"]}
        return row


def append(row: dict[str, Any], file: Path) -> None:
    """Adds a line to a measurement's file, after taking away one that was not finished. Whole lines are not touched."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as out:
        out.seek(0)
        out.truncate(out.read().rfind(b"\n") + 1)
        out.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")


def outcome(row: dict[str, Any]) -> str:
    """A row in a line."""
    if row["status"] == "failed":
        return f"failed: {row['reason'][:200]}"
    said = f"{row['frames_per_second']:,.0f} frames/s, {row['pss_bytes_per_environment'] / 1e6:.1f} MB an environment"
    if "last_score" in row:
        said += f", score {row['last_score']:.1f}"
    if "kill" in row:
        said += f", after a kill: {row['kill']}"
    return said


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Refuses to measure beside another one of us."""
    environments.FOLDER.mkdir(parents=True, exist_ok=True)
    with (environments.FOLDER / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError("another side_by_side.py is measuring here; wait for it") from None
        yield


def carry_on(plan: Plan, tasks: Sequence[Task], arguments: argparse.Namespace) -> int:
    """Carries out every task that has no row yet; returns the exit code."""
    folder = arguments.out / "peers"
    rows = read_rows(folder)
    refuse_other_plans(plan, rows)
    left = [task for task in tasks if row_of(task, rows) is None]
    total = sum(plan.minutes(task) for task in left)
    print(f"{len(tasks) - len(left)} tasks are done, {len(left)} are left: about {total:.0f} minutes", flush=True)
    if arguments.dry_run:
        show(plan, left)
        return 0
    for system in sorted({task.arm.system for task in left}):
        if not environments.is_ready(system):
            raise UserError(f"{system} has no environment yet: python benchmarks/peers/environments.py --only {system}")
    for task in left:
        rows = read_rows(folder)
        settings = settings_of(plan, task, rows)
        row = carry_out(task, settings)
        append(row, folder / f"{task.measurement.name}.jsonl")
        print(f"{task.name}: {outcome(row)}", flush=True)
    return 0


def show(plan: Plan, tasks: Sequence[Task]) -> None:
    """Prints tasks by arm."""
    by_arm: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        by_arm.setdefault((task.measurement.name, task.arm.name), []).append(task)
    for (measurement, arm), those in by_arm.items():
        minutes = sum(plan.minutes(task) for task in those)
        print(f"{measurement:18s}{arm:28s}{len(those):3d} runs{minutes:8.1f} min  {those[0].measurement.asks}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument(
        "--only", nargs="+", metavar="MEASUREMENT", help="these measurements of the plan (default: all)"
    )
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these arms (default: all)")
    parser.add_argument("--rounds", type=int, help="at most so many rounds")
    parser.add_argument("--seconds", type=float, help="measure every arm for so long instead; give --out too")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results are written")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    parser.add_argument("--results", action="store_true", help="run nothing; write the page from the rows")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if arguments.seconds is not None and arguments.out == RESULTS:
            raise UserError("--seconds: not beside the plan's own rows; give --out FOLDER")
        plan = with_seconds(read_plan(arguments.plan), arguments.seconds)
        if arguments.results:
            return page.publish(plan, arguments.out, shlex.join(["python", *sys.argv]))
        tasks = chosen(plan, arguments)
        with alone():
            return carry_on(plan, tasks, arguments)
    except UserError as error:
        print(f"side_by_side: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
