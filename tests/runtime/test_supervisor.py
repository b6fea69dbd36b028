"""Processes are named, watched and replaced; they end with their learner, and one that cannot live ends the run."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from polybeast_moe.envs.games_folder import GamesFolder
from polybeast_moe.runtime import supervisor as supervision
from polybeast_moe.runtime.asynchronous import AsynchronousRuntime
from polybeast_moe.runtime.supervisor import ProcessesKeepDyingError

pytestmark = pytest.mark.usefixtures("one_thread")


def wait_until(done: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def go_on(runtime: AsynchronousRuntime, batches: int = 1) -> None:
    for _ in range(batches):
        runtime.give_back(runtime.collect())


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_every_process_has_its_name_and_ends_with_the_run(start_runtime, tmp_path: Path) -> None:
    runtime = start_runtime()
    go_on(runtime)
    pids = runtime.supervisor.pids()
    assert set(pids) == {"pbm-actor-0.0", "pbm-actor-0.1", "pbm-policy-0"}
    assert {name_of(pid): pid for pid in pids.values()} == pids
    assert len(list((tmp_path / "games-0").glob("actor-*/game-*"))) == 12
    os.kill(pids["pbm-actor-0.1"], signal.SIGSTOP)  # one that does not listen changes nothing
    began = time.monotonic()
    runtime.close()
    assert time.monotonic() - began < 5
    assert not any(map(alive, pids.values()))
    assert not list((tmp_path / "games-0").glob("actor-0/*"))
    runtime.supervisor.stop()  # twice does no harm


@pytest.mark.parametrize("name", ["pbm-actor-0.0", "pbm-policy-0"])
def test_who_hangs_is_replaced(start_runtime, name: str) -> None:
    runtime = start_runtime("runtime.actors=1")
    go_on(runtime, 2)
    supervisor = runtime.supervisor
    hung = supervisor.pids()[name]
    os.kill(hung, signal.SIGSTOP)
    supervisor.hung_after = 0.5
    assert wait_until(lambda: (supervisor.check(), supervisor.restarts)[1] == 1)
    supervisor.hung_after = 60.0
    assert not alive(hung)
    go_on(runtime, 8)
    assert supervisor.restarts == 1
    assert "hung for 0 s" in runtime.messages[0]


def test_a_policy_worker_that_is_starting_does_not_hang(start_runtime) -> None:
    """It imports torch and compiles while actors wait: for minutes where other processes want the cores too."""
    runtime = start_runtime("runtime.actors=1")
    supervisor, region = runtime.supervisor, runtime.supervisor.region
    supervisor.hung_after = 0.01
    supervisor.check()
    assert wait_until(lambda: len(region.requests(2)) == 2)  # now the actor has nothing to do
    os.kill(supervisor.pids()["pbm-policy-0"], signal.SIGSTOP)  # in the middle of its imports
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        supervisor.check()
    assert (supervisor.restarts, region.answers) == (0, 0)
    supervisor.starts_within = 0.1
    assert wait_until(lambda: (supervisor.check(), supervisor.restarts)[1] == 1)
    assert runtime.messages[0].startswith("pbm-policy-0 hung for 0 s")


def test_an_actor_that_hangs_without_a_slot_is_noticed(start_runtime) -> None:
    """Or a learner would wait for it forever."""
    runtime = start_runtime("runtime.actors=1", "runtime.unroll=2")
    go_on(runtime)
    supervisor, region = runtime.supervisor, runtime.supervisor.region
    time.sleep(0.2)  # nothing is given back: the groups wait for slots
    os.kill(supervisor.pids()["pbm-actor-0.0"], signal.SIGSTOP)
    go_on(runtime, 2)
    assert region.actor_has_work(0)
    supervisor.hung_after = 0.3
    assert wait_until(lambda: (supervisor.check(), supervisor.restarts)[1] == 1)


def test_who_hangs_is_noticed_though_others_take_its_work(start_runtime) -> None:
    """Free slots go to other actors between two looks: every second look finds nothing that it could do."""
    runtime = start_runtime("runtime.actors=1")
    go_on(runtime)
    supervisor = runtime.supervisor
    child = next(child for child in supervisor._children if child.name == "pbm-actor-0.0")
    os.kill(child.process.pid, signal.SIGSTOP)
    looks = itertools.cycle([True, False])
    child.has_work = lambda: next(looks)
    supervisor.hung_after = 0.3
    assert wait_until(lambda: (supervisor.check(), supervisor.restarts)[1] == 1)


def test_silence_counts_only_while_somebody_looks(start_runtime, monkeypatch) -> None:
    """A learner that was itself stopped for an hour kills nobody when it goes on."""
    runtime = start_runtime("runtime.actors=1")
    go_on(runtime)
    supervisor = runtime.supervisor
    os.kill(supervisor.pids()["pbm-policy-0"], signal.SIGSTOP)
    wait_until(lambda: bool(supervisor.region.requests(1)))
    supervisor.check()
    now = time.monotonic
    monkeypatch.setattr(supervision.time, "monotonic", lambda: now() + 3600)
    supervisor.check()
    assert supervisor.restarts == 0
    os.kill(supervisor.pids()["pbm-policy-0"], signal.SIGCONT)
    go_on(runtime, 8)
    assert supervisor.restarts == 0


@pytest.fixture
def no_pauses(monkeypatch) -> None:
    monkeypatch.setattr(supervision, "_FIRST_PAUSE", 0.001)


def test_an_actor_that_cannot_live_ends_the_run_with_its_reason(start_runtime, nle_package, no_pauses) -> None:
    runtime = start_runtime(package=dataclasses.replace(nle_package, library=Path("/nowhere/libnethack.so")))
    with pytest.raises(ProcessesKeepDyingError, match=r"pbm-actor-0\.\d died 8 times in a row.*libnethack"):
        runtime.collect()
    assert len(runtime.messages) >= 7


def test_a_policy_that_always_fails_ends_the_run_with_its_reason(start_runtime, monkeypatch, no_pauses) -> None:
    monkeypatch.setattr(supervision, "_GIVE_UP_AFTER", 2)
    runtime = start_runtime("policy.class=counting_policy.BrokenPolicy", "runtime.actors=1")
    with pytest.raises(
        ProcessesKeepDyingError,
        match=r"pbm-policy-0 died 2 times in a row, last: ended with code 1: ArithmeticError: this policy is broken$",
    ):
        runtime.collect()


def test_deaths_with_work_in_between_do_not_add_up(start_runtime, monkeypatch, no_pauses) -> None:
    monkeypatch.setattr(supervision, "_GIVE_UP_AFTER", 2)
    runtime = start_runtime("runtime.actors=1")
    for deaths in range(1, 5):
        go_on(runtime, 8)
        os.kill(runtime.supervisor.pids()["pbm-actor-0.0"], signal.SIGKILL)
        assert wait_until(lambda deaths=deaths: (runtime.supervisor.check(), runtime.supervisor.restarts)[1] == deaths)


def test_an_actor_that_works_a_little_and_dies_again_and_again_ends_the_run(start_runtime, no_pauses) -> None:
    runtime = start_runtime("runtime.actors=1", "runtime.deaths_allowed=3")
    supervisor = runtime.supervisor

    def work_a_little_and_die(deaths: int) -> None:
        go_on(runtime, 8)
        os.kill(supervisor.pids()["pbm-actor-0.0"], signal.SIGSEGV)
        assert wait_until(lambda: (supervisor.check(), supervisor.restarts)[1] == deaths)

    for deaths in (1, 2, 3):
        work_a_little_and_die(deaths)
    with pytest.raises(ProcessesKeepDyingError, match=r"pbm-actor-0\.0 died 4 times in a row within 60 s .*SIGSEGV$"):
        work_a_little_and_die(4)


def test_deaths_far_apart_do_not_add_up(start_runtime, monkeypatch, no_pauses) -> None:
    monkeypatch.setattr(supervision, "_SHORT_LIFE", 0.0)
    runtime = start_runtime("runtime.actors=1", "runtime.deaths_allowed=1")
    for deaths in range(1, 4):
        go_on(runtime, 8)
        os.kill(runtime.supervisor.pids()["pbm-actor-0.0"], signal.SIGKILL)
        assert wait_until(lambda deaths=deaths: (runtime.supervisor.check(), runtime.supervisor.restarts)[1] == deaths)


@pytest.mark.parametrize("moment", ["while they start", "in play"])
def test_everybody_dies_with_the_learner_and_the_next_start_sweeps(
    tiny_file: Path, tmp_path: Path, monkeypatch, moment: str
) -> None:
    """SIGKILL gives it no chance to say goodbye."""
    temporary, run = tmp_path / "tmp", tmp_path / "run"
    temporary.mkdir()
    command = [sys.executable, "-m", "polybeast_moe", "train", str(tiny_file), "--run-dir", str(run)]
    command += [
        "phases.transition.until.frames=10_000_000",
        "runtime.mode=asynchronous",
        "runtime.actors=2",
        "snapshots.every_seconds=0.5",
    ]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as learner:
        try:
            assert wait_until(lambda: len(psutil.Process(learner.pid).children()) == 3, 60)
            assert moment == "while they start" or wait_until(lambda: any(run.glob("snapshots/step-*")), 60)
            children = psutil.Process(learner.pid).children()
        finally:
            learner.kill()
    assert wait_until(lambda: not any(alive(child.pid) for child in children), 5)
    [left] = temporary.glob("polybeast-moe*")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with GamesFolder("polybeast-moe-") as games:
        assert list(temporary.glob("polybeast-moe*")) == [games.path] != [left]
