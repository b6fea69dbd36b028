"""What graph attention costs a row, on conditions lit in real play: ours against its peers.

    python benchmarks/graph.py [--run RUN_DIR | --observations random.pt trained.pt] [--rows 2048] [--compile]
    python benchmarks/graph.py --reference hypergraph_gat_structure.json --results   # and on the reference's graph

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
import results
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
BOTH = "forward and backward"
REFERENCE = "reference graph, "


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


def race(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of every round after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            began = time.thread_time()
            run()
            if turn:
                seconds[name].append(time.thread_time() - began)
    return seconds


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


def outputs(stream: GraphStream, conditions: Tensor) -> Tensor:
    """Intent and prior of these rows, beside each other."""
    out = stream(conditions)
    return torch.cat([out.intent, out.prior], dim=1)


def measure(forms: dict[str, GraphStream], conditions: Tensor, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Microseconds a row of the batch, by form and round: forward, and forward and backward."""
    rows, ours = len(conditions), forms["ours"]
    distinct = torch.unique(ours.conditions.relevant(conditions), dim=0)
    some = distinct[torch.linspace(0, len(distinct) - 1, min(PEER_ROWS, len(distinct))).long()]
    with torch.no_grad():
        expected = outputs(ours, some)
        for name, form in forms.items():
            torch.testing.assert_close(outputs(form, some), expected, rtol=1e-3, atol=1e-4, msg=name)
    measured: dict[str, dict[str, list[float]]] = {}
    for what, make in (("forward", forward), (BOTH, both)):
        runs = {name: make(form, conditions if name == "ours" else some) for name, form in forms.items()}
        for name, seconds in race(runs, repeats).items():
            if name == "ours":
                measured.setdefault("ours", {})[what] = [value / rows * 1e6 for value in seconds]
                continue
            per_pattern = [value / len(some) * 1e6 for value in seconds]
            removed = [value * len(distinct) / rows for value in per_pattern]
            measured.setdefault(f"{name}, repeats removed", {})[what] = removed
            measured.setdefault(f"{name}, every row", {})[what] = per_pattern
    return measured


def compare(forms: dict[str, GraphStream], conditions: Tensor, repeats: int) -> dict[str, Any]:
    """Costs by form, and how many times as fast ours is: the spread of the rounds' own ratios."""
    ours, rows = forms["ours"], len(conditions)
    words = torch.unique(ours.conditions.relevant(conditions), dim=0)
    with torch.no_grad():
        states = len(ours.attention(words).states)
    measured = measure(forms, conditions, repeats)
    own = measured["ours"][BOTH]
    factors = {
        name: results.spread([peer / self for peer, self in zip(times[BOTH], own, strict=True)])
        for name, times in measured.items()
        if name != "ours"
    }
    return {
        "rows": rows,
        "patterns": len(words),
        "states": states,
        "us_a_row": {name: {what: results.spread(v) for what, v in times.items()} for name, times in measured.items()},
        "factors": factors,
    }


def section(title: str, found: dict[str, Any]) -> str:
    """One comparison as Markdown."""
    lines = [
        f"## {title}",
        "",
        f"{found['rows']:,} rows, {found['patterns']:,} distinct patterns ({found['patterns'] / found['rows']:.0%}), "
        f"{found['states']:,} distinct operator states.",
        "",
        "| us a row, one thread | forward | forward and backward | ours is faster by (range) |",
        "|---|---|---|---|",
    ]
    for form, times in found["us_a_row"].items():
        factor = found["factors"].get(form)
        shown = f"{factor.value:.1f} ({factor.low:.1f}-{factor.high:.1f})" if factor else ""
        lines.append(f"| {form} | {times['forward'].value:.1f} | {times[BOTH].value:.1f} | {shown} |")
    return "\n".join(lines)


def goals(found: dict[str, dict[str, Any]]) -> dict[str, results.Measured]:
    """Figures by the names of docs/results/goals.yaml: the play that is worst for us."""
    own = [play for name, play in found.items() if not name.startswith(REFERENCE)]
    reference = [play for name, play in found.items() if name.startswith(REFERENCE)]

    def least(plays: list[dict[str, Any]], form: str) -> results.Measured:
        return min(play["factors"][form] for play in plays)

    measured = {
        "graph_us": max(play["us_a_row"]["ours"][BOTH] for play in own),
        "graph_per_pattern": least(own, "PyG, repeats removed"),
        "graph_in_all": least(own, "PyG, every row"),
    }
    if reference:
        measured["graph_reference_in_all"] = least(reference, "PyG, every row")
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    play.add_arguments(parser)
    parser.add_argument("--graph", default=GraphConfig().file)
    parser.add_argument("--hidden", type=int, default=GraphConfig().hidden)
    parser.add_argument("--heads", type=int, default=GraphConfig().heads)
    parser.add_argument(
        "--reference", type=Path, help="the reference graph's JSON: also at its size, hidden 256, 4 heads"
    )
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compile the dense peer")
    parser.add_argument("--json", type=Path, help="also write the raw figures here")
    parser.add_argument("--results", action="store_true", help="write docs/results/graph.md and graph.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    about = results.machine()
    recorded = play.observations(arguments, arguments.rows)
    sizes = {"": (arguments.graph, arguments.hidden, arguments.heads)}
    if arguments.reference:
        sizes[REFERENCE] = (str(arguments.reference), 256, 4)
    sections, found = [], {}
    for prefix, (file, hidden, heads) in sizes.items():
        graph = load_graph(resolve_data_file(file))
        forms = streams(GraphConfig(hidden=hidden, heads=heads), graph, arguments.compile)
        for name, seen in recorded.items():
            found[f"{prefix}{name}"] = compare(forms, seen.conditions, arguments.repeats)
            size = f"{graph.num_nodes} nodes, {graph.num_edges:,} edges, hidden {hidden}, {heads} heads"
            title = f"{prefix}{name} play: {size}"
            sections.append(section(title[0].upper() + title[1:], found[f"{prefix}{name}"]))
            print(sections[-1], "\n")
    raw = {"repeats": arguments.repeats, **found}
    if arguments.json:
        report = {"machine": about, "goals": goals(found), "raw": raw}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.results:
        results.write(
            "graph",
            title="Graph attention",
            measured=goals(found),
            sections=sections,
            raw=raw,
            commands=play.commands(arguments, "graph.py"),
            about=about,
        )


if __name__ == "__main__":
    main()
