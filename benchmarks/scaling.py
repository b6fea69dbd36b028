"""Does the model of `polybeast-moe doctor --plan` predict runs of one and of two ranks on this machine?

    python benchmarks/scaling.py [--seconds 20] [--results]

Costs come from the parts alone, each in as many single-threaded processes as there are cores (as in pipeline.py), and
from the exchange of an update between two ranks that have nothing else to do. Then whole runs of one rank and of two,
which the model has not seen.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import end_to_end
import pipeline
import results

from polybeast_moe.scaling import Costs, plan_cpu

CONFIG = "configs/quickstart.yaml"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone"]
EXCHANGES = 200


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
    from polybeast_moe.learning.crew import Hand
    from polybeast_moe.learning.distributed import joined
    from polybeast_moe.learning.learner import Learner
    from polybeast_moe.learning.phases import ControllerState, Counters, advance
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
            ranks.everyone(Hand(2048))
            learner.update(None, settings, 0.0)
            ranks.to_lead(None)
            ranks.from_lead(settings)
        print(f"exchange {(time.process_time() - began) / EXCHANGES * 1e6}", flush=True)


def frames_per_second(ranks: int, seconds: float) -> float:
    """Of a whole run, the median over its windows after the warm-up."""
    with tempfile.TemporaryDirectory(prefix="scaling-") as directory:
        run_dir = Path(directory) / "run"
        command = end_to_end.train_command(CONFIG, [], run_dir, 2.0)
        if ranks > 1:
            python, *rest = command
            command = [python, *TORCHRUN, f"--nproc-per-node={ranks}", *rest]
        end_to_end.run(command, run_dir, 15.0 + seconds)
        counted = end_to_end.windows(end_to_end.read_metrics(run_dir), 15.0, 2.0)
    return statistics.median(window["frames_per_second"] for window in counted)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
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
    part_seconds = arguments.seconds / 3
    rates = {
        part: max(pipeline.together(part, games, part_seconds, CONFIG, [], cores) for games in pipeline.BATCHES[part])
        for part in pipeline.PARTS
    }
    costs = Costs(**{part: 1e6 * cores / rate for part, rate in rates.items()}, exchange_us=exchange_microseconds())
    lines = ["| ranks | predicted frames/s | measured | measured over predicted | bound by |", "|---|---|---|---|---|"]
    measured, raw = {}, {}
    for ranks in (1, 2):
        plan = plan_cpu(cores, costs, ranks)
        found = frames_per_second(ranks, arguments.seconds)
        ratio = found / plan.frames_per_second
        measured[f"scaling_model_{ranks}"] = results.Measured(ratio, ratio, ratio)
        raw[str(ranks)] = {"predicted": plan.frames_per_second, "measured": found, "bottleneck": plan.bottleneck}
        lines.append(f"| {ranks} | {plan.frames_per_second:,.0f} | {found:,.0f} | {ratio:.2f} | {plan.bottleneck} |")
    parts = ", ".join(f"{part} {getattr(costs, part):.1f}" for part in pipeline.PARTS)
    sections = [
        f"Microseconds of a core a frame: {parts}; an update's exchange between two ranks {costs.exchange_us:,.0f}.",
        "\n".join(lines),
    ]
    print("\n\n".join(sections))
    if arguments.results:
        results.write(
            "scaling",
            title="The model of ranks against runs",
            measured=measured,
            sections=sections,
            raw={"costs": {part: getattr(costs, part) for part in (*pipeline.PARTS, "exchange_us")}, "runs": raw},
            commands=[shlex.join(["python", "benchmarks/scaling.py", *sys.argv[1:]])],
            about=about,
        )


if __name__ == "__main__":
    main()
