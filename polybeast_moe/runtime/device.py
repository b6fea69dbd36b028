"""Where learner and policy worker compute, and what a GPU wants of the host's memory."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from polybeast_moe.config import RuntimeConfig
from polybeast_moe.errors import UserError
from polybeast_moe.runtime.defaults import with_defaults


def on_this_machine(runtime: RuntimeConfig, cores: int, local_rank: int = 0) -> RuntimeConfig:
    """Returns the settings with a device that is here and every None chosen for it and for `cores` usable cores.

    Raises UserError where what was asked for is not here.
    """
    device = choose_device(runtime.device, local_rank)
    if runtime.policy_graphs == "cuda_graphs" and device.type != "cuda":
        raise UserError("runtime.policy_graphs: cuda_graphs needs a GPU, and there is none to compute on; set none")
    return with_defaults(runtime.model_copy(update={"device": str(device)}), cores)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The CPU, or one GPU by its number: of several ranks on a machine each has its own.

    Raises UserError where torch does not find it.
    """
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if kind != "cpu" and torch.cuda.is_available() else 0
    if kind == "cpu" or (kind == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise UserError(
            f"runtime.device: {name}, but torch finds no GPU (polybeast-moe doctor says why); set auto or cpu"
        )
    number = int(index) if index else local_rank % count
    if number >= count:
        raise UserError(f"runtime.device: {name}, but the last GPU here is cuda:{count - 1}")
    return torch.device("cuda", number)


def device_of(policy: nn.Module) -> torch.device:
    """Where a policy computes; one without parameters on the CPU."""
    parameter = next(policy.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def use(device: torch.device) -> None:
    """Makes a GPU this process's own: what names none goes there."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


class PinnedMemory:
    """Memory of this process that a GPU may copy from while the host goes on; `refused` says in a line why it may not.

    Attributes:
        refused: None where all is well. Copies then wait for each other, and are right all the same.
    """

    def __init__(self, address: int, size: int, cudart: Any = None) -> None:
        """Locks `size` bytes from `address` on; `cudart` is CUDA's runtime, torch's own by default."""
        self._cudart = cudart if cudart is not None else torch.cuda.cudart()  # type: ignore[no-untyped-call]
        self._address = address
        error = self._cudart.cudaHostRegister(address, size, 0)
        self.refused: str | None = None
        if error != self._cudart.cudaError.success:
            why = self._cudart.cudaGetErrorString(error)
            self.refused = f"runtime.pin_memory: {size / 2**20:.0f} MiB cannot be pinned ({why}): copies are slower"
            _forget_error()

    def close(self) -> None:
        """Gives the memory free; before it is unmapped."""
        if self.refused is None:
            self._cudart.cudaHostUnregister(self._address)


def _forget_error() -> None:
    """CUDA keeps a call's error until somebody asks: else the next kernel would be blamed."""
    if torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device="cuda").add_(1)
