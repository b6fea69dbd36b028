"""Measures the fused mixture of experts against its peers, forward and backward.

    python benchmarks/ops.py [--rounds 21] [--threads 1] [--json FILE]

Contestants take turns within a round, so that a noisy machine is noisy for all; figures are medians over rounds, and a
ratio is the median of the rounds' own ratios. Peers: the torch reference, and entmax's sparsemax followed by einsum.
On the CPU the large buffers come from malloc: they are kept between rounds (no page faults), for every contestant.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from entmax import sparsemax as entmax_sparsemax
from torch import Tensor

from polybeast_moe.ops import expert_mixture
from polybeast_moe.ops.backends import Backend

TEMPERATURE = 0.5
CPU_SHAPES = [(64, 4, 23), (2_048, 4, 23), (20_480, 4, 23), (20_480, 64, 121)]
CUDA_SHAPES = [(1 << 20, 4, 23), (20_480, 64, 121)]
GOAL = 3.0

Contestant = Callable[[Tensor, Tensor], Tensor]


def ours(backend: Backend) -> Contestant:
    return lambda scores, logits: expert_mixture(scores, logits, TEMPERATURE, backend=backend).logits


def entmax_einsum(scores: Tensor, logits: Tensor) -> Tensor:
    return torch.einsum("ne,nea->na", entmax_sparsemax(scores / TEMPERATURE, dim=-1), logits)


def keep_freed_memory() -> None:
    """glibc otherwise returns large blocks at every free, and all contestants measure page faults."""
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_max = -1, -4
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


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
            name: statistics.median(t / f for t, f in zip(values, times[first], strict=True))
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


def show(result: dict[str, Any], first: str) -> None:
    shape = result["shape"]
    print(f"N={shape['N']:,} E={shape['E']} A={shape['A']}")
    for name, value in result["median_microseconds"].items():
        ratio = result[f"times_faster_than_by_{first}"].get(name)
        print(f"  {name:16s} {value:12,.0f} us" + (f"   {first} is {ratio:.2f} x as fast" if ratio else ""))


def run_cpu(rounds: int) -> list[dict[str, Any]]:
    contestants = {"numba": ours("numba"), "torch": ours("torch"), "entmax+einsum": entmax_einsum}
    results = []
    for shape in CPU_SHAPES:
        large = shape[0] * shape[1] * shape[2] > 50_000_000
        results.append(race(contestants, shape, "cpu", max(3, rounds // 4) if large else rounds))
        show(results[-1], "numba")
        if shape[0] == 20_480:
            slowest = min(results[-1]["times_faster_than_by_numba"].values())
            print(f"  goal: at least {GOAL:.0f} x both: {'met' if slowest >= GOAL else 'not met'} ({slowest:.2f})")
    return results


def run_cuda(rounds: int) -> list[dict[str, Any]]:
    contestants = {
        "triton": ours("triton"),
        "torch": ours("torch"),
        "torch.compile": torch.compile(ours("torch")),
        "entmax+einsum": entmax_einsum,
    }
    results = []
    for shape in CUDA_SHAPES:
        result = race(contestants, shape, "cuda", rounds)
        moved = traffic_bytes(*shape)
        copy = copy_bandwidth(moved, rounds)
        achieved = moved / (result["median_microseconds"]["triton"] * 1e-6)
        result |= {"bytes": moved, "bytes_per_second": achieved, "copy_bytes_per_second": copy}
        show(result, "triton")
        print(f"  {moved / 1e6:,.0f} MB at {achieved / 1e9:,.0f} GB/s, {achieved / copy:.0%} of a copy's (goal 80 %)")
        results.append(result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for torch and for numba")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()

    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {arguments.threads} threads")
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": arguments.threads,
        "cpu": run_cpu(arguments.rounds),
    }
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
        results["cuda"] = run_cuda(arguments.rounds)
    else:
        print("CUDA: no GPU here, this part did not run")
        results["cuda"] = "did not run: no GPU"
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
