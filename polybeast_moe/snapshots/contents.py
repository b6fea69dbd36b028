"""What a snapshot holds: weights, optimiser and state, as tensors and plain values. Nothing read here can run code."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polybeast_moe.snapshots.directory import OPTIMIZER, STATE, WEIGHTS, SnapshotError, publish, verify

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """A loaded snapshot, its tensors on the CPU."""

    path: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]


def save(
    root: Path, frames: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any], state: Mapping[str, Any]
) -> Path:
    """Writes `root/step-<frames>`, complete or not at all; returns it. See `directory.publish`.

    Args:
        root: the run's `snapshots/`.
        frames: frames consumed so far.
        weights: a module's `state_dict()`.
        optimizer: an optimiser's `state_dict()`: tensors and plain values only.
        state: all else, as JSON holds it; `kind` says why the snapshot was taken: periodic, phase_end, final, signal.

    Raises:
        OSError: it cannot be written; what was there before still stands.
    """
    import safetensors.torch
    import torch

    # Copies, because safetensors refuses tensors that share memory (tied weights).
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    buffer = io.BytesIO()
    torch.save(dict(optimizer), buffer)
    files = {
        WEIGHTS: safetensors.torch.save(copies),
        OPTIMIZER: buffer.getvalue(),
        STATE: json.dumps(dict(state), indent=2).encode(),
    }
    versions = {name: version(name) for name in ("torch", "safetensors", "nle")}
    return publish(root, frames, files, {"written": time.time(), "versions": versions})


def load(path: Path) -> Snapshot:
    """Verifies and reads a snapshot.

    Raises:
        SnapshotError: it does not verify, or holds something else than tensors and plain values.
    """
    import safetensors.torch
    import torch

    verify(path)
    name = WEIGHTS
    try:
        weights = safetensors.torch.load((path / WEIGHTS).read_bytes())
        name = OPTIMIZER
        optimizer = torch.load(path / OPTIMIZER, map_location="cpu", weights_only=True)
        name = STATE
        state = json.loads((path / STATE).read_bytes())
    except Exception as error:  # readers of foreign bytes raise whatever they come across
        raise SnapshotError(f"snapshot {path}: {name} cannot be read: {_first_line(error)}") from error
    for name, value in ((OPTIMIZER, optimizer), (STATE, state)):
        if not isinstance(value, dict):
            raise SnapshotError(f"snapshot {path}: {name} does not hold what it should")
    return Snapshot(path, weights, optimizer, state)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
