"""Every random state of this process, as JSON holds it. The engine has none: its seeds follow from episode numbers."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seeds every generator of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)  # CUDA's too


def random_states() -> dict[str, Any]:
    """Returns the states of Python's, NumPy's and torch's generators, CUDA's of every device that is in use."""
    kind, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    on_cuda = _computes_on_gpu()
    return {
        "python": [kind, list(numbers), gauss],
        "numpy": [name, encode(np.asarray(keys, dtype=np.uint32)), position, has_gauss, cached],
        "torch": encode(torch.get_rng_state().numpy()),
        "cuda": [encode(state.numpy()) for state in torch.cuda.get_rng_state_all()] if on_cuda else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Reverses `random_states`; devices that are not here are left out."""
    kind, numbers, gauss = states["python"]
    random.setstate((kind, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, decode(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(decode(states["torch"], np.uint8)))
    if _computes_on_gpu():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(torch.from_numpy(decode(state, np.uint8)), device)


def _computes_on_gpu() -> bool:
    """Whether this process does. To ask more of CUDA would take memory of a GPU that nobody computes on."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def encode(array: np.ndarray) -> str:
    """Returns an array's bytes as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def decode(text: str, dtype: Any) -> np.ndarray:
    """Returns a new one-dimensional array of the bytes that `encode` wrote."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype).copy()
