"""One thing that the doctor found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """A part of the machine, what it is, and how that is for training.

    `state`: "fact" needs no judgement, "good" was tried or measured, "warning" costs speed or may stop a large run,
    "failed" keeps a run from starting. `advice`: what to do, for the last two.
    """

    name: str
    what: str
    state: Literal["fact", "good", "warning", "failed"] = "fact"
    advice: str = ""
