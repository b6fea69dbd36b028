"""What graph attention costs a row, on conditions lit in real play: ours against PyG mini-batching.

    python benchmarks/graph.py [--graph FILE] [--rows 2048] [--repeats 5]

Patterns are recorded from uniformly random play of 64 games, and the rows of one batch are 32 consecutive steps of
them, as in training. Every form runs forward and backward on one thread; the best of `--repeats` runs counts.
PyG runs on 128 of the distinct patterns and is scaled to the batch: its cost is linear in the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from polybeast_moe import _C
from polybeast_moe.config import SEMANTIC_EXPERTS, EnvConfig, GraphConfig
from polybeast_moe.config_files import resolve_data_file
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.graph import load_graph
from polybeast_moe.models.graph_stream import GraphStream
from polybeast_moe.runtime.rollouts import Rollout

GAMES, UNROLL, WARM_UP_ROLLOUTS = 64, 32, 8
PYG_ROWS = 128  # PyG's cost is linear in the rows; this many keep its memory in bounds


def record_conditions(rows: int) -> Tensor:
    """Packed conditions [rows, W] of consecutive steps of random play, some hundred steps into the games."""
    layout = _C.RolloutLayout(
        unroll=UNROLL,
        games=GAMES,
        actions=len(ACTIONS),
        experts=1,
        state=0,
        crop=3,
        store_glyphs=False,
        max_episode_steps=5000,
    )
    region = _C.Region(layout, 1)
    rollout = Rollout(region, 0)
    package = check_nle()
    generator = torch.Generator().manual_seed(0)
    recorded: list[Tensor] = []
    with tempfile.TemporaryDirectory() as directory:
        library = _C.LibraryFile(str(package.library))
        group = _C.Group(
            library, game_settings(EnvConfig(), package), Path(directory), layout, run_seed=0, first_game=0
        )
        for _ in range(WARM_UP_ROLLOUTS + -(-rows // (GAMES * UNROLL))):
            group.open(region, 0)
            rollout["action"].copy_(torch.randint(len(ACTIONS), rollout["action"].shape, generator=generator))
            for t in range(UNROLL):
                group.step(region, 0, t)
            recorded.append(rollout["conditions"][:UNROLL].flatten(0, 1).clone())
        del group
    return torch.cat(recorded[WARM_UP_ROLLOUTS:])[:rows]


def best_of(repeats: int, run: Callable[[], None]) -> float:
    """The shortest of several runs, in seconds, after one that does not count."""
    run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measure(stream: GraphStream, conditions: Tensor, repeats: int) -> tuple[float, float]:
    """Seconds forward, and forward and backward."""

    def forward() -> None:
        with torch.no_grad():
            stream(conditions)

    def both() -> None:
        stream.zero_grad(set_to_none=True)
        out = stream(conditions)
        (out.intent.sum() + out.prior.sum()).backward()

    return best_of(repeats, forward), best_of(repeats, both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", default=GraphConfig().file)
    parser.add_argument("--hidden", type=int, default=GraphConfig().hidden)
    parser.add_argument("--heads", type=int, default=GraphConfig().heads)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    graph = load_graph(resolve_data_file(arguments.graph))
    config = GraphConfig(hidden=arguments.hidden, heads=arguments.heads)
    ours = GraphStream(config, graph, SEMANTIC_EXPERTS)
    pyg = GraphStream(config.model_copy(update={"implementation": "pyg"}), graph, SEMANTIC_EXPERTS)
    pyg.load_state_dict(ours.state_dict())
    pyg.deduplicate = False

    conditions = record_conditions(arguments.rows)
    rows = len(conditions)
    distinct = torch.unique(ours.relevant(conditions), dim=0)
    states = ours.attention(ours.unpack(distinct)).states.shape[0]
    print(
        f"{len(graph.conditions)} conditions, {len(graph.operators)} operators, {graph.num_edges} edges, "
        f"hidden {config.hidden}, {config.heads} heads; {rows} rows of random play"
    )
    print(
        f"distinct patterns {len(distinct)} ({len(distinct) / rows:.0%}), distinct operator states {states} "
        f"of {len(distinct) * len(graph.operators)}"
    )

    some = distinct[torch.linspace(0, len(distinct) - 1, min(PYG_ROWS, len(distinct))).long()]
    seconds: dict[str, tuple[float, float, int]] = {}
    seconds["once a neighbourhood and pattern"] = (*measure(ours, conditions, arguments.repeats), rows)
    ours.deduplicate = False
    seconds["once a neighbourhood, every row"] = (*measure(ours, conditions, arguments.repeats), rows)
    per_pattern = [value / len(some) for value in measure(pyg, some, 2)]
    seconds["PyG, repeats removed"] = (per_pattern[0] * len(distinct), per_pattern[1] * len(distinct), rows)
    seconds["PyG, mini-batch of every row"] = (per_pattern[0] * rows, per_pattern[1] * rows, rows)

    results = {
        name: {"forward_us_a_row": f / n * 1e6, "forward_backward_us_a_row": b / n * 1e6}
        for name, (f, b, n) in seconds.items()
    }
    print(f"\n{'':<36}{'forward':>12}{'+ backward':>12}  us a row, one thread")
    for name, result in results.items():
        print(f"{name:<36}{result['forward_us_a_row']:>12.1f}{result['forward_backward_us_a_row']:>12.1f}")
    print(json.dumps({"rows": rows, "distinct_patterns": len(distinct), "distinct_states": states, **results}))


if __name__ == "__main__":
    main()
