"""A policy of runs that must not end before a test has seen to them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from polybeast_moe.models import Observation, PolicyOutput
from polybeast_moe.models.policy import GraphMoEPolicy


class HeldPolicy(GraphMoEPolicy):
    """After ten updates it learns nothing more for as long as there is the file that HELD_BY names."""

    updates = 0

    def forward(self, observation: Observation, state: Any = None, **settings: Any) -> PolicyOutput:
        if torch.is_grad_enabled():
            self.updates += 1
            while self.updates > 10 and Path(os.environ["HELD_BY"]).exists():
                time.sleep(0.02)
        return super().forward(observation, state, **settings)
