"""Pipeline efficiency: how much of what its parts can do alone does a run achieve?

    python benchmarks/pipeline.py                                   # configs/quickstart.yaml
    python benchmarks/pipeline.py --rounds 3 --json result.json runtime.groups=4

Each part (engine, inference, update) is measured alone, in its best form, in as many single-threaded processes at once
as there are cores: that is the most that these cores can do of it. A frame needs all three, so the cores allow at most
1 / (1/engine + 1/inference + 1/update) frames a second. Pipeline efficiency is the run's frames a second over that.
Rounds take turns: engine, inference, update, run, and again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import end_to_end
import results

if TYPE_CHECKING:
    from polybeast_moe.config import RunConfig
    from polybeast_moe.models import Policy
    from polybeast_moe.runtime.rollouts import Rollout

PARTS = ("engine", "inference", "update")
BATCHES = {"engine": (32, 64), "inference": (64, 128, 256), "update": (64,)}  # games at a time; the best counts
UNROLL = 32


def frames_alone(part: str, games: int, seconds: float, config_path: str, overrides: list[str]) -> float:
    """Frames a second of one part in this process, on real games."""
    import torch

    from polybeast_moe.config_files import load_config
    from polybeast_moe.envs.engine import ACTIONS
    from polybeast_moe.graph.configured import configured_graph
    from polybeast_moe.models import build_policy
    from polybeast_moe.runtime.process import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    shape = [f"runtime.games_per_group={games}", f"runtime.unroll={UNROLL}", "runtime.mode=asynchronous"]
    config = load_config(config_path, [*overrides, *shape])
    policy = build_policy(config, configured_graph(config), num_actions=len(ACTIONS))
    with tempfile.TemporaryDirectory() as directory:
        rollout, play = games_at_play(config, policy, Path(directory))
        turns_before = rollout["blstats"][0, :, 20].sum().item()
        for _ in range(4):
            play()
        if part == "engine":
            measured = _rate(play, games * UNROLL, seconds)
            assert rollout["blstats"][-1, :, 20].sum().item() != turns_before, "games do not advance: keys are eaten"
            return measured
        work = inference(policy, rollout) if part == "inference" else update(policy, config, rollout)
        return _rate(work, games * UNROLL, seconds)


def games_at_play(config: RunConfig, policy: Policy, directory: Path) -> tuple[Rollout, Callable[[], None]]:
    """A slot, and what fills it with the next steps of a group of games, played at random."""
    from polybeast_moe import _C
    from polybeast_moe.envs.engine import ACTIONS, game_settings
    from polybeast_moe.envs.nle_package import check_nle
    from polybeast_moe.runtime.rollouts import Rollout, rollout_layout

    package = check_nle()
    layout = rollout_layout(config, policy.initial_state(1).shape[1])
    region = _C.Region(layout, 1)
    rollout = Rollout(region, 0)
    library = _C.LibraryFile(str(package.library))
    group = _C.Group(library, game_settings(config.env, package), directory, layout, run_seed=1, first_game=0)

    def play() -> None:
        group.open(region, 0)
        rollout["action"].random_(0, len(ACTIONS))
        for t in range(UNROLL):
            group.step(region, 0, t)

    return rollout, play


def inference(policy: Policy, rollout: Rollout) -> Callable[[], None]:
    """Every step of a rollout inferred, with new weights each time, as in a run."""
    state = policy.initial_state(rollout["reward"].shape[1])
    version = 0

    def infer() -> None:
        nonlocal version
        version += 1
        for t in range(UNROLL):
            policy.infer(
                rollout.observation(t),
                state,
                routing="sparsemax",
                temperature=0.5,
                first=rollout["first"][t].bool(),
                weights_version=version,
            )

    return infer


def update(policy: Policy, config: RunConfig, rollout: Rollout) -> Callable[[], object]:
    """A rollout learnt from, the batch made of it included."""
    from polybeast_moe.learning.learner import Learner
    from polybeast_moe.learning.phases import ControllerState, Counters, advance
    from polybeast_moe.runtime.rollouts import make_batch

    _, settings, _ = advance(config.phases, ControllerState(), Counters(), {})
    learner = Learner(policy, config.learner)
    rollout["behaviour_logits"].zero_()
    return lambda: learner.update(make_batch([rollout]), settings)


def _rate(work: Callable[[], object], frames: int, seconds: float) -> float:
    work()
    done, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        work()
        done += frames
    return done / elapsed


def together(part: str, games: int, seconds: float, config: str, overrides: list[str], cores: int) -> float:
    """Frames a second of one part on all cores: as many processes at once."""
    command = [sys.executable, __file__, config, *overrides, "--alone", part, str(games), "--seconds", str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(cores)]
    rates = []
    for process in processes:
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{part}: a process failed with exit code {process.returncode}")
        rates.append(float(said))
    return sum(rates)


def run_once(config: str, overrides: list[str], seconds: float) -> float:
    """Frames a second of a whole run, the median over its windows after the warm-up."""
    with tempfile.TemporaryDirectory(prefix="pipeline-") as directory:
        run_dir = Path(directory) / "run"
        command = end_to_end.train_command(config, overrides, run_dir, 2.0)
        end_to_end.run(command, run_dir, 15.0 + seconds)
        counted = end_to_end.windows(end_to_end.read_metrics(run_dir), 15.0, 2.0)
    return statistics.median(window["frames_per_second"] for window in counted)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=15.0, help="measured time of each part and of the run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", nargs=2, metavar=("PART", "GAMES"), help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    if "=" in arguments.config:
        arguments.overrides.insert(0, arguments.config)
        arguments.config = parser.get_default("config")
    if arguments.alone:
        part, games = arguments.alone
        print(frames_alone(part, int(games), arguments.seconds, arguments.config, arguments.overrides))
        return

    cores = len(os.sched_getaffinity(0))
    rounds = []
    for number in range(1, arguments.rounds + 1):
        alone = {}
        for part in PARTS:
            rates = {
                games: together(part, games, arguments.seconds, arguments.config, arguments.overrides, cores)
                for games in BATCHES[part]
            }
            alone[part] = max(rates.values())
            print(f"round {number}: {part} alone on {cores} cores {rates}", file=sys.stderr, flush=True)
        allowed = 1 / sum(1 / rate for rate in alone.values())
        achieved = run_once(arguments.config, arguments.overrides, arguments.seconds)
        rounds.append({"alone": alone, "allowed": allowed, "achieved": achieved, "efficiency": achieved / allowed})
        print(f"round {number}: {achieved:,.0f} of {allowed:,.0f} frames/s, {achieved / allowed:.2f}", flush=True)
    efficiency = statistics.median(entry["efficiency"] for entry in rounds)
    achieved = statistics.median(entry["achieved"] for entry in rounds)
    print(f"pipeline efficiency {efficiency:.2f} at {achieved:,.0f} frames/s (medians of {len(rounds)} rounds)")
    report = {"benchmark": "pipeline", "machine": results.machine(), "rounds": rounds}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
