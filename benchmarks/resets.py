"""Whether episodes leave anything behind: begins many and watches memory, descriptors, mappings and files.

    python benchmarks/resets.py --resets 100000

Exits with 1 when something grew between the tenth part of the way and the end: resident memory by more than 1 MB, or
anything else beyond what a game keeps in its folder (a level, a lock). The first tenth fills caches.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from polybeast_moe.envs import NetHackVectorEnv

ALLOWED = {"resident_kb": 1024, "descriptors": 0, "mappings": 0, "files": 32}


def watch(folder: Path) -> dict[str, int]:
    """What this process holds now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident_kb": int(status["VmRSS"].split()[0]),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "mappings": len(Path("/proc/self/maps").read_text().splitlines()),
        "files": sum(1 for _ in folder.rglob("*")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resets", type=int, default=100_000)
    parser.add_argument("--games", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="played in each episode")
    chosen = parser.parse_args()
    env = NetHackVectorEnv(
        "NetHackScore-v0", chosen.games, observation_keys=("blstats", "inv_strs"), character="@", clock=1_600_000_000
    )
    folder = env._stepper._folder.path  # type: ignore[union-attr]
    rng = np.random.default_rng(0)
    rounds = chosen.resets // chosen.games
    early: dict[str, int] = {}
    began = time.perf_counter()
    for index in range(rounds):
        env.reset(seed=0 if index == 0 else None)
        for _ in range(chosen.steps):
            env.step(rng.integers(23, size=chosen.games))
        if index == max(1, rounds // 10):
            early = watch(folder)
    late = watch(folder)
    seconds = time.perf_counter() - began
    env.close()
    grown = {name: late[name] - early[name] for name in early}
    print(json.dumps({"resets": rounds * chosen.games, "seconds": round(seconds, 1), "late": late, "grown": grown}))
    return int(any(grown[name] > allowed for name, allowed in ALLOWED.items()))


if __name__ == "__main__":
    sys.exit(main())
