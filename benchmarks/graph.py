"""What graph attention costs a row, on conditions lit in real play: ours against its peers.

    python benchmarks/graph.py [--run RUN_DIR | --observations random.pt trained.pt] [--rows 2048] [--compile]
    python benchmarks/graph.py --graph REFERENCE.json --hidden 256 --heads 4

The rows of one batch are 32 consecutive steps of 64 games, as in training (`play.py`). Every form runs forward and
backward on one thread; figures are the process's own processor time, the best of `--repeats` rounds in which all forms
take turns. Peers run on at most 128 of the distinct patterns and are scaled to the batch: their cost is linear in it.

* PyG mini-batching: one copy of the graph for every row, or for every distinct pattern ("repeats removed").
* dense attention: scores of all operators by all nodes under a mask, for every distinct pattern; with `--compile`
  through torch.compile (needs a C++ compiler and half a minute), else eager.

The factor per pattern has the distinct patterns on both sides; the factor in all has every row in the mini-batch. All
forms compute the same readout; the dense one is checked against ours before it is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import play
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.config import SEMANTIC_EXPERTS, GraphConfig
from polybeast_moe.config_files import resolve_data_file
from polybeast_moe.graph import KnowledgeGraph, load_graph
from polybeast_moe.models.gat import (
    NEGATIVE_SLOPE,
    DistinctGraphAttention,
    GraphAttention,
    GraphAttentionStack,
    NodeCounts,
    OperatorStates,
)
from polybeast_moe.models.graph_stream import GraphStream
from polybeast_moe.models.message_edges import message_edges
from polybeast_moe.runtime.process import keep_freed_memory

PEER_ROWS = 128


class DenseAttention(GraphAttentionStack):
    """GAT with scores of all operators by all nodes: no list of edges, a bias of log(number of edges) or -inf."""

    def __init__(self, ours: DistinctGraphAttention, graph: KnowledgeGraph) -> None:
        nodes = NodeCounts(len(graph.conditions), len(graph.effects), len(graph.operators))
        hidden, heads = ours.identity.shape[1], ours.first.att_src.shape[1]
        super().__init__(nodes, ours.conditions, hidden, heads)
        edges, fixed = message_edges(graph), self.num_fixed
        counts = torch.zeros(nodes.operators, sum(nodes))
        for sender, receiver in edges.condition.tolist():
            counts[receiver, sender] += 1
        for sender, receiver in edges.effect.tolist():
            counts[receiver, nodes.conditions + sender] += 1
        for sender, receiver in [*edges.operator.tolist(), *([o, o] for o in range(nodes.operators))]:
            counts[receiver, fixed + sender] += 1
        self.register_buffer("log_counts", counts.log(), persistent=False)  # -inf where there is no edge

    def layer(self, hidden: int, heads: int) -> nn.Module:
        """Parameters only."""
        return GraphAttention(hidden, heads)

    def operator_states(self, words: Tensor) -> OperatorStates:
        """Packed conditions [U, W] -> operator states."""
        lit = self.conditions.unpack(words)
        silent = torch.cat([lit.log(), lit.new_zeros(len(lit), len(self.identity) - lit.shape[1])], dim=1)
        mask = self.log_counts + silent[:, None]  # [U, O, nodes]
        nodes = self.inputs().expand(len(lit), -1, -1)
        states = nodes
        for layer, norm in ((self.first, self.first_norm), (self.second, self.second_norm)):
            heads, width = layer.att_src.shape[1:]
            values = layer.lin(states).unflatten(2, (heads, width))
            send, receive = (values * layer.att_src).sum(-1), (values * layer.att_dst).sum(-1)
            logits = F.leaky_relu(receive[:, self.num_fixed :, None] + send[:, None], NEGATIVE_SLOPE)
            weights = (logits + mask[..., None]).softmax(2)
            heard = torch.cat(
                [values[:, : self.num_fixed].flatten(2), torch.einsum("uojh,ujhd->uohd", weights, values).flatten(2)], 1
            )
            states = norm(states + F.relu(heard + layer.bias))
        operators = states[:, self.num_fixed :].flatten(0, 1)
        count = self.num_operators
        row = torch.arange(len(operators)).view(-1, count)
        return OperatorStates(operators, torch.arange(count).repeat(len(lit)), row)


def forward(stream: GraphStream, conditions: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            stream(conditions)

    return run


def both(stream: GraphStream, conditions: Tensor) -> Callable[[], None]:
    def run() -> None:
        stream.zero_grad(set_to_none=True)
        out = stream(conditions)
        (out.intent.sum() + out.prior.sum()).backward()

    return run


def race(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Processor seconds, the best of the rounds after one that does not count."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for name, run in runs.items():
            began = time.thread_time()
            run()
            if turn:
                best[name] = min(best[name], time.thread_time() - began)
    return best


def streams(config: GraphConfig, graph: KnowledgeGraph, compiled: bool) -> dict[str, GraphStream]:
    ours = GraphStream(config, graph, SEMANTIC_EXPERTS)
    pyg = GraphStream(config.model_copy(update={"implementation": "pyg"}), graph, SEMANTIC_EXPERTS)
    dense = GraphStream(config, graph, SEMANTIC_EXPERTS)
    assert isinstance(ours.attention, DistinctGraphAttention)
    dense.attention = DenseAttention(ours.attention, graph)
    for peer in (pyg, dense):
        peer.load_state_dict(ours.state_dict())
        peer.deduplicate = False
    if compiled:
        dense.attention.compile()
    return {"ours": ours, "PyG": pyg, "dense, compiled" if compiled else "dense, eager": dense}


def measure(forms: dict[str, GraphStream], conditions: Tensor, repeats: int) -> dict[str, dict[str, float]]:
    """Microseconds a row of the batch, by form: forward, and forward and backward."""
    rows, ours = len(conditions), forms["ours"]
    distinct = torch.unique(ours.conditions.relevant(conditions), dim=0)
    some = distinct[torch.linspace(0, len(distinct) - 1, min(PEER_ROWS, len(distinct))).long()]
    with torch.no_grad():
        expected = torch.cat(ours(some), dim=1)
        for name, form in forms.items():
            torch.testing.assert_close(torch.cat(form(some), dim=1), expected, rtol=1e-3, atol=1e-4, msg=name)
    results: dict[str, dict[str, float]] = {}
    for what, make in (("forward", forward), ("forward and backward", both)):
        runs = {name: make(form, conditions if name == "ours" else some) for name, form in forms.items()}
        seconds = race(runs, repeats)
        for name, value in seconds.items():
            if name == "ours":
                results.setdefault("ours", {})[what] = value / rows * 1e6
                continue
            per_pattern = value / len(some) * 1e6
            results.setdefault(f"{name}, repeats removed", {})[what] = per_pattern * len(distinct) / rows
            results.setdefault(f"{name}, every row", {})[what] = per_pattern
    return results


def show(name: str, forms: dict[str, GraphStream], conditions: Tensor, repeats: int) -> dict[str, Any]:
    ours, rows = forms["ours"], len(conditions)
    words = torch.unique(ours.conditions.relevant(conditions), dim=0)
    with torch.no_grad():
        states = len(ours.attention(words).states)
    operators = ours.attention.num_operators
    print(
        f"\n{name}: {rows} rows, {len(words)} distinct patterns ({len(words) / rows:.0%}), "
        f"{states} distinct operator states of {len(words) * operators}"
    )
    results = measure(forms, conditions, repeats)
    print(f"{'us a row, one thread':<36}{'forward':>12}{'and backward':>14}{'ours is':>14}")
    for form, times in results.items():
        ratio = times["forward and backward"] / results["ours"]["forward and backward"]
        print(f"{form:<36}{times['forward']:>12.1f}{times['forward and backward']:>14.1f}{ratio:>12.1f} x")
    peers = {form: times["forward and backward"] for form, times in results.items() if form != "ours"}
    own = results["ours"]["forward and backward"]
    factors = {
        "per pattern, against PyG": peers["PyG, repeats removed"] / own,
        "in all, against PyG mini-batching": peers["PyG, every row"] / own,
        "against the best peer": min(peers.values()) / own,
    }
    print("forward and backward, times as fast: " + ", ".join(f"{key} {value:.1f}" for key, value in factors.items()))
    return {"rows": rows, "patterns": len(words), "states": states, "us_a_row": results, "factors": factors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    play.add_arguments(parser)
    parser.add_argument("--graph", default=GraphConfig().file)
    parser.add_argument("--hidden", type=int, default=GraphConfig().hidden)
    parser.add_argument("--heads", type=int, default=GraphConfig().heads)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compile the dense peer")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    graph = load_graph(resolve_data_file(arguments.graph))
    config = GraphConfig(hidden=arguments.hidden, heads=arguments.heads)
    print(
        f"{len(graph.conditions)} conditions, {len(graph.operators)} operators, {len(graph.effects)} effects, "
        f"{graph.num_edges} edges, hidden {config.hidden}, {config.heads} heads"
    )
    forms = streams(config, graph, arguments.compile)
    recorded = play.observations(arguments, arguments.rows)
    results = {name: show(name, forms, seen.conditions, arguments.repeats) for name, seen in recorded.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps({"load": os.getloadavg(), **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
