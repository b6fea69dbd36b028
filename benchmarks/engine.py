"""How fast NetHack is stepped: the engine against Gymnasium's vector environments over stock NLE, in turns.

    python benchmarks/engine.py                                   # every contestant at 1, 8, 32 and 128 games
    python benchmarks/engine.py --games 32 --rounds 5 --json engine.json

Random actions, the same keys and seeds for all. Contestants take turns within a round; a figure is the median over
rounds, a ratio the median of the rounds' ratios. The turn counter of every contestant must advance: a fresh game waits
at a prompt, where millions of steps a second would be keys eaten.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import nle  # noqa: F401 - registers the environments
import numpy as np
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


def reset_milliseconds(resets: int = 200) -> dict[str, float]:
    """Of one game: the engine's and stock NLE's."""
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
        figures[name] = statistics.median(times)
    ours.close()
    theirs.close()
    return figures


def ratio(rates: dict[str, list[float]], over: str, under: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[over], rates[under], strict=True))


RATIOS = (
    ("ours", "sync"),
    ("ours, 2 processes", "async"),
    ("ours, 2 processes", "2 processes, pipes"),
    ("ours, 2 processes", "ours"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contestant in each round")
    parser.add_argument("--json", help="where to keep the raw figures")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    load = os.getloadavg()
    results: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "load_before": load, "python": platform.python_version()},
        "keys": KEYS,
        "games": {},
    }
    print(f"{os.cpu_count()} cores, load before {load[0]:.2f}; steps a second, median of {chosen.rounds} rounds\n")
    print("| games | contestant | steps/s | lowest | highest |\n|---|---|---|---|---|")
    for games in chosen.games:
        rates = measure(games, chosen.rounds, chosen.seconds)
        ratios = {f"{a} / {b}": ratio(rates, a, b) for a, b in RATIOS if a in rates and b in rates}
        results["games"][games] = {"rates": rates, "ratios": ratios}
        for name, values in rates.items():
            print(
                f"| {games} | {name} | {statistics.median(values):.0f} | {min(values):.0f} | {max(values):.0f} |",
                flush=True,
            )
        print(f"| {games} | " + "; ".join(f"{name}: {value:.2f}" for name, value in ratios.items()) + " | | | |")
    results["reset_ms"] = reset_milliseconds()
    print("\nreset, ms: " + ", ".join(f"{name} {value:.2f}" for name, value in results["reset_ms"].items()))
    if chosen.json:
        with open(chosen.json, "w") as file:  # noqa: PTH123
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
