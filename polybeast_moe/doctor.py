"""What this machine has, for `polybeast-moe doctor`."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

import psutil

from polybeast_moe.config import LearnerConfig, RuntimeConfig
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.errors import UserError
from polybeast_moe.monitoring.resources import usable_cores
from polybeast_moe.runtime.defaults import describe


def findings() -> Iterator[tuple[str, str]]:
    """Yields pairs of a part's name and what was found. Imports torch to ask it for GPUs."""
    yield "python", platform.python_version()
    import torch

    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads"
    try:
        package = check_nle()
        yield "nle", f"{package.version}, {package.library}"
    except UserError as error:
        yield "nle", str(error)
    cores = usable_cores()
    yield "cores", f"{cores} usable of {os.cpu_count()}"
    yield "defaults", describe(RuntimeConfig(), LearnerConfig().slots_per_batch, cores)
    memory = psutil.virtual_memory()
    yield "memory", f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}"
    if not torch.cuda.is_available():
        yield "GPU", "none that torch can use; training runs on the CPU"
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield f"GPU {index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB"
