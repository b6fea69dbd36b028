"""What the policy costs: inference and update a row, and from 4 to 64 experts of the same size.

    python benchmarks/policy.py [--run RUN_DIR | --observations random.pt trained.pt] [--results]

Observations are of real play (`play.py`). Inference runs 2,048 rows in calls of 64 or 128, then takes new weights, as a
policy worker does; an update is forward and backward of 2,048 rows. One thread. Times are the process's own processor
time, the best of `--repeats` rounds: a busy machine still lengthens them, by its shared caches.

Experts: random weights, the same observations; `softmax` needs every expert, `sparsemax` runs at a temperature at which
a row has about two experts. Dense and sparse execution take turns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import play
import results
import torch
from torch import nn

from polybeast_moe.config import SEMANTIC_EXPERTS, RunConfig
from polybeast_moe.config_files import resolve_data_file
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.graph import KnowledgeGraph, load_graph
from polybeast_moe.models import Observation, describe
from polybeast_moe.models.policy import GraphMoEPolicy
from polybeast_moe.ops.mixture import Routing
from polybeast_moe.runtime.process import keep_freed_memory

ROWS, FEW = 2048, 64
SUPPORT = 2.0


def make_policy(graph: KnowledgeGraph, experts: int = 4, execution: str = "auto") -> GraphMoEPolicy:
    names = SEMANTIC_EXPERTS if experts == 4 else [f"expert_{i}" for i in range(experts)]
    config = RunConfig.model_validate(
        {
            "policy": {"experts": names, "expert_execution": execution},
            "phases": [{"name": "only", "until": {"frames": 1}, "routing": "sparsemax"}],
        }
    )
    torch.manual_seed(0)
    policy = GraphMoEPolicy(config, graph, num_actions=len(ACTIONS))
    assert policy.router is not None
    nn.init.normal_(policy.router.last.weight, std=0.3)  # rows that differ in their experts
    return policy


def rows_of(observation: Observation, begin: int, end: int) -> Observation:
    return Observation(*(None if field is None else field[begin:end] for field in observation))


def processor_seconds(run: Callable[[], object]) -> float:
    began = time.thread_time()
    run()
    return time.thread_time() - began


def inference(policy: GraphMoEPolicy, calls: list[Observation], version: int) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            policy.infer(call, temperature=0.5, weights_version=version)

    return run


def update(
    policy: GraphMoEPolicy, observation: Observation, routing: Routing = "sparsemax", temperature: float = 0.5
) -> Callable[[], None]:
    def run() -> None:
        policy.zero_grad(set_to_none=True)
        output = policy(observation, routing=routing, temperature=temperature)
        (output.logits.square().mean() + output.value.mean() + output.alpha_entropy.mean()).backward()

    return run


def measure_costs(graph: KnowledgeGraph, observation: Observation, repeats: int) -> dict[str, results.Measured]:
    """Microseconds a row: the least of the rounds, and their range."""
    policy = make_policy(graph)
    found = {}
    for size in (64, 128):
        calls = [rows_of(observation, i, i + size) for i in range(0, len(observation.blstats), size)]
        seconds = [processor_seconds(inference(policy, calls, version)) for version in range(repeats + 1)][1:]
        found[f"inference, {size} rows a call"] = best(seconds, len(observation.blstats))
    run = update(policy, observation)
    run()
    found["forward and backward"] = best([processor_seconds(run) for _ in range(repeats)], ROWS)
    return found


def best(seconds: list[float], rows: int) -> results.Measured:
    """Microseconds a row: the least, because other processes only lengthen a round."""
    return results.Measured(*(value / rows * 1e6 for value in (min(seconds), min(seconds), max(seconds))))


def support_temperature(policy: GraphMoEPolicy, observation: Observation) -> float:
    """The temperature at which a row has SUPPORT experts on average."""
    low, high = 1e-3, 10.0
    for _ in range(20):
        middle = (low * high) ** 0.5
        with torch.no_grad():
            alpha = policy(observation, temperature=middle).alpha
        low, high = (low, middle) if (alpha > 0).sum(1).float().mean() > SUPPORT else (middle, high)
    return high


def measure_experts(graph: KnowledgeGraph, observation: Observation, repeats: int) -> list[dict[str, Any]]:
    found = []
    few = rows_of(observation, 0, FEW)
    for experts in (4, 8, 16, 32, 64):
        dense, sparse = (make_policy(graph, experts, execution) for execution in ("dense", "sparse"))
        temperature = support_temperature(dense, few)
        runs: dict[str, tuple[Callable[[], object], int]] = {"softmax": (update(dense, observation, "softmax"), ROWS)}
        for name, policy in (("dense", dense), ("sparse", sparse)):
            runs[f"sparsemax, {name}"] = (update(policy, observation, "sparsemax", temperature), ROWS)

            def infer(policy: GraphMoEPolicy = policy, temperature: float = temperature) -> None:
                policy.infer(few, temperature=temperature, weights_version=0)

            runs[f"inference, {name}"] = (infer, FEW)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(repeats + 1):
            for name, (run, rows) in runs.items():
                seconds = processor_seconds(run)
                if turn:
                    times[name].append(seconds / rows * 1e6)
        row = {name: min(values) for name, values in times.items()}
        with torch.no_grad():
            alpha = dense(observation, temperature=temperature).alpha
        found.append({"experts": experts, "support": (alpha > 0).sum(1).float().mean().item(), **row})
    return found


def cost_table(costs: dict[str, dict[str, results.Measured]]) -> str:
    lines = ["| play | what | us a row | slowest round |", "|---|---|---|---|"]
    for name, found in costs.items():
        lines += [f"| {name} | {what} | {figure.value:.1f} | {figure.high:.1f} |" for what, figure in found.items()]
    return "\n".join(lines)


def expert_table(experts: list[dict[str, Any]]) -> str:
    columns = [name for name in experts[0] if name not in ("experts", "support")]
    lines = [f"| experts | support | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for found in experts:
        cells = " | ".join(f"{found[column]:.1f}" for column in columns)
        lines.append(f"| {found['experts']} | {found['support']:.2f} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    play.add_arguments(parser)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", action="store_true", help="write docs/results/policy.md and policy.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    about = results.machine()
    graph = load_graph(resolve_data_file("graphs/nethack.yaml"))
    recorded = play.observations(arguments, ROWS)

    parts = describe(make_policy(graph))
    costs = {name: measure_costs(graph, seen, arguments.repeats) for name, seen in recorded.items()}
    experts = measure_experts(graph, list(recorded.values())[-1], arguments.repeats)
    sections = [
        f"## Parts\n\n```\n{parts}\n```",
        f"## The whole policy, one thread\n\n{cost_table(costs)}",
        "## From 4 to 64 experts of the same size\n\nMicroseconds a row, one thread. softmax and sparsemax: "
        f"forward and backward of 2,048 rows; inference: {FEW} rows a call, sparsemax. Support: experts a row under "
        f"sparsemax.\n\n{expert_table(experts)}",
    ]
    print("\n\n".join(sections))
    if arguments.results:
        results.write(
            "policy",
            title="What the policy costs",
            measured={
                "policy_inference_us": max(found["inference, 64 rows a call"] for found in costs.values()),
                "policy_update_us": max(found["forward and backward"] for found in costs.values()),
            },
            sections=sections,
            raw={"repeats": arguments.repeats, "costs": costs, "experts": experts},
            commands=play.commands(arguments, "policy.py"),
            about=about,
        )


if __name__ == "__main__":
    main()
