"""What a snapshot holds: weights, optimiser and state, as tensors and plain values. Nothing read here can run code."""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polybeast_moe.snapshots.directory import OPTIMIZER, STATE, WEIGHTS, SnapshotError, notes_of, publish, verify

if TYPE_CHECKING:
    from torch import Tensor

_LIBRARIES = ("torch", "numpy", "safetensors", "nle", "gymnasium", "polybeast-moe")


@dataclass(frozen=True)
class Snapshot:
    """A loaded snapshot, its tensors on the CPU.

    Attributes:
        versions: of the libraries that wrote it, by name.
    """

    path: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Contents:
    """What a snapshot will hold. Its tensors are copies, so training may go on while it is written."""

    frames: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]


def capture(
    frames: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any], state: Mapping[str, Any]
) -> Contents:
    """Copies what changes with the next update to the CPU; when it returns, that update may begin.

    Copies from a GPU wait for the updates before, and the caller for them: they are not asynchronous.

    Args:
        frames: frames consumed so far.
        weights: a module's `state_dict()`.
        optimizer: an optimiser's `state_dict()`: tensors and plain values only.
        state: all else, as JSON holds it, and nobody's but the snapshot's; `kind` says why it was taken: periodic,
            phase_end, operator, signal.
    """
    # Copies each, because safetensors refuses tensors that share memory (tied weights).
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    return Contents(frames, copies, on_host(optimizer), dict(state))


def write(root: Path, contents: Contents) -> Path:
    """Writes `root/step-<frames>`, complete or not at all; returns it. See `directory.publish`.

    A snapshot of the same frames is replaced, and a phase's end stays one.

    Raises:
        OSError: it cannot be written; what was there before still stands.
    """
    import safetensors.torch
    import torch

    before = notes_of(root / f"step-{contents.frames:012d}")
    state = contents.state | ({"kind": "phase_end"} if before.get("kind") == "phase_end" else {})
    buffer = io.BytesIO()
    torch.save(contents.optimizer, buffer)
    files = {
        WEIGHTS: safetensors.torch.save(contents.weights),
        OPTIMIZER: buffer.getvalue(),
        STATE: json.dumps(state, indent=1).encode(),
    }
    notes = {
        "kind": state.get("kind"),
        "number": state.get("number", 0),
        "written": time.time(),
        "versions": library_versions(),
    }
    return publish(root, contents.frames, files, notes)


def save(
    root: Path, frames: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any], state: Mapping[str, Any]
) -> Path:
    """Captures and writes at once."""
    return write(root, capture(frames, weights, optimizer, state))


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


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
    return Snapshot(path, weights, optimizer, state, dict(notes_of(path).get("versions") or {}))


def on_host(value: Any) -> Any:
    """Copies tensors within mappings, lists and tuples to the CPU. When it returns, they may change."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: on_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_host(item) for item in value)
    return value


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
