"""The command `doctor`: looks at this machine, or plans another."""

from __future__ import annotations

from collections.abc import Sequence

from polybeast_moe.doctor import examine
from polybeast_moe.errors import UserError
from polybeast_moe.scaling import QUICKSTART, GpuCosts, describe, plan_cpu, plan_gpu


def run_doctor(self_test: bool, plan: Sequence[int] | None, gpu_us: Sequence[float] | None) -> int:
    """Prints what there is to say; returns the exit code.

    Args:
        self_test: also try engine, kernels and processes.
        plan: GPUs and cores of a machine to plan for instead.
        gpu_us: microseconds of one of its GPUs that a frame costs in inference and in the update.

    Raises:
        UserError: there is no such machine.
    """
    if gpu_us and not (plan and plan[0]):
        raise UserError("--gpu-us is what a GPU of a plan costs: give --plan GPUS CORES with it, GPUS above 0")
    if plan:
        gpus, cores = plan
        return _plan(gpus, cores, gpu_us)
    return 0 if examine(self_test) else 1


def _plan(gpus: int, cores: int, gpu_us: Sequence[float] | None) -> int:
    if gpus < 0 or cores < max(1, gpus):
        raise UserError(f"--plan {gpus} {cores}: GPUS from 0, CORES at least one and one a GPU")
    if gpu_us and min(gpu_us) <= 0:
        raise UserError("--gpu-us: microseconds are above 0")
    gpu = GpuCosts(*gpu_us) if gpu_us else None
    plan = plan_gpu(gpus, cores, QUICKSTART, gpu) if gpus else plan_cpu(cores, QUICKSTART)
    for name, finding in describe(plan, gpu_known=not gpus or gpu is not None):
        print(f"{name:<10}{finding}")
    return 0
