"""NetHack environments; importing this registers them with Gymnasium as `polybeast_moe/NetHackScore-v0` and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium

from polybeast_moe.envs.tasks import TASKS, EndStatus, InvalidOptionError, InvalidTypeError

if TYPE_CHECKING:
    from polybeast_moe.envs.vector_env import NetHackVectorEnv

__all__ = ["TASKS", "EndStatus", "InvalidOptionError", "InvalidTypeError", "NetHackVectorEnv"]

for _task in TASKS:
    gymnasium.register(
        id=f"polybeast_moe/{_task}",
        vector_entry_point="polybeast_moe.envs.vector_env:NetHackVectorEnv",
        kwargs={"task": _task},
    )


def __getattr__(name: str) -> Any:
    """Imports the environment on first use: finding out whether nle is installed must not need it."""
    if name == "NetHackVectorEnv":
        from polybeast_moe.envs.vector_env import NetHackVectorEnv

        return NetHackVectorEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
