"""Who steps the games, and how many."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from polybeast_moe.config.base import Section


class RuntimeConfig(Section):
    """Who steps the games and how many: `actors` x `groups` x `games_per_group` games, rollouts of `unroll` steps.

    `asynchronous`: actors, policy worker and learner are processes of their own. `inline`: one process does all in
    turn, deterministically, with one actor. None: chosen for the machine (`polybeast_moe.runtime.defaults`).
    """

    mode: Literal["asynchronous", "inline"] = "asynchronous"
    actors: PositiveInt | None = Field(None, le=1024)
    groups: PositiveInt = Field(2, le=64, description="groups an actor alternates between")
    games_per_group: PositiveInt = 32
    unroll: PositiveInt = 32
    threads: PositiveInt | None = Field(None, description="torch threads of the learner")
    policy_threads: PositiveInt | None = Field(None, description="torch threads of the policy worker")
    deaths_allowed: PositiveInt = Field(50, description="short lives in a row of one process before the run fails")
    groups_per_batch: PositiveInt | None = Field(None, description="most groups in one inference; None: all that wait")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda|cuda:\d+)$",
        description="where learner and policy worker compute: cpu, cuda, cuda:N; auto: a GPU if there is one",
    )
    pin_memory: bool = Field(True, description="lock rollouts in memory, so that a GPU copies them by itself")
    prefetch: bool | None = Field(None, description="make a batch while the learner computes; None: on a GPU")
    policy_graphs: Literal["none", "cuda_graphs", "compile"] = Field(
        "none", description="CUDA graphs: inference in a few sizes, each recorded once and replayed, or compiled"
    )
