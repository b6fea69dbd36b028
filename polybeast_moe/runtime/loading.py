"""Batches for the learner, on its device: made when they are wanted, or one ahead while the learner computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial

import torch
from torch import Tensor

from polybeast_moe.config import RunConfig
from polybeast_moe.models import Observation, Policy
from polybeast_moe.models.interface import moved
from polybeast_moe.runtime.base import Runtime
from polybeast_moe.runtime.device import PinnedMemory, device_of
from polybeast_moe.runtime.rollouts import Batch, Rollout, make_batch

Load = Callable[[list[Rollout]], Batch]


class Feed:
    """What the runtime collects, and the batches made of it, in the order in which rollouts come.

    Ahead, a thread makes the next batch while the learner computes, if its rollouts are there when that begins. They
    stay the learner's until they are collected: a run that ends before drops them, their episodes too.
    """

    def __init__(self, runtime: Runtime, load: Load, *, ahead: bool, pinned: PinnedMemory | None = None) -> None:
        """`load` is called in this thread, or ahead in another; `pinned` is closed with the feed."""
        self._runtime, self._load, self._pinned = runtime, load, pinned
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loading") if ahead else None
        self._waiting: deque[tuple[list[Rollout], Callable[[], Batch]]] = deque()
        self._batch: Callable[[], Batch] | None = None

    def collect(self, interrupted: Callable[[], bool] = lambda: False) -> list[Rollout] | None:
        """As the runtime's. The rollouts are the caller's to give back, once it has had their batch."""
        if not self._waiting:
            rollouts = self._runtime.collect(interrupted)
            if not rollouts:
                return rollouts
            self._begin(rollouts)
        rollouts, self._batch = self._waiting.popleft()
        more = self._runtime.poll() if self._thread is not None else []
        if more:
            self._begin(more)
        return rollouts

    def batch(self) -> Batch:
        """The batch of the rollouts that `collect` returned last."""
        assert self._batch is not None, "collect first"
        return self._batch()

    def close(self) -> None:
        """Waits for what is being made."""
        if self._thread is not None:
            self._thread.shutdown()
        if self._pinned is not None:
            self._pinned.close()

    def _begin(self, rollouts: list[Rollout]) -> None:
        make = partial(self._load, rollouts)
        self._waiting.append((rollouts, self._thread.submit(make).result if self._thread is not None else make))


def make_feed(config: RunConfig, policy: Policy, runtime: Runtime, log: Callable[[str], None]) -> Feed:
    """The feed of a learner, on its policy's device; `log` tells of memory that cannot be pinned."""
    device = device_of(policy)
    ahead = bool(config.runtime.prefetch)
    if device.type == "cpu":
        return Feed(runtime, make_batch, ahead=ahead)
    pinned = None
    if config.runtime.pin_memory:
        pinned = PinnedMemory(*runtime.slots_memory())
        if pinned.refused is not None:
            log(pinned.refused)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    learning = torch.cuda.current_stream(device)

    def load(rollouts: list[Rollout]) -> Batch:
        with torch.cuda.stream(stream):
            batch = batch_on(device, rollouts, policy)
        stream.synchronize()  # then the slots may change, and whoever computes has nothing to wait for
        tensors(batch, lambda tensor: tensor.record_stream(learning))  # freed only behind what reads it there
        return batch

    return Feed(runtime, load, ahead=ahead, pinned=pinned)


def batch_on(device: torch.device, rollouts: list[Rollout], policy: Policy) -> Batch:
    """As `make_batch`, on a device: one copy a slot, put together there; the graph's plan comes from the host."""
    finals = [rollout.finals for rollout in rollouts]
    batch = make_batch([rollout.to(device) for rollout in rollouts], finals)

    def planned(observation: Observation, words: Tensor) -> Observation:
        plan = policy.plan(words) if len(words) else None
        return observation._replace(graph_plan=moved(plan, lambda tensor: tensor.to(device)))

    conditions = torch.cat([rollout["conditions"] for rollout in rollouts], dim=1).flatten(0, 1)
    final = torch.cat([rollout["final_conditions"][:count] for rollout, count in zip(rollouts, finals, strict=True)])
    return replace(
        batch,
        observation=planned(batch.observation, conditions),
        final_observation=planned(batch.final_observation, final),
    )


def tensors(batch: Batch, look: Callable[[Tensor], None]) -> None:
    """Shows every tensor of a batch to `look`."""

    def shown(tensor: Tensor) -> Tensor:
        look(tensor)
        return tensor

    for field in fields(batch):
        moved(getattr(batch, field.name), shown)
