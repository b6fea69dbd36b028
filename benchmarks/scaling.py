"""Does `polybeast-moe doctor --plan` predict what runs of one and of two ranks do on this machine?

    python benchmarks/scaling.py [--rounds 3] [--seconds 20] [--results]

Runs of three shapes, taking turns: one rank on one core, one rank on all of them, two ranks on all of them. They are
held against the model with the costs that the doctor has (parts beside each other in a run of one rank). Beside it
stands what the model says with costs measured now, each part alone in as many single-threaded processes as there are
cores (as in pipeline.py), and an exchange between two ranks that have nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import end_to_end
import pipeline
import results

from polybeast_moe.scaling import QUICKSTART, Costs, plan_cpu

CONFIG = "configs/quickstart.yaml"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone"]
EXCHANGES = 200
WARM_UP = 15.0
"""Seconds."""


def exchange_microseconds() -> float:
    """What the collectives of an update cost a rank of two that do nothing else: gradients, means, meetings."""
    command = [sys.executable, *TORCHRUN, "--nproc-per-node=2", __file__, "--exchange"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return max(float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("exchange"))


def exchange() -> None:
    """One rank of `exchange_microseconds`."""
    import torch

    from polybeast_moe.config_files import load_config
    from polybeast_moe.envs.engine import ACTIONS
    from polybeast_moe.graph.configured import configured_graph
    from polybeast_moe.learning.distributed import joined
    from polybeast_moe.learning.learner import Learner
    from polybeast_moe.learning.phases import ControllerState, Counters, advance
    from polybeast_moe.learning.rank_rounds import RankArrival
    from polybeast_moe.models import build_policy

    torch.set_num_threads(1)
    config = load_config(CONFIG)
    _, settings, _ = advance(config.phases, ControllerState(), Counters(), {})
    with joined() as ranks:
        policy = build_policy(config, configured_graph(config), num_actions=len(ACTIONS))
        learner = Learner(policy, config.learner, ranks, experts=len(config.policy.expert_names))
        for count in range(EXCHANGES + 20):
            if count == 20:
                began = time.process_time()
            ranks.everyone(RankArrival(2048))
            learner.update(None, settings, 0.0)
            ranks.to_lead(None)
            ranks.from_lead(settings)
        print(f"exchange {(time.process_time() - began) / EXCHANGES * 1e6}", flush=True)


@dataclass(frozen=True)
class Shape:
    """A run's share of this machine: its ranks share the cores evenly."""

    name: str
    ranks: int
    cores: int


def shapes(cores: int) -> list[Shape]:
    """What is run: the names are those of the goals, where there are any."""
    whole = [Shape(f"scaling_model_{ranks}", ranks, cores) for ranks in (1, 2)]
    return [*whole, Shape("one core", 1, 1)]


def frames_per_second(shape: Shape, seconds: float) -> float:
    """Of a whole run, the median over its windows after the warm-up."""
    usable = sorted(os.sched_getaffinity(0))[: shape.cores]
    with tempfile.TemporaryDirectory(prefix="scaling-") as directory:
        run_dir = Path(directory) / "run"
        python, *rest = end_to_end.train_command(CONFIG, [], run_dir, 2.0)
        launcher = [*TORCHRUN, f"--nproc-per-node={shape.ranks}"] if shape.ranks > 1 else []
        command = ["taskset", "--cpu-list", ",".join(map(str, usable)), python, *launcher, *rest]
        # torchrun raises when it is signalled, after it has passed the signal on.
        code_when_stopped = 1 if launcher else 128 + signal.SIGTERM
        end_to_end.run(command, run_dir, WARM_UP + seconds, code_when_stopped)
        counted = end_to_end.windows(end_to_end.read_metrics(run_dir), WARM_UP, 2.0)
    return statistics.median(window["frames_per_second"] for window in counted)


def costs_alone(seconds: float, cores: int) -> Costs:
    """Of each part in its best form with nothing but copies of itself beside it."""
    rates = {
        part: max(pipeline.together(part, games, seconds, CONFIG, [], cores) for games in pipeline.BATCHES[part])
        for part in pipeline.PARTS
    }
    return Costs(**{part: 1e6 * cores / rate for part, rate in rates.items()}, exchange_us=exchange_microseconds())


def described(costs: Costs) -> str:
    parts = ", ".join(f"{part} {getattr(costs, part):.1f}" for part in pipeline.PARTS)
    return f"{parts}; an update's exchange between two ranks {costs.exchange_us:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each shape, taking turns")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="measured time of each run; parts take a third of it"
    )
    parser.add_argument("--results", action="store_true", help="write docs/results/scaling.md and scaling.json")
    parser.add_argument("--exchange", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.exchange:
        exchange()
        return
    about, cores = results.machine(), len(os.sched_getaffinity(0))
    alone = costs_alone(arguments.seconds / 3, cores)
    found: dict[str, list[float]] = {shape.name: [] for shape in shapes(cores)}
    for _ in range(arguments.rounds):
        for shape in shapes(cores):
            found[shape.name].append(frames_per_second(shape, arguments.seconds))
    lines = [
        "| ranks | cores | measured frames/s | doctor --plan says | measured over it | bound by | with costs alone |",
        "|---|---|---|---|---|---|---|",
    ]
    measured = {}
    for shape in shapes(cores):
        plan = plan_cpu(shape.cores, QUICKSTART, shape.ranks)
        optimist = plan_cpu(shape.cores, alone, shape.ranks).frames_per_second
        rates = found[shape.name]
        ratio = statistics.median(rates) / plan.frames_per_second
        lines.append(
            f"| {shape.ranks} | {shape.cores} | {statistics.median(rates):,.0f} | {plan.frames_per_second:,.0f} | "
            f"{ratio:.2f} | {plan.bottleneck} | {optimist:,.0f} |"
        )
        if shape.cores == cores:
            measured[shape.name] = results.Measured(
                ratio, min(rates) / plan.frames_per_second, max(rates) / plan.frames_per_second
            )
    sections = [
        "\n".join(lines),
        f"Microseconds of a core a frame, as doctor has them, parts beside each other: {described(QUICKSTART)}.",
        f"Each part alone, measured now: {described(alone)}.",
    ]
    print("\n\n".join(sections))
    if arguments.results:
        results.write(
            "scaling",
            title="The model of ranks against runs",
            measured=measured,
            sections=sections,
            raw={"doctor": asdict(QUICKSTART), "alone": asdict(alone), "frames_per_second": found},
            commands=[shlex.join(["python", "benchmarks/scaling.py", *sys.argv[1:]])],
            about=about,
        )


if __name__ == "__main__":
    main()
