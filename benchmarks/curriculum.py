"""Runs the plan of docs/results/curriculum.md, run after run; may be stopped or killed, and started again, at any time.

    python benchmarks/curriculum.py --dry-run                # what is still to be run, and its expected minutes
    python benchmarks/curriculum.py                          # all of it
    python benchmarks/curriculum.py --only headline no_graph --seeds 1 2
    python benchmarks/curriculum.py --results                # the page, of the rows that there are

Each run of benchmarks/curriculum.yaml is `polybeast-moe train ... --resume-or-start` in a process of its own, then
`evaluate` on the final snapshot with the measures of specialisation (and interventions where the plan says so). Its row
goes to docs/results/curriculum/ARM-SEED.json as it ends, and so does a failure: what has a row is not run again. A run
that was interrupted has none and goes on where its newest snapshot is.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import curriculum_results
from curriculum_plan import Plan, Run, chosen, read_plan
from curriculum_rows import row_of
from results import RESULTS, ROOT, machine

from polybeast_moe.errors import RunFailed, UserError
from polybeast_moe.files import replace_file
from polybeast_moe.runtime.process import REQUEUE_CODE, die_with

PLAN = Path(__file__).with_suffix(".yaml")
PROGRAM = (sys.executable, "-m", "polybeast_moe")
LAST_WORDS = 2000  # characters of a failed command's output


class Interrupted(Exception):
    """A command was stopped from outside: that says nothing about the run."""


class Clock:
    """When a run's training commands began and ended, kept in a file: a killed sitting counts too."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.sittings: list[tuple[float, float]] = json.loads(file.read_text()) if file.exists() else []

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for a sitting's end."""
        began, earlier = time.time(), self.sittings
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            self.sittings = [*earlier, (began, time.time())]
            replace_file(self._file, as_json(self.sittings))
            if process.returncode is not None:
                return


def as_json(content: Any) -> bytes:
    """What a file of one JSON value holds."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


@contextlib.contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own, which ends with us: asked to where there is time, else by the kernel."""
    here = os.getpid()
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, start_new_session=True, preexec_fn=lambda: die_with(here)
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def done(process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises Interrupted or RunFailed for a command that did not end well."""
    code = process.returncode
    if code < 0 or code > 128 or code == REQUEUE_CODE:
        raise Interrupted(f"stopped by a signal ({code})")
    if code:
        raise RunFailed(f"exit code {code}: {log.read_text(errors='replace')[-LAST_WORDS:].strip()}")


def carry_out(plan: Plan, run: Run, folder: Path) -> dict[str, Any]:
    """Trains and evaluates; returns the row. Raises Interrupted."""
    folder.mkdir(parents=True, exist_ok=True)
    log, clock, run_dir = folder / "output.log", Clock(folder / "clock.json"), folder / "run"
    train = ["train", plan.config, "--run-dir", str(run_dir), "--resume-or-start", *plan.overrides(run)]
    evaluation = folder / "evaluation.json"
    evaluate = ["evaluate", str(run_dir), "--episodes", str(plan.episodes), "--seed", str(plan.evaluation_seed)]
    evaluate += ["--specialisation", *(["--ablate"] if run.arm.ablate else []), "--json", str(evaluation)]
    about = {
        "arm": run.arm.name,
        "seed": run.seed,
        "plan": plan.fingerprint(run),
        "overrides": plan.overrides(run),
        "machine": machine(),
    }
    try:
        with started([*PROGRAM, *train], log) as process:
            clock.watch(process)
        done(process, log)
        about |= {"sittings": len(clock.sittings)}
        last_phase = plan.configuration(run).phases[-1].name
        figures = row_of(run_dir, last_phase, plan.band, clock.sittings)
        if not figures.pop("finished"):
            raise Interrupted("an operator stopped it")
        with started([*PROGRAM, *evaluate], log) as process:
            process.wait()
        done(process, log)
    except RunFailed as failure:
        return {**about, "status": "failed", "reason": str(failure)}
    played = json.loads(evaluation.read_text())
    records = played.pop("records")
    del played["snapshot"]  # a path of this machine
    columns = {key: [record[key] for record in records] for key in ("score", "length", "depth", "turns", "how_done")}
    return {**about, "status": "finished", **figures, "evaluation": played, "episodes_played": columns}


@contextlib.contextmanager
def alone(work: Path) -> Iterator[None]:
    """Holds the folder where runs are kept: a second one of us would take runs in use for failures."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{work}: another curriculum.py is at work there; wait for it, or give --work") from None
        yield


def refuse_uncommitted(plan: Plan) -> None:
    """The plan comes before the runs. One outside this repository is somebody's own affair."""
    if not plan.file.resolve().is_relative_to(ROOT):
        return
    files = [str(plan.file.resolve()), str(ROOT / "configs"), str(RESULTS / "goals.yaml")]
    status = subprocess.run(["git", "status", "--porcelain", "--", *files], cwd=ROOT, capture_output=True, text=True)
    if status.stdout.strip():
        raise UserError(f"plan {plan.file}: commit it, configs/ and goals.yaml before the first run")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--only", nargs="+", metavar="ARM", help="these arms (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds of the plan (default: all)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "curriculum", help="where runs are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results are written, and goals.yaml is")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    parser.add_argument("--results", action="store_true", help="run nothing; write the page from the rows")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        plan = read_plan(arguments.plan)
        runs = chosen(plan, arguments.only, arguments.seeds)
        if arguments.results:
            return curriculum_results.publish(plan, arguments.out, shlex.join(["python", *sys.argv]))
        return carry_on(plan, runs, arguments)
    except UserError as error:
        print(f"curriculum: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def carry_on(plan: Plan, runs: Sequence[Run], arguments: argparse.Namespace) -> int:
    """Carries out every run that has no row yet; returns the exit code."""
    rows = arguments.out / "curriculum"
    curriculum_results.refuse_other_plans(plan, rows)
    left = [run for run in runs if not (rows / f"{run.name}.json").exists()]
    total = sum(plan.minutes(run) for run in left)
    print(f"{len(runs) - len(left)} runs are done, {len(left)} are left: about {total:.0f} minutes", flush=True)
    if arguments.dry_run:
        for run in left:
            print(f"{run.name:24s}{plan.minutes(run):6.1f} min  {run.arm.asks}")
        return 0
    refuse_uncommitted(plan)
    rows.mkdir(parents=True, exist_ok=True)
    with alone(arguments.work):
        for run in left:
            print(f"{run.name}: begins (about {plan.minutes(run):.0f} minutes)", flush=True)
            try:
                row = carry_out(plan, run, arguments.work / run.name)
            except Interrupted as interrupted:
                print(f"{run.name}: {interrupted}; start this again to go on", file=sys.stderr)
                return 1
            replace_file(rows / f"{run.name}.json", as_json(row))
            print(f"{run.name}: {row['status']}, {outcome(row)}", flush=True)
    return 0


def outcome(row: dict[str, Any]) -> str:
    """A row in a line."""
    return f"mean score {row['evaluation']['mean_score']:.1f}" if "evaluation" in row else row["reason"]


if __name__ == "__main__":
    sys.exit(main())
