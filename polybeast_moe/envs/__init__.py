"""NetHack environments; importing this registers them with Gymnasium as `polybeast_moe/NetHackScore-v0` and so on."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

from polybeast_moe.envs.tasks import TASKS, EndStatus, InvalidOptionError, InvalidTypeError

if TYPE_CHECKING:
    from polybeast_moe.envs.replay import RecordReplays, Replay, ReplayError, ReplayStep
    from polybeast_moe.envs.vector_env import NetHackVectorEnv

__all__ = [
    "TASKS",
    "EndStatus",
    "InvalidOptionError",
    "InvalidTypeError",
    "NetHackVectorEnv",
    "RecordReplays",
    "Replay",
    "ReplayError",
    "ReplayStep",
]

for _task in TASKS:
    gymnasium.register(
        id=f"polybeast_moe/{_task}",
        vector_entry_point="polybeast_moe.envs.vector_env:NetHackVectorEnv",
        kwargs={"task": _task},
    )


_LATER = {
    "NetHackVectorEnv": "polybeast_moe.envs.vector_env",
    **dict.fromkeys(("RecordReplays", "Replay", "ReplayError", "ReplayStep"), "polybeast_moe.envs.replay"),
}


def __getattr__(name: str) -> Any:
    """Imports the environment on first use, which needs nle: finding out whether that is installed must not."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
