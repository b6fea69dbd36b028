"""However a real asynchronous run ends, nothing of it outlives its learner, and its last line is the reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import of_session
from run_files import rows
from waiting import PATIENCE, wait_until

POLICIES = """
import torch
from polybeast_moe.models.policy import GraphMoEPolicy


class FailsInTheLearner(GraphMoEPolicy):
    def forward(self, *arguments, **options):
        if torch.is_grad_enabled():
            raise ArithmeticError("the learner meets something impossible")
        return super().forward(*arguments, **options)
"""
SETTINGS = [
    "runtime.mode=asynchronous",
    "runtime.actors=2",
    "runtime.policy_threads=1",
    "monitoring.every_seconds=0.05",
    "evaluation.random_episodes=2",
]


@dataclass
class Run:
    """A run in a session of its own, with temporary files in `temporary`."""

    process: subprocess.Popen[str]
    directory: Path
    temporary: Path

    def wait_until_it_trains(self) -> None:
        wait_until(lambda: rows(self.directory), self.process)
        assert len(of_session(self.process.pid)) == 4  # a learner, a policy worker, two actors

    def end(self) -> tuple[int, str]:
        """Waits for its end; returns the exit code and the last line, and holds that nothing is left."""
        out, err = self.process.communicate(timeout=PATIENCE)
        assert of_session(self.process.pid) == []
        assert list(self.temporary.iterdir()) == []
        return self.process.returncode, (err or out).strip().splitlines()[-1]


@pytest.fixture
def start(tiny_file: Path, tmp_path: Path, begin) -> Callable[..., Run]:
    def start(*overrides: str, before: Sequence[str] = ()) -> Run:
        temporary, directory = tmp_path / "temporary", tmp_path / "disk" / "run"
        temporary.mkdir()
        directory.parent.mkdir()
        (tmp_path / "failing.py").write_text(POLICIES)
        line = ["train", tiny_file, "--run-dir", directory, *SETTINGS, *overrides]
        return Run(begin(*line, before=before, TMPDIR=temporary, PYTHONPATH=tmp_path), directory, temporary)

    return start


ENDLESS = "phases.transition.until.frames=100_000_000"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_by_how_to_go_on(start: Callable[..., Run], number: signal.Signals) -> None:
    run = start(ENDLESS)
    run.wait_until_it_trains()
    if number == signal.SIGINT:
        os.killpg(run.process.pid, number)  # Ctrl-C reaches everybody in the foreground
    else:
        run.process.send_signal(number)
    code, last = run.end()
    assert code == 128 + number
    assert last == f"Stopped by a signal. Go on with: polybeast-moe resume {run.directory}"


def test_an_exception_in_the_learner_is_the_last_line(start: Callable[..., Run]) -> None:
    code, last = start(ENDLESS, "policy.class=failing.FailsInTheLearner").end()
    assert (code, last) == (1, "ArithmeticError: the learner meets something impossible")


@pytest.fixture
def full_disk(tmp_path: Path) -> Callable[[str, str], list[str]]:
    """A command before a command: it sees a file system of its own, with next to no room, in a folder of `tmp_path`."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    probe = [*unshare, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")

    def before(folder: str, options: str) -> list[str]:
        mount = f"mount -t tmpfs -o {options} tmpfs {tmp_path / folder}"
        return [*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh"]

    return before


def test_a_full_disk_is_said_and_the_run_ends_with_its_curriculum(start: Callable[..., Run], full_disk) -> None:
    code, last = start(before=full_disk("disk", "size=16k")).end()
    assert code == 1
    assert last.startswith("polybeast-moe: trained to the end, but no report: ")


def test_no_room_for_games_ends_the_run_with_the_reason(start: Callable[..., Run], full_disk) -> None:
    code, last = start(ENDLESS, "runtime.deaths_allowed=1", before=full_disk("temporary", "nr_inodes=16")).end()
    assert code == 1
    assert last.startswith("polybeast-moe: pbm-actor-0.")
    assert "No space left on device" in last
