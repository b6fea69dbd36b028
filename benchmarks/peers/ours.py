"""This project: `polybeast-moe train` in a process of its own, watched through its run directory.

Settings are overrides of `configs/quickstart.yaml`; `network: own` is that configuration as it is. Where learning is
compared the reward is the peers': the task's alone, through tanh. The run directory's metrics come twice a second.
"""

from __future__ import annotations

import bisect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from end_to_end import read_rows

from peers.job import Job, read_job
from peers.meter import Meter

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "quickstart.yaml"
PHASES = ("warmup", "transition", "finetune", "deep_finetune")
SHARED: dict[str, Any] = {
    "policy.class": "peers.our_policy.SharedPolicy",
    "policy.single_expert": "equal_parameters",
    "policy.message": False,
    "policy.landmarks": False,
    "policy.action_mask": False,
    "env.store_glyphs": False,
    "graph.enabled": False,
    "runtime.unroll": 32,
}
WITHOUT_ROUTER = ("load_balance",)
# The peers' reward: tanh(task reward / 10). Each is a whole section in place of the quickstart's.
PEERS_REWARD: dict[str, Any] = {
    "learner.reward": {"transform": "tanh", "scale": 10.0},
    **{f"phases.{phase}.reward": {"task": 1.0} for phase in PHASES},
}
LONGEST = 20_000_000  # frames, more than any measurement takes


def overrides(job: Job) -> dict[str, Any]:
    """What is set beyond the configuration's own values."""
    given: dict[str, Any] = {
        "seed": job.seed,
        "env.max_episode_steps": job.steps,
        "evaluation.random_episodes": 0,
        "monitoring.every_seconds": 0.5,
        "monitoring.tensorboard": False,
    }
    if job.network == "shared":
        given |= SHARED
        given |= {f"phases.{phase}.losses.{loss}": 0.0 for phase in PHASES for loss in WITHOUT_ROUTER}
        given["phases.deep_finetune.temperature"] = 0.5
        given |= {f"phases.{phase}.routing": "softmax" for phase in PHASES}
    if job.learning:
        given |= PEERS_REWARD
    lengths = {f"phases.{phase}.until.frames": end for phase, end in zip(PHASES, ends(job), strict=True)}
    return given | lengths | {key: value for key, value in job.settings.items() if key != "frames"}


def ends(job: Job) -> list[int]:
    """Frames at which the phases end. `frames` of the settings: the whole curriculum in so many, for learning."""
    frames = int(job.settings.get("frames", LONGEST))
    return [round(share * frames) for share in (0.24, 0.48, 0.72, 1.0)]


class Run:
    """A training run as a child process."""

    def __init__(self, job: Job) -> None:
        self.directory = job.folder / "run"
        self.words = [f"{key}={json.dumps(value)}" for key, value in overrides(job).items()]
        program = [sys.executable, "-m", "polybeast_moe", "train", str(CONFIG), "--run-dir", str(self.directory)]
        path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])
        # Allocator settings that the peers are given are what this project sets by itself: it gets none.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
        self.process = subprocess.Popen(
            [*program, *self.words], env={**environment, "PYTHONPATH": path}, stdout=sys.stderr, stderr=sys.stderr
        )

    def frames(self) -> int:
        """Consumed by the learner, as of the newest row."""
        try:
            with (self.directory / "metrics.csv").open("rb") as file:
                names = file.readline().decode().strip().split(",")
                file.seek(max(file.tell(), file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode().split("\n")
        except OSError:
            return 0
        whole = [line for line in lines[:-1] if line.count(",") == len(names) - 1]
        return int(whole[-1].split(",")[names.index("frames")]) if whole else 0

    def actors(self) -> list[int]:
        """Their processes."""
        return [pid for pid in children(self.process.pid) if name_of(pid).startswith("pbm-actor")]

    def stop(self) -> None:
        """Asks it to end, and waits."""
        self.process.terminate()
        self.process.wait(60)


def children(parent: int) -> list[int]:
    """Direct children of a process."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def name_of(pid: int) -> str:
    """What ps calls it."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def games(run: Run) -> int:
    """How many are played at once, by the run's own resolved configuration."""
    from polybeast_moe.config_files import load_config
    from polybeast_moe.monitoring.resources import usable_cores
    from polybeast_moe.runtime.defaults import with_defaults

    runtime = with_defaults(load_config(str(CONFIG), run.words).runtime, usable_cores())
    return int(runtime.actors or 1) * runtime.groups * runtime.games_per_group


def parameters(run: Run) -> int:
    """Of the network, counted on one made for that."""
    from peers.network import size
    from polybeast_moe.config_files import load_config
    from polybeast_moe.envs.engine import ACTIONS
    from polybeast_moe.graph.configured import configured_graph
    from polybeast_moe.models.build import build_policy

    config = load_config(str(CONFIG), run.words)
    return size(build_policy(config, configured_graph(config), num_actions=len(ACTIONS)))


def log_episodes(run: Run, job: Job, progress: list[tuple[float, float]]) -> None:
    """Writes the run's episodes as the peers' adapters do: each at the moment when its frames were consumed."""
    frames = [frames for _, frames in progress]
    job.episodes.mkdir(exist_ok=True)
    with (job.episodes / "run.csv").open("w") as file:
        for row in read_rows(run.directory / "episodes.csv"):
            at = min(bisect.bisect_left(frames, float(row["frames"])), len(frames) - 1)
            file.write(f"{job.began + progress[at][0]:.3f},{row['score']},{row['length']}\n")


def main(job: Job | None = None) -> None:
    job = job or read_job()
    run = Run(job)
    meter = Meter(
        job,
        environments=games(run),
        parameters=parameters(run),
        frames=run.frames,
        victims=run.actors,
        root=run.process.pid,
        finish=lambda: finish(run, job, meter),
    )
    meter.start()


def finish(run: Run, job: Job, meter: Meter) -> None:
    """Ends the run and leaves its episodes behind."""
    run.stop()
    log_episodes(run, job, meter.progress)


if __name__ == "__main__":
    main()
