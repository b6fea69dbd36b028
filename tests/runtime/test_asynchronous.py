"""The asynchronous mode: what comes out is what inline gives, and no death of a process harms it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from waiting import PATIENCE, settles, wait_until
from written import Fields, written

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.runtime.asynchronous import AsynchronousRuntime
from polybeast_moe.runtime.rollouts import Rollout, rollout_layout
from polybeast_moe.runtime.supervisor import ACTOR_PROGRAM, EPISODES_OF_AN_INCARNATION

# The same rollouts as inline


class ScriptedPolicy:
    """Answers with actions that depend on the group and its number of answers alone."""

    def __init__(self, region: _C.Region) -> None:
        self.region = region
        self.rollouts = [Rollout(region, slot) for slot in range(len(region))]
        self.group_of: dict[int, int] = {}  # by slot

    def serve(self) -> None:
        for request in self.region.requests(self.region.groups):
            self.group_of[request.slot] = request.group
            rollout, t = self.rollouts[request.slot], request.step
            generator = torch.Generator().manual_seed(1000 * request.group + request.answers)
            for name in ("action", "behaviour_logits", "alpha", "initial_state"):
                row = rollout[name] if name == "initial_state" else rollout[name][t]
                if name == "action":
                    row.copy_(torch.randint(len(ACTIONS), row.shape, generator=generator))
                elif name == "alpha":
                    row.copy_(torch.softmax(torch.randn(row.shape, generator=generator), -1))
                else:
                    row.copy_(torch.randn(row.shape, generator=generator))
            for name in ("policy_version", "phase", "routing", "temperature"):
                rollout[name][t] = request.answers
            assert self.region.answer(request)


def play(region: _C.Region, rollouts_a_group: int, move: Callable[[], None]) -> list[list[Fields]]:
    """Collects the first rollouts of every group; `move` has the actors go on."""
    policy = ScriptedPolicy(region)
    found: list[list[Fields]] = [[] for _ in range(region.groups)]
    while min(map(len, found)) < rollouts_a_group:
        move()
        policy.serve()
        for slot in region.take_delivered(1):
            found[policy.group_of[slot]].append(written(policy.rollouts[slot]))
            region.give_back(slot)
    return [rollouts[:rollouts_a_group] for rollouts in found]


def make_region(config: RunConfig, nle_package) -> _C.Region:
    return _C.Region(
        rollout_layout(config, state_size=2),
        slots=6,
        actors=2,
        groups_per_actor=2,
        run_seed=7,
        game=game_settings(config.env, nle_package),
    )


def test_actor_processes_fill_the_same_rollouts_as_inline(make_config, nle_package, tmp_path: Path) -> None:
    """Given the same seeds, clock and actions, field by field."""
    config = make_config("env.store_glyphs=true", "phases.warmup.reward.new_squares=1")
    inline = make_region(config, nle_package)
    actors = [_C.Actor(inline, index, tmp_path / f"inline-{index}", 5) for index in range(2)]
    expected = play(inline, 6, lambda: [actor.run_once() for actor in actors])

    region = make_region(config, nle_package)
    processes = [
        subprocess.Popen(
            [ACTOR_PROGRAM, *map(str, (region.fd, 0, index, 5, tmp_path / f"process-{index}", os.getpid()))],
            pass_fds=[region.fd],
        )
        for index in range(2)
    ]
    got = play(region, 6, lambda: region.wait_requests(100))
    region.stop()
    assert [process.wait(PATIENCE) for process in processes] == [0, 0]

    for group, (wanted, found) in enumerate(zip(expected, got, strict=True)):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            for name in one:
                assert torch.equal(one[name], other[name]), f"{name} of rollout {number} of group {group}"
    ended = sum(int(rollout["record_count"]) for rollouts in got for rollout in rollouts)
    assert ended >= 12, "every game reaches its step limit: the test says something of ends"


# A real run with its policy worker, whose processes are killed


def collect(runtime: AsynchronousRuntime) -> list[Fields]:
    rollouts = runtime.collect()
    found = [written(rollout) for rollout in rollouts]
    runtime.give_back(rollouts)
    for rollout in found:
        check(rollout)
    return found


def check(rollout: Fields) -> None:
    """Whole, continuous within itself, and its recurrent state is that of its games."""
    first, step = rollout["first"].bool(), rollout["episode_step"]
    assert torch.equal(step[1:], torch.where(first[1:], 0, step[:-1] + 1))
    none = torch.full_like(step[1:], len(ACTIONS))
    assert torch.equal(rollout["previous_action"][1:], torch.where(first[1:], none, rollout["action"]))
    assert torch.equal(first[1:], (rollout["terminated"] | rollout["truncated"]).bool())
    counted = rollout["initial_state"][:, 0]
    assert torch.equal(torch.where(first[0], 0.0, counted), step[0].float())


def kill(runtime: AsynchronousRuntime, name: str, number: signal.Signals = signal.SIGKILL) -> int:
    pid = runtime.supervisor.pids()[name]
    os.kill(pid, number)
    return pid


def stop_while_filling(runtime: AsynchronousRuntime, name: str, groups: tuple[int, ...]) -> list[int]:
    """Stops an actor at a moment when it has begun rollouts of these groups, its own; returns their slots."""
    region = runtime.supervisor.region
    owners = [_C.OWNER_FIRST_GROUP + group for group in groups]
    while True:
        collect(runtime)
        pid = kill(runtime, name, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        if begun := [slot for slot in range(len(region)) if region.state(slot)[0] in owners]:
            return begun
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_actor_is_replaced_by_one_with_fresh_games(start_runtime, number: signal.Signals) -> None:
    runtime = start_runtime()
    begun = stop_while_filling(runtime, "pbm-actor-0.1", groups=(2, 3))
    before = kill(runtime, "pbm-actor-0.1", number)
    os.kill(before, signal.SIGCONT)
    fresh = {
        _C.episode_seeds(1, game, EPISODES_OF_AN_INCARNATION + episode) for game in range(6, 12) for episode in range(9)
    }

    def seeds(rollouts: list[Fields]) -> set[tuple[int, int]]:
        return {
            seed
            for rollout in rollouts
            for seed in zip(rollout["record_seed_core"].tolist(), rollout["record_seed_disp"].tolist(), strict=True)
        }

    played: set[tuple[int, int]] = set()
    while not played & fresh:
        played |= seeds(collect(runtime))
    supervisor = runtime.supervisor
    assert supervisor.pids()["pbm-actor-0.1"] != before
    assert supervisor.restarts == 1
    assert supervisor.lost_rollouts == len(begun)
    assert [supervisor.region.state(slot)[1] for slot in begun] == [1] * len(begun), "what it had begun is free again"
    assert runtime.messages == [f"pbm-actor-0.1 was ended by {number.name}; a new one starts in 0.1 s"]


def test_a_killed_policy_worker_costs_no_game_and_no_recurrent_state(start_runtime) -> None:
    """Every rollout's initial state counts the steps that its games' episodes really had (see `check`)."""
    runtime = start_runtime("env.max_episode_steps=500")
    collect(runtime)
    for deaths in (1, 2):
        kill(runtime, "pbm-policy-0")
        for _ in range(8):  # more rollouts than there are slots: its successor must have answered
            collect(runtime)
        assert runtime.supervisor.restarts == deaths
    assert runtime.supervisor.lost_rollouts == 0


def test_a_learner_that_does_not_come_is_waited_for(start_runtime) -> None:
    """A slot for every group and a batch more, all full: how old a rollout can be is bounded by that."""
    runtime = start_runtime("learner.slots_per_batch=3")
    region = runtime.supervisor.region
    collect(runtime)
    wait_until(lambda: all(region.state(slot)[0] == _C.OWNER_DELIVERED for slot in range(len(region))))
    assert len(region) == region.groups + 3


def test_a_paused_run_stands_still_and_goes_on(start_runtime) -> None:
    runtime = start_runtime()
    region = runtime.supervisor.region
    collect(runtime)
    region.pause(True)

    def progress() -> tuple[int, ...]:
        """Every step of a game and every answer; slots are given back, so that nobody waits for one."""
        runtime.give_back(runtime.poll())
        runtime.supervisor.check()
        return (*(region.heartbeat(actor) for actor in range(2)), region.answers)

    stands = settles(progress)
    region.pause(False)
    for _ in range(3):
        collect(runtime)
    assert all(now > then for now, then in zip(progress(), stands, strict=True))
    assert runtime.supervisor.restarts == 0
