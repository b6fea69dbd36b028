"""Which implementation runs an op: chosen by device, or asked for by name."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from polybeast_moe.errors import UserError

Backend = Literal["auto", "torch", "numba", "triton"]
Mixture = Callable[[Tensor, Tensor, "float | Tensor", bool], tuple[Tensor, Tensor, Tensor]]

MAX_FUSED_EXPERTS = 64
_MODULES = {"torch": "reference", "numba": "fused_numba", "triton": "fused_triton"}


def select_mixture(backend: str, device: torch.device, num_experts: int) -> Mixture:
    """The implementation for this device and number of experts.

    `auto` takes the fused one of the device where it can be imported and has room for the experts, else `torch`.
    Raises UserError for a backend asked for by name that does not exist or cannot run here.
    """
    if backend == "auto":
        fused = {"cpu": "numba", "cuda": "triton"}.get(device.type, "torch")
        backend = "torch" if _obstacle(fused, device, num_experts) else fused
    elif obstacle := _obstacle(backend, device, num_experts):
        raise UserError(f"ops backend {backend!r} is not available: {obstacle}; use backend='auto' or 'torch'")
    loaded = _load(backend)
    assert not isinstance(loaded, str)
    return loaded


def _obstacle(backend: str, device: torch.device, num_experts: int) -> str:
    """Why this backend cannot run here; empty if it can."""
    if backend not in _MODULES:
        return f"there is none of that name (there are {', '.join(_MODULES)})"
    if backend == "torch":
        return ""
    if num_experts > MAX_FUSED_EXPERTS:
        return f"it takes at most {MAX_FUSED_EXPERTS} experts, not {num_experts}"
    if backend == "numba" and device.type != "cpu":
        return f"it runs on the CPU and the tensors are on {device}"
    if backend == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"it runs on CUDA devices (or anywhere with TRITON_INTERPRET=1) and the tensors are on {device}"
    loaded = _load(backend)
    return loaded if isinstance(loaded, str) else ""


@functools.cache
def _load(backend: str) -> Mixture | str:
    """Imports a backend at its first use; its `mixture`, or the reason why the import failed."""
    try:
        module = importlib.import_module(f"polybeast_moe.ops.{_MODULES[backend]}")
    except ImportError as error:
        return f"it cannot be imported ({error})"
    mixture: Mixture = module.mixture
    return mixture
