"""Policies for test_ranks.py."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from polybeast_moe.models import Observation, PolicyOutput
from polybeast_moe.models.policy import GraphMoEPolicy

RANK = os.environ.get("RANK", "0")


class LoggingPolicy(GraphMoEPolicy):
    """Writes down with which settings it infers and learns."""

    def forward(self, observation: Observation, state: Any = None, **settings: Any) -> PolicyOutput:
        what = "learn" if torch.is_grad_enabled() else "infer"
        if what == "learn" or settings.get("weights_version") is not None:
            with (Path(os.environ["RANK_LOGS"]) / f"rank-{RANK}.log").open("a") as log:
                print(what, settings["routing"], settings["temperature"], file=log)
        return super().forward(observation, state, **settings)


class LatePolicy(GraphMoEPolicy):
    """Takes its time on every rank but the first."""

    def forward(self, observation: Observation, state: Any = None, **settings: Any) -> PolicyOutput:
        if RANK != "0" and not torch.is_grad_enabled():
            time.sleep(0.1)
        return super().forward(observation, state, **settings)
