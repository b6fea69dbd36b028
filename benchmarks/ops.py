"""Measures the fused mixture of experts against its peers, forward and backward.

    python benchmarks/ops.py [--rounds 21] [--threads 1] [--results]

Contestants take turns within a round, so that a noisy machine is noisy for all; figures are medians over rounds, and a
ratio is the median of the rounds' own ratios. Peers: the torch reference, and entmax's sparsemax followed by einsum.
On the CPU the large buffers come from malloc: they are kept between rounds (no page faults), for every contestant.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import results
import torch
from entmax import sparsemax as entmax_sparsemax
from torch import Tensor

from polybeast_moe.ops import expert_mixture
from polybeast_moe.ops.backends import Backend
from polybeast_moe.runtime.process import keep_freed_memory

TEMPERATURE = 0.5
CPU_SHAPES = [(64, 4, 23), (2_048, 4, 23), (20_480, 4, 23), (20_480, 64, 121)]
CUDA_SHAPES = [(1 << 20, 4, 23), (20_480, 64, 121)]
GOAL_ROWS = 20_480

Contestant = Callable[[Tensor, Tensor], Tensor]


def ours(backend: Backend) -> Contestant:
    return lambda scores, logits: expert_mixture(scores, logits, TEMPERATURE, backend=backend).logits


def entmax_einsum(scores: Tensor, logits: Tensor) -> Tensor:
    return torch.einsum("ne,nea->na", entmax_sparsemax(scores / TEMPERATURE, dim=-1), logits)


def seconds(contestant: Contestant, scores: Tensor, logits: Tensor, upstream: Tensor) -> float:
    """One forward and backward."""
    synchronise = torch.cuda.synchronize if scores.is_cuda else (lambda: None)
    scores.grad = logits.grad = None
    synchronise()
    begin = time.perf_counter()
    contestant(scores, logits).backward(upstream)
    synchronise()
    return time.perf_counter() - begin


def race(contestants: dict[str, Contestant], shape: tuple[int, int, int], device: str, rounds: int) -> dict[str, Any]:
    n, e, a = shape
    scores = torch.randn(n, e, device=device, requires_grad=True)
    logits = torch.randn(n, e, a, device=device, requires_grad=True)
    upstream = torch.randn(n, a, device=device)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, contestant in contestants.items():
            elapsed = seconds(contestant, scores, logits, upstream)
            if turn >= 2:
                times[name].append(elapsed)
    first = next(iter(contestants))
    return {
        "shape": {"N": n, "E": e, "A": a},
        "median_microseconds": {name: statistics.median(values) * 1e6 for name, values in times.items()},
        f"times_faster_than_by_{first}": {
            name: results.spread([t / f for t, f in zip(values, times[first], strict=True)])
            for name, values in times.items()
            if name != first
        },
    }


def traffic_bytes(n: int, e: int, a: int) -> int:
    """Least traffic of forward and backward: logits read twice, their gradient written, mixed and upstream once."""
    return 4 * (3 * n * e * a + 2 * n * a + 5 * n * e)


def copy_bandwidth(num_bytes: int, rounds: int) -> float:
    """Bytes a second, read and written, of a device-to-device copy."""
    source = torch.empty(num_bytes // 8, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(rounds + 2):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return 2 * source.numel() * 4 / statistics.median(times[2:])


def table(shape_results: list[dict[str, Any]], first: str) -> str:
    """A row a shape and contestant, as Markdown."""
    lines = ["| N | E | A | contestant | us | times as long as " + first + " |", "|---|---|---|---|---|---|"]
    for result in shape_results:
        n, e, a = result["shape"].values()
        for name, value in result["median_microseconds"].items():
            ratio = result[f"times_faster_than_by_{first}"].get(name)
            shown = f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})" if ratio else "1"
            lines.append(f"| {n:,} | {e} | {a} | {name} | {value:,.0f} | {shown} |")
    return "\n".join(lines)


def run_cpu(rounds: int, experts: Sequence[int], compiled: bool) -> list[dict[str, Any]]:
    contestants = {"numba": ours("numba"), "torch": ours("torch"), "entmax+einsum": entmax_einsum}
    if compiled:
        contestants["torch.compile"] = torch.compile(ours("torch"))
    measured = []
    for shape in (shape for shape in CPU_SHAPES if shape[1] in experts):
        large = shape[0] * shape[1] * shape[2] > 50_000_000
        measured.append(race(contestants, shape, "cpu", max(5, rounds // 3) if large else rounds))
    return measured


def run_cuda(rounds: int) -> list[dict[str, Any]]:
    contestants = {
        "triton": ours("triton"),
        "torch": ours("torch"),
        "torch.compile": torch.compile(ours("torch")),
        "entmax+einsum": entmax_einsum,
    }
    measured = []
    for shape in CUDA_SHAPES:
        result = race(contestants, shape, "cuda", rounds)
        moved = traffic_bytes(*shape)
        copy = copy_bandwidth(moved, rounds)
        achieved = moved / (result["median_microseconds"]["triton"] * 1e-6)
        result |= {"bytes": moved, "bytes_per_second": achieved, "copy_bytes_per_second": copy}
        measured.append(result)
    return measured


def goals(cpu: list[dict[str, Any]], cuda: list[dict[str, Any]]) -> dict[str, results.Measured]:
    """Figures by the names of docs/results/goals.yaml."""
    found = {}
    for result in cpu:
        if result["shape"]["N"] == GOAL_ROWS:
            for peer in ("torch", "entmax+einsum"):
                ratio = result["times_faster_than_by_numba"][peer]
                found[f"ops_numba_{peer.split('+')[0]}_e{result['shape']['E']}"] = ratio
    if cuda:
        found["ops_triton_bandwidth"] = results.spread(
            [r["bytes_per_second"] / r["copy_bytes_per_second"] for r in cuda]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for torch and for numba")
    parser.add_argument("--experts", type=int, nargs="+", default=[4, 64], help="only shapes of so many experts")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the reference, on the CPU")
    parser.add_argument("--json", type=Path, help="also write the raw figures here")
    parser.add_argument("--results", action="store_true", help="write docs/results/ops.md and ops.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # glibc otherwise returns large blocks at every free, and all contestants measure page faults

    about = results.machine()
    cpu = run_cpu(arguments.rounds, arguments.experts, arguments.compile)
    cuda = run_cuda(arguments.rounds) if torch.cuda.is_available() else []
    sections = [f"## On the CPU, forward and backward, {arguments.threads} threads\n\n{table(cpu, 'numba')}"]
    if cuda:
        moved = [
            f"- {r['bytes'] / 1e6:,.0f} MB at {r['bytes_per_second'] / 1e9:,.0f} GB/s, a copy at "
            f"{r['copy_bytes_per_second'] / 1e9:,.0f} GB/s"
            for r in cuda
        ]
        sections.append(f"## On {torch.cuda.get_device_name()}\n\n{table(cuda, 'triton')}\n\n" + "\n".join(moved))
    else:
        sections.append("## On a GPU\n\nDid not run: this machine has none. The triton kernels are unmeasured.")
    print("\n\n".join(sections))
    raw = {"threads": arguments.threads, "rounds": arguments.rounds, "cpu": cpu, "cuda": cuda}
    measured = goals(cpu, cuda)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": about, "goals": measured, "raw": raw}, indent=1) + "\n")
    if arguments.results:
        results.write(
            "ops",
            title="The fused mixture of experts",
            measured=measured,
            sections=sections,
            raw=raw,
            commands=[shlex.join(["python", "benchmarks/ops.py", *sys.argv[1:]])],
            about=about,
        )


if __name__ == "__main__":
    main()
