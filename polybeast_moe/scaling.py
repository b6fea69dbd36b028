"""How many frames a second a machine allows, and what binds: a model from measured costs, not a measurement. Pure.

docs/scaling.md derives it and says where it bends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polybeast_moe.config import RuntimeConfig
from polybeast_moe.runtime.defaults import RESERVED_CORES, with_defaults


@dataclass(frozen=True)
class Costs:
    """Microseconds of one core that a frame costs, by part; `exchange_us` is an update's, for every rank beyond one."""

    engine: float
    inference: float
    update: float
    exchange_us: float = 0.0
    frames_per_update: int = 1024

    @property
    def exchange(self) -> float:
        """Microseconds of one core a frame."""
        return self.exchange_us / self.frames_per_update


QUICKSTART = Costs(engine=42.0, inference=45.0, update=71.0, exchange_us=7_900.0)
"""configs/quickstart.yaml at 12,600 frames/s on two cores: what its parts cost beside each other, more than each costs
alone (docs/pipeline.md). The exchange is that of two ranks that do nothing else. benchmarks/scaling.py holds runs of
one and of two ranks against them."""


@dataclass(frozen=True)
class GpuCosts:
    """Microseconds of one GPU that a frame costs, by part, as benchmarks/gpu_check.sh prints them."""

    inference: float
    update: float


@dataclass(frozen=True)
class Plan:
    """What the model says.

    Attributes:
        ranks: learners, one a GPU.
        cores: of each rank.
        runtime: actors and threads of each rank.
        limits: frames a second of each rank that each part allows by itself.
    """

    ranks: int
    cores: float
    runtime: RuntimeConfig
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def bottleneck(self) -> str:
        """The part that allows the least."""
        return min(self.limits, key=lambda name: self.limits[name])

    @property
    def frames_per_second(self) -> float:
        """Of all ranks together."""
        return self.ranks * self.limits[self.bottleneck]


def plan_cpu(cores: float, costs: Costs, ranks: int = 1) -> Plan:
    """Plans for a machine without GPUs whose cores its ranks share evenly."""
    each = cores / ranks
    runtime = with_defaults(RuntimeConfig(), max(1, int(each)))
    exchange = costs.exchange if ranks > 1 else 0.0
    limits = {
        "cores": 1e6 * each / (costs.engine + costs.inference + costs.update + exchange),
        "engine": 1e6 * (runtime.actors or 1) / costs.engine,
        "inference": 1e6 * (runtime.policy_threads or 1) / costs.inference,
        "update": 1e6 * (runtime.threads or 1) / (costs.update + exchange),
    }
    return Plan(ranks, each, runtime, limits)


def plan_gpu(gpus: int, cores: float, costs: Costs, gpu: GpuCosts | None = None) -> Plan:
    """Plans for a machine with a rank a GPU; without GPU costs only what its cores allow is known."""
    each = cores / gpus
    runtime = with_defaults(RuntimeConfig(device="cuda", actors=max(1, int(each - RESERVED_CORES))), max(1, int(each)))
    limits = {"engine": 1e6 * min(float(runtime.actors or 1), each) / costs.engine}
    if gpu is not None:
        limits["GPU"] = 1e6 / (gpu.inference + gpu.update + (costs.exchange if gpus > 1 else 0.0))
    return Plan(gpus, each, runtime, limits)


def describe(plan: Plan, *, gpu_known: bool) -> list[tuple[str, str]]:
    """Returns the plan as pairs of a word and what there is to say about it."""
    runtime = plan.runtime
    lines = [
        ("ranks", f"{plan.ranks}, {plan.cores:g} cores each"),
        (
            "actors",
            f"{runtime.actors} a rank; threads: policy worker {runtime.policy_threads}, learner {runtime.threads}",
        ),
        *((name, f"allows {plan.ranks * limit:,.0f} frames/s") for name, limit in plan.limits.items()),
    ]
    if not gpu_known:
        lines.append(("GPU", "unmeasured: run benchmarks/gpu_check.sh there and give --gpu-us INFERENCE UPDATE"))
    return [*lines, ("predicted", f"{plan.frames_per_second:,.0f} frames/s, bound by {plan.bottleneck} (a model)")]
