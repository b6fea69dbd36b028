"""High-throughput training of graph-attention mixture-of-experts agents on real NetHack. Imports no torch.

`polybeast_moe.load_policy(snapshot)` gives a trained agent (docs/evaluation.md).
"""

from __future__ import annotations

import importlib
from typing import Any

_LATER = {"load_policy": "polybeast_moe.evaluation.agent"}


def __getattr__(name: str) -> Any:
    """Imports what needs torch when it is first asked for."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
