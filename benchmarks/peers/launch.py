"""Runs one adapter in its peer's environment, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from peers.environments import python_of
from peers.job import Job
from peers.memory import family, is_alive, session

BENCHMARKS = Path(__file__).parents[1]
LAST_WORDS = 1500  # characters of a failed adapter's output
PATIENCE = 420.0  # seconds beyond what the job takes, starting included

# What this project sets for its own processes by mallopt (polybeast_moe/runtime/process.py), and a single arena.
# Without it glibc returns large freed blocks to the system after every update: torch then spends its time in page
# faults.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "1",
}


class Failed(Exception):
    """The adapter gave no result; says why."""


def command(system: str, job_file: Path | str = "FOLDER/job.json") -> list[str]:
    """What is run, with BENCHMARKS on the path."""
    return [str(python_of(system)), "-m", f"peers.{system}", str(job_file)]


def run_adapter(system: str, job: Job) -> dict[str, Any]:
    """Carries a job out; returns what the adapter printed. Raises Failed; KeyboardInterrupt passes through."""
    job.folder.mkdir(parents=True, exist_ok=True)
    path = [BENCHMARKS, BENCHMARKS.parent]  # the second for the engine in a peer's loop
    environment = {**os.environ, **MALLOC, "PYTHONPATH": os.pathsep.join(map(str, path)), "WANDB_MODE": "disabled"}
    output, errors = job.folder / "output", job.folder / "errors"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            command(system, job.write()),
            stdout=out,
            stderr=err,
            cwd=job.folder,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(job.seconds + job.warm_up + job.kill + PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_family(process)
    found = last_result(output.read_text(errors="replace"))
    if found is None or "failed" in found:
        said = "no result" if found is None else found["failed"]
        how = "it hung" if code is None else f"exit code {code}"
        raise Failed(f"{said}, {how}: {last_words(errors.read_text(errors='replace'), job.folder)}")
    return found


def last_result(output: str) -> dict[str, Any] | None:
    """The last line that is a JSON object; peers print what they like before it."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
    return None


def last_words(errors: str, folder: Path) -> str:
    """The end of what was said, without colours and without where it was said."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", errors)
    for place, name in ((folder, "FOLDER"), (BENCHMARKS.parent, "."), (Path.home(), "~")):
        plain = plain.replace(str(place), name)
    return plain[-LAST_WORDS:].strip()


def end_family(process: subprocess.Popen[bytes]) -> None:
    """Kills what is left of a command's session and of its descendants, and waits until they have ended."""
    left = {*family(process.pid), *session(process.pid)}
    for pid in left - {process.pid}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()
    until = time.monotonic() + 5
    while time.monotonic() < until and any(is_alive(pid) for pid in left):
        time.sleep(0.05)
