"""Measures the joints of the pipeline: a wake-up between processes, actors with a policy of no cost, their memory.

    python benchmarks/queues.py                           # an actor for every usable core
    python benchmarks/queues.py --actors 2 --seconds 10 --rounds 5 --json queues.json

* wake-up: from just before one process asks (`Region.request`) to just after another, which slept on the futex, goes on
  in `wait_requests`; both calls come from Python, whose few microseconds are included.
* throughput: real actor processes whose policy does nothing but give the turn back, against as many processes that step
  the same games in a plain loop (`_C.Group`): no region shared, no bell, no policy. Both take turns within a round.
* memory: PSS of an actor process with 32 games, and its private memory files, whose pages need not be mapped.

On an idle machine: the load average before the start is part of the result. (The file is not called queue.py, because
that would hide the standard library's module from every script beside it.)
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.monitoring.resources import usable_cores
from polybeast_moe.runtime.supervisor import ACTOR_PROGRAM

UNROLL, GROUPS, CROP, SEED = 32, 2, 9, 1
MIB = 1 << 20


def make_region(actors: int, games: int) -> _C.Region:
    """Two groups of `games` games an actor, a slot for each and two beyond."""
    layout = _C.RolloutLayout(
        unroll=UNROLL,
        games=games,
        actions=len(ACTIONS),
        experts=4,
        state=0,
        crop=CROP,
        store_glyphs=False,
        max_episode_steps=5000,
    )
    settings = game_settings(EnvConfig(), check_nle())
    region = _C.Region(layout, actors * GROUPS + 2, actors, GROUPS, SEED, settings)
    for slot in range(len(region)):
        fill_actions(region, slot)
    return region


def field(region: _C.Region, slot: int, name: str) -> NDArray[Any]:
    [(_, dtype, shape, offset)] = [entry for entry in region.layout.fields if entry[0] == name]
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return region.slot(slot)[offset : offset + count].view(dtype).reshape(shape)


def fill_actions(region: _C.Region, slot: int) -> None:
    """Random actions for every step: they stay in the slot, so that a policy has nothing to write."""
    actions = field(region, slot, "action")
    actions[:] = np.random.default_rng(slot).integers(len(ACTIONS), size=actions.shape)


# Wake-ups


def answer_with_the_time(fd: int, wakes: int) -> None:
    """The other side: notes when it woke, then gives the turn back."""
    region = _C.Region.attach(fd)
    times = region.slot(1)[64:].view(np.int64)
    for _ in range(wakes):
        while not (found := region.requests(1)):
            region.wait_requests(1000)
            times[0] = time.monotonic_ns()
        region.answer(found[0])


def measure_wake_ups(wakes: int, parts: int = 5) -> dict[str, Any]:
    region = make_region(1, 1)
    times = region.slot(1)[64:].view(np.int64)
    context = multiprocessing.get_context("fork")
    other = context.Process(target=answer_with_the_time, args=(region.fd, wakes))
    other.start()
    latencies = []
    for _ in range(wakes):
        time.sleep(0.001)  # it is asleep by then
        asked = time.monotonic_ns()
        region.request(0, 0, 0, 0)
        while region.turn(0)[0] == _C.TURN_POLICY:
            time.sleep(0.0001)
        latencies.append((int(times[0]) - asked) / 1000)
    other.join()
    cuts = statistics.quantiles(latencies, n=100)
    size = wakes // parts
    medians = [statistics.median(latencies[i : i + size]) for i in range(0, parts * size, size)]
    return {"wakes": wakes, "median_us": cuts[49], "medians_us": medians, "p90_us": cuts[89], "p99_us": cuts[98]}


# Actors


@contextmanager
def actor_processes(region: _C.Region) -> Iterator[list[psutil.Process]]:
    """Real actors of a region, with folders of their own."""
    with tempfile.TemporaryDirectory(prefix="queues-") as folder:
        processes = []
        try:
            for index in range(region.actors):
                arguments = [region.fd, 0, index, 0, Path(folder) / str(index), os.getpid()]
                processes.append(
                    psutil.Popen(
                        [str(ACTOR_PROGRAM), *map(str, arguments)], pass_fds=[region.fd], stdout=subprocess.DEVNULL
                    )
                )
            yield processes
        finally:
            region.stop()
            for process in processes:
                process.wait(10)


def serve_for(region: _C.Region, seconds: float) -> None:
    """A policy and a learner of no cost: turns are given back, slots returned."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        region.wait_requests(50)
        for request in region.requests(region.groups):
            region.answer(request)
        for slot in region.take_delivered(1):
            region.give_back(slot)


def steps_through_the_pipeline(region: _C.Region, seconds: float) -> float:
    """Game steps a second of actors that are already at play."""
    games = field(region, 0, "action").shape[1]

    def made() -> int:
        return games * sum(region.heartbeat(actor) for actor in range(region.actors))

    before, began = made(), time.monotonic()
    serve_for(region, seconds)
    return (made() - before) / (time.monotonic() - began)


def step_alone(index: int, games: int, commands: Any) -> None:
    """The same games in a plain loop, for as many seconds as it is told; answers with its steps a second."""
    region = make_region(1, games)
    settings = game_settings(EnvConfig(), check_nle())
    library = _C.LibraryFile(str(check_nle().library))
    with tempfile.TemporaryDirectory(prefix="queues-") as folder:
        groups = [
            _C.Group(
                library,
                settings,
                Path(folder),
                region.layout,
                run_seed=SEED,
                first_game=(index * GROUPS + number) * games,
            )
            for number in range(GROUPS)
        ]
        for slot, group in enumerate(groups):
            group.open(region, slot)
        commands.send("ready")
        while seconds := commands.recv():
            steps, began = 0, time.monotonic()
            while time.monotonic() < began + seconds:
                for slot, group in enumerate(groups):
                    group.open(region, slot)
                for t in range(UNROLL):
                    for slot, group in enumerate(groups):
                        group.step(region, slot, t)
                        steps += games
            commands.send(steps / (time.monotonic() - began))
        del groups


@contextmanager
def lone_engines(actors: int, games: int) -> Iterator[Callable[[float], float]]:
    """Processes that step without the pipeline; what is yielded runs them for some seconds and adds up their rates."""
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for index in range(actors):
        mine, theirs = context.Pipe()
        processes.append(context.Process(target=step_alone, args=(index, games, theirs)))
        processes[-1].start()
        pipes.append(mine)
    for pipe in pipes:
        pipe.recv()

    def run(seconds: float) -> float:
        for pipe in pipes:
            pipe.send(seconds)
        return float(sum(pipe.recv() for pipe in pipes))

    try:
        yield run
    finally:
        for pipe in pipes:
            pipe.send(0)
        for process in processes:
            process.join(10)


def measure_throughput(actors: int, games: int, seconds: float, rounds: int) -> dict[str, Any]:
    region = make_region(actors, games)
    alone, through, busy = [], [], []
    with lone_engines(actors, games) as run_alone, actor_processes(region):
        serve_for(region, 2.0)
        run_alone(2.0)
        for _ in range(rounds):
            alone.append(run_alone(seconds))
            worked = region.busy_seconds()[0]
            through.append(steps_through_the_pipeline(region, seconds))
            busy.append((region.busy_seconds()[0] - worked) / (actors * seconds))
    return {
        "actors": actors,
        "games_an_actor": GROUPS * games,
        "engine_alone_steps_per_second": statistics.median(alone),
        "pipeline_steps_per_second": statistics.median(through),
        "share": statistics.median(b / a for a, b in zip(alone, through, strict=True)),
        "actors_busy_share": statistics.median(busy),
        "rounds": [{"alone": a, "pipeline": b} for a, b in zip(alone, through, strict=True)],
    }


# Memory


def private_files(pid: int, shared: int) -> int:
    """Bytes of memory files that a process holds, without the shared one (an inode)."""
    sizes = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if str(entry.readlink()).startswith("/memfd:"):
            status = entry.stat()
            sizes[status.st_ino] = status.st_blocks * 512
    sizes.pop(shared, None)
    return sum(sizes.values())


def mapped_pages_of_private_files(pid: int) -> int:
    """What PSS already counts of them: pages that are mapped and were not copied on write."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            inside = "/memfd:" in line and "pbm-region" not in line
        elif inside and words[0] == "Pss:":
            total += int(words[1]) * 1024
        elif inside and words[0] == "Anonymous:":
            total -= int(words[1]) * 1024
    return total


def measure_memory(games: int = 16) -> dict[str, float]:
    region = make_region(1, games)
    with actor_processes(region) as [process]:
        serve_for(region, 3.0)
        pss = process.memory_full_info().pss
        files = private_files(process.pid, os.fstat(region.fd).st_ino)
        counted = pss - mapped_pages_of_private_files(process.pid) + files
        rss = process.memory_info().rss
    return {
        "games": GROUPS * games,
        "rss_mib": rss / MIB,
        "pss_mib": pss / MIB,
        "private_files_mib": files / MIB,
        "pss_with_all_pages_of_private_files_mib": counted / MIB,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--actors", type=int, default=usable_cores())
    parser.add_argument("--games-per-group", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wakes", type=int, default=3000)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures = {
        "benchmark": "queues",
        "cores": usable_cores(),
        "load_average_before": os.getloadavg()[0],
        "wake_up": measure_wake_ups(arguments.wakes),
        "throughput": measure_throughput(
            arguments.actors, arguments.games_per_group, arguments.seconds, arguments.rounds
        ),
        "memory": [measure_memory() for _ in range(3)],
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
