"""How fast NetHack is stepped: the engine against Gymnasium's vector environments over stock NLE, in turns.

    python benchmarks/engine.py                                   # every contestant at 1, 8, 32 and 128 games
    python benchmarks/engine.py --games 32 --rounds 5 --json engine.json
    python benchmarks/engine.py --games 1 32 128 --results        # writes docs/results/engine.md and engine.json

Random actions, the same keys and seeds for all. Contestants take turns within a round; a figure is the median over
rounds, a ratio the median of the rounds' ratios. The turn counter of every contestant must advance: a fresh game waits
at a prompt, where millions of steps a second would be keys eaten.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import nle  # noqa: F401 - registers the environments
import numpy as np
import results
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from polybeast_moe.envs import NetHackVectorEnv

KEYS = ("glyphs", "blstats", "message")
TIME = 20  # the turn counter's place in blstats
ACTIONS = 23


def stock() -> gymnasium.Env[Any, Any]:
    return gymnasium.make("NetHackScore-v0", observation_keys=KEYS)


class Ours:
    """The engine, its games in `processes` processes."""

    def __init__(self, games: int, processes: int = 1) -> None:
        self.env = NetHackVectorEnv("NetHackScore-v0", games, observation_keys=KEYS, num_processes=processes)
        self.turns = int(self.env.reset()[0]["blstats"][:, TIME].sum())

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Returns the turn counters."""
        return self.env.step(actions)[0]["blstats"][:, TIME]

    def close(self) -> None:
        """Ends the games."""
        self.env.close()


class Gymnasium:
    """Stock NLE in one of Gymnasium's vector environments."""

    def __init__(self, kind: type[SyncVectorEnv] | type[AsyncVectorEnv], games: int) -> None:
        self.env = kind([stock] * games)
        self.env.reset()

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Returns the turn counters."""
        return self.env.step(actions)[0]["blstats"][:, TIME]

    def close(self) -> None:
        """Ends the games."""
        self.env.close()


def _serve(pipe: Connection, games: int) -> None:
    envs = [stock() for _ in range(games)]
    for env in envs:
        env.reset()
    while (actions := pipe.recv()) is not None:
        rows = []
        for env, action in zip(envs, actions, strict=True):
            observation, reward, terminated, truncated, _ = env.step(int(action))
            if terminated or truncated:
                observation, _ = env.reset()
            rows.append((*(observation[key].copy() for key in KEYS), reward, terminated, truncated))
        pipe.send([np.stack(column) for column in zip(*rows, strict=True)])


class Pipes:
    """What one writes by hand: two processes, half of the games each, actions and arrays through pipes."""

    def __init__(self, games: int) -> None:
        self.pipes, self.processes = [], []
        for half in (games // 2, games - games // 2):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs, half), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        self.half = games // 2

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Returns the turn counters."""
        for pipe, part in zip(self.pipes, (actions[: self.half], actions[self.half :]), strict=True):
            pipe.send(part)
        columns = [np.concatenate(both) for both in zip(*(pipe.recv() for pipe in self.pipes), strict=True)]
        return columns[1][:, TIME]

    def close(self) -> None:
        """Ends the games."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def contestants(games: int) -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {
        "ours": lambda: Ours(games),
        "sync": lambda: Gymnasium(SyncVectorEnv, games),
    }
    if games > 1:
        made |= {
            "ours, 2 processes": lambda: Ours(games, 2),
            "async": lambda: Gymnasium(AsyncVectorEnv, games),
            "2 processes, pipes": lambda: Pipes(games),
        }
    return made


def rate(env: Any, rng: np.random.Generator, games: int, seconds: float) -> float:
    """Steps a second over about `seconds`."""
    actions = rng.integers(ACTIONS, size=(1024, games))
    turns = np.zeros(games, dtype=np.int64)
    passed = steps = 0
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        now = env.step(actions[steps % 1024]).copy()
        passed += int(np.maximum(now - turns, 0).sum()) if steps else 0
        turns = now
        steps += 1
    if passed < steps * games // 20:
        raise RuntimeError(f"the turn counter advanced by {passed} in {steps * games} steps: nobody is playing")
    return steps * games / spent


def measure(games: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    envs = {name: make() for name, make in contestants(games).items()}
    rng = np.random.default_rng(games)
    rates: dict[str, list[float]] = {name: [] for name in envs}
    try:
        for env in envs.values():
            rate(env, rng, games, seconds / 2)  # a warm-up
        for turn in range(rounds):
            for name in list(envs) if turn % 2 == 0 else reversed(list(envs)):
                rates[name].append(rate(envs[name], rng, games, seconds))
    finally:
        for env in envs.values():
            env.close()
    return rates


def reset_milliseconds(resets: int = 300, parts: int = 5) -> dict[str, list[float]]:
    """Of one game, the engine's and stock NLE's: the median of each part of the resets."""
    figures = {}
    ours = NetHackVectorEnv("NetHackScore-v0", 1, observation_keys=KEYS)
    theirs = stock()
    for name, reset in (("ours", ours.reset), ("stock", theirs.reset)):
        reset()
        times = []
        for _ in range(resets):
            began = time.perf_counter()
            reset()
            times.append(1e3 * (time.perf_counter() - began))
        size = resets // parts
        figures[name] = [statistics.median(times[i : i + size]) for i in range(0, parts * size, size)]
    ours.close()
    theirs.close()
    return figures


def ratios_of(rates: dict[str, list[float]], over: str, under: str) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(rates[over], rates[under], strict=True)]


RATIOS = (
    ("ours", "sync"),
    ("ours, 2 processes", "async"),
    ("ours, 2 processes", "2 processes, pipes"),
    ("ours, 2 processes", "ours"),
)


GOALS = {
    "engine_sync_32": (32, "ours", "sync"),
    "engine_sync_128": (128, "ours", "sync"),
    "engine_async_32": (32, "ours, 2 processes", "async"),
    "engine_pipe_32": (32, "ours, 2 processes", "2 processes, pipes"),
}


def rate_table(found: dict[int, dict[str, list[float]]]) -> str:
    """Steps a second of every contestant, and how far many games in one process are from one hot game."""
    lines = ["| games | contestant | steps/s | lowest | highest |", "|---|---|---|---|---|"]
    for games, rates in found.items():
        for name, values in rates.items():
            cells = " | ".join(f"{value:,.0f}" for value in results.spread(values))
            lines.append(f"| {games} | {name} | {cells} |")
    if 1 in found:
        hot = statistics.median(found[1]["ours"])
        for games, rates in found.items():
            if games > 1:
                share = statistics.median(rates["ours"]) / hot
                lines += ["", f"{games} games in one process make {share:.0%} of the steps a second of one hot game."]
    return "\n".join(lines)


def write_results(found: dict[int, dict[str, list[float]]], resets: dict[str, list[float]], about: Any) -> None:
    """docs/results/engine.md and engine.json."""
    measured = {
        name: results.spread(ratios_of(found[games], over, under))
        for name, (games, over, under) in GOALS.items()
        if games in found
    }
    measured["reset_ms"] = results.spread(resets["ours"])
    stock_reset = results.spread(resets["stock"])
    results.write(
        "engine",
        title="The engine against Gymnasium's vector environments",
        measured=measured,
        sections=[
            f"Random actions, `NetHackScore-v0`, observed: {', '.join(KEYS)}. Contestants take turns within a round; a "
            "ratio is the median of the rounds' ratios. The turn counter of each is asserted to advance.",
            "## Steps a second\n\n" + rate_table(found),
            f"## A reset\n\nStock NLE: {stock_reset.value:.2f} ms ({stock_reset.low:.2f} to {stock_reset.high:.2f}).",
        ],
        raw={"rates": found, "reset_ms": resets, "keys": KEYS},
        commands=["python benchmarks/engine.py " + " ".join(sys.argv[1:])],
        about=about,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contestant in each round")
    parser.add_argument("--json", help="where to keep the raw figures")
    parser.add_argument("--results", action="store_true", help="write docs/results/engine.md and engine.json")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    about = results.machine()
    print(f"{os.cpu_count()} cores, load before {about['load_average_before']:.2f}, {chosen.rounds} rounds")
    found: dict[int, dict[str, list[float]]] = {}
    for games in chosen.games:
        found[games] = measure(games, chosen.rounds, chosen.seconds)
        pairs = [(a, b) for a, b in RATIOS if a in found[games] and b in found[games]]
        said = [f"{a} / {b}: {statistics.median(ratios_of(found[games], a, b)):.2f}" for a, b in pairs]
        print(f"{games} games: " + "; ".join(said), flush=True)
    resets = reset_milliseconds()
    print(rate_table(found))
    print("reset, ms: " + ", ".join(f"{name} {statistics.median(values):.2f}" for name, values in resets.items()))
    if chosen.json:
        report = {"machine": about, "keys": KEYS, "rates": found, "reset_ms": resets}
        with open(chosen.json, "w") as file:  # noqa: PTH123
            json.dump(report, file, indent=1)
    if chosen.results:
        write_results(found, resets, about)


if __name__ == "__main__":
    main()
