"""Processes are named, watched and replaced; they end with their learner, and one that cannot live ends the run."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from processes import alive
from waiting import wait_until

from polybeast_moe import _C
from polybeast_moe.envs.games_folder import GamesFolder
from polybeast_moe.runtime import supervisor as supervision
from polybeast_moe.runtime.asynchronous import AsynchronousRuntime
from polybeast_moe.runtime.supervisor import ProcessesKeepDyingError

POLICY, ACTOR = "pbm-policy-0", "pbm-actor-0.0"


def go_on(runtime: AsynchronousRuntime, batches: int = 1) -> None:
    for _ in range(batches):
        runtime.give_back(runtime.collect())


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def suspend(runtime: AsynchronousRuntime, name: str) -> int:
    pid = runtime.supervisor.pids()[name]
    os.kill(pid, signal.SIGSTOP)
    return pid


def until_restarts(runtime: AsynchronousRuntime, number: int) -> None:
    supervisor = runtime.supervisor

    def restarted() -> bool:
        supervisor.check()
        return supervisor.restarts >= number

    wait_until(restarted)
    assert supervisor.restarts == number


def until_only_one_has_work(runtime: AsynchronousRuntime, name: str) -> None:
    """Of the policy worker and the one actor; it has been suspended, and the other comes to wait for it."""
    region = runtime.supervisor.region

    def the_other_waits() -> bool:
        runtime.give_back(runtime.poll())  # there are slots to fill
        return len(region.requests(2)) == 2 if name == POLICY else region.actor_has_work(0) and not region.requests(1)

    wait_until(the_other_waits)


def work_a_little_and_die(runtime: AsynchronousRuntime, deaths: int, number: signal.Signals = signal.SIGKILL) -> None:
    go_on(runtime, 8)
    os.kill(runtime.supervisor.pids()[ACTOR], number)
    until_restarts(runtime, deaths)


def test_every_process_has_its_name_and_ends_with_the_run(start_runtime, tmp_path: Path) -> None:
    runtime = start_runtime()
    go_on(runtime)
    pids = runtime.supervisor.pids()
    assert set(pids) == {"pbm-actor-0.0", "pbm-actor-0.1", "pbm-policy-0"}
    assert {name_of(pid): pid for pid in pids.values()} == pids
    assert len(list((tmp_path / "games-0").glob("actor-*/game-*"))) == 12
    suspend(runtime, "pbm-actor-0.1")  # one that does not listen changes nothing
    runtime.close()
    assert not any(map(alive, pids.values()))
    assert not list((tmp_path / "games-0").glob("actor-0/*"))
    runtime.supervisor.stop()  # twice does no harm


@pytest.mark.parametrize("name", [ACTOR, POLICY])
def test_who_hangs_is_replaced(start_runtime, name: str) -> None:
    runtime = start_runtime("runtime.actors=1")
    go_on(runtime, 2)
    supervisor = runtime.supervisor
    hung = suspend(runtime, name)
    until_only_one_has_work(runtime, name)  # on a busy machine the other one could seem to hang too
    supervisor.hung_after = 0.5
    until_restarts(runtime, 1)
    supervisor.hung_after = 60.0
    assert not alive(hung)
    go_on(runtime, 8)
    assert supervisor.restarts == 1
    assert runtime.messages[0].startswith(f"{name} hung for 0 s and was killed")


def test_a_policy_worker_that_is_starting_does_not_hang(start_runtime) -> None:
    """It imports torch and compiles while actors wait: for minutes where other processes want the cores too."""
    runtime = start_runtime("runtime.actors=1", "policy.class=counting_policy.PolicyThatIsNeverMade")
    supervisor, region = runtime.supervisor, runtime.supervisor.region
    supervisor.check()
    until_only_one_has_work(runtime, POLICY)
    supervisor.hung_after = 0.01
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        supervisor.check()
    assert (supervisor.restarts, region.answers) == (0, 0)
    supervisor.starts_within = 0.1
    until_restarts(runtime, 1)
    assert runtime.messages[0].startswith("pbm-policy-0 hung for 0 s and was killed")


def test_an_actor_that_hangs_without_a_slot_is_noticed(start_runtime) -> None:
    """Or a learner would wait for it forever."""
    runtime = start_runtime("runtime.actors=1", "runtime.unroll=2")
    go_on(runtime)
    supervisor, region = runtime.supervisor, runtime.supervisor.region
    delivered = (_C.OWNER_DELIVERED,) * len(region)
    wait_until(lambda: tuple(region.state(slot)[0] for slot in range(len(region))) == delivered)
    assert not region.actor_has_work(0)  # its groups wait for slots
    suspend(runtime, ACTOR)
    go_on(runtime, 2)
    assert region.actor_has_work(0)
    supervisor.hung_after = 0.3
    until_restarts(runtime, 1)


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
    silent = suspend(runtime, POLICY)
    until_only_one_has_work(runtime, POLICY)
    supervisor.check()
    now = time.monotonic
    monkeypatch.setattr(supervision.time, "monotonic", lambda: now() + 3600)
    supervisor.check()
    assert supervisor.restarts == 0
    os.kill(silent, signal.SIGCONT)
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
        work_a_little_and_die(runtime, deaths)


def test_an_actor_that_works_a_little_and_dies_again_and_again_ends_the_run(
    start_runtime, monkeypatch, no_pauses
) -> None:
    monkeypatch.setattr(supervision, "_SHORT_LIFE", 3600.0)  # on a busy machine a little work may take a minute
    runtime = start_runtime("runtime.actors=1", "runtime.deaths_allowed=3")
    for deaths in (1, 2, 3):
        work_a_little_and_die(runtime, deaths, signal.SIGSEGV)
    with pytest.raises(ProcessesKeepDyingError, match=r"pbm-actor-0\.0 died 4 times in a row within 3600 s .*SIGSEGV$"):
        work_a_little_and_die(runtime, 4, signal.SIGSEGV)


def test_deaths_far_apart_do_not_add_up(start_runtime, monkeypatch, no_pauses) -> None:
    monkeypatch.setattr(supervision, "_SHORT_LIFE", 0.0)
    runtime = start_runtime("runtime.actors=1", "runtime.deaths_allowed=1")
    for deaths in range(1, 4):
        work_a_little_and_die(runtime, deaths)


@pytest.mark.parametrize("moment", ["while they start", "in play"])
def test_everybody_dies_with_the_learner_and_the_next_start_sweeps(
    tiny_file: Path, tmp_path: Path, monkeypatch, begin, moment: str
) -> None:
    """SIGKILL gives it no chance to say goodbye."""
    temporary, run = tmp_path / "tmp", tmp_path / "run"
    temporary.mkdir()
    overrides = ["phases.transition.until.frames=100_000_000", "runtime.mode=asynchronous", "runtime.actors=2"]
    learner = begin("train", tiny_file, "--run-dir", run, *overrides, "snapshots.every_seconds=0.5", TMPDIR=temporary)
    wait_until(lambda: len(psutil.Process(learner.pid).children()) == 3, learner)
    if moment == "in play":
        wait_until(lambda: any(run.glob("snapshots/step-*")), learner)
    children = psutil.Process(learner.pid).children()
    learner.kill()
    learner.wait()
    wait_until(lambda: not any(alive(child.pid) for child in children))
    [left] = temporary.glob("polybeast-moe*")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with GamesFolder("polybeast-moe-") as games:
        assert list(temporary.glob("polybeast-moe*")) == [games.path] != [left]
