"""Lets `polybeast_moe.envs` be imported beside gymnasium 0.29, which Sample Factory pins; newer ones are left alone.

The engine does not depend on Gymnasium; its face does, on two names that 0.29 lacks: the autoreset modes, and a base
class that takes type parameters. Nothing else that the vector environment uses has changed in between.
"""

from __future__ import annotations

import enum

import gymnasium.vector


class AutoresetMode(enum.Enum):
    """As in gymnasium 1.1."""

    NEXT_STEP = "NextStep"
    SAME_STEP = "SameStep"
    DISABLED = "Disabled"


def mend() -> None:
    """Adds what is missing."""
    if hasattr(gymnasium.vector, "AutoresetMode"):
        return
    gymnasium.vector.AutoresetMode = AutoresetMode
    gymnasium.vector.VectorEnv.__class_getitem__ = classmethod(lambda cls, _: cls)
