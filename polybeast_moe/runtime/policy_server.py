"""Answers groups of games that wait for actions: one batch through the policy, results into the rollout slots."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from polybeast_moe import _C
from polybeast_moe.models.interface import Observation
from polybeast_moe.runtime.inference import Infer
from polybeast_moe.runtime.rollouts import ROUTINGS, Rollout, observation_of


class PolicyServer:
    """Runs the policy for whoever waits. The same object serves the inline mode and the policy worker.

    Recurrent state lies in the region, two copies a group: the current one is read, the other written, and the answer
    itself makes the new one current. A server that dies half-way has changed nothing that counts. `next_group` is
    where it looks first for somebody who waits.
    """

    def __init__(
        self, region: _C.Region, infer: Infer, generator: torch.Generator, groups_per_batch: int | None = None
    ) -> None:
        """Answers at most `groups_per_batch` groups at once; None: all that wait."""
        self._limit = groups_per_batch or region.groups
        self.next_group = 0
        self._region = region
        self._infer = infer
        self._generator = generator
        self._rollouts = [Rollout(region, slot) for slot in range(len(region))]
        self._states = [torch.from_numpy(region.states(group)) for group in range(region.groups)]

    def serve(self, policy_version: int) -> int:
        """Answers groups that wait now, in one batch with the weights of that version; returns how many.

        It looks first at the group after the last one answered, so that none is left out.
        """
        requests = self._region.requests(self._limit, self.next_group)
        if not requests:
            return 0
        began = time.perf_counter()
        self.next_group = (requests[-1].group + 1) % self._region.groups
        self._write_answers(requests, policy_version)
        # Counted before anybody sees the answers: the first takes long, and the trainer's clock begins with it.
        self._region.add_policy_busy(time.perf_counter() - began)
        for request in requests:
            self._region.answer(request)
        return len(requests)

    def _write_answers(self, requests: Sequence[_C.Request], policy_version: int) -> None:
        rows = [(self._rollouts[request.slot], request.step) for request in requests]
        states = [self._states[request.group][request.answers % 2] for request in requests]
        for (rollout, step), state in zip(rows, states, strict=True):
            if step == 0:
                rollout["initial_state"].copy_(state)
        control = self._region.control
        output = self._infer(
            _observation(rows),
            torch.cat(states),
            routing=ROUTINGS[control["routing"]],
            temperature=control["temperature"],
            first=torch.cat([rollout["first"][step] for rollout, step in rows]).bool(),
            weights_version=policy_version,
        )
        actions = _sample(output.logits, self._generator)
        games = len(states[0])
        for index, (request, (rollout, step)) in enumerate(zip(requests, rows, strict=True)):
            own = slice(index * games, (index + 1) * games)
            rollout["action"][step] = actions[own]
            rollout["behaviour_logits"][step] = output.logits[own]
            rollout["alpha"][step] = output.alpha[own]
            rollout["policy_version"][step] = policy_version
            rollout["phase"][step] = control["phase"]
            rollout["routing"][step] = control["routing"]
            rollout["temperature"][step] = control["temperature"]
            if output.state is not None:
                self._states[request.group][(request.answers + 1) % 2] = output.state[own]


def _sample(logits: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator).squeeze(1)


def _observation(rows: Sequence[tuple[Rollout, int]]) -> Observation:
    """The observations of several slots' rows, one below the other."""

    def together(name: str) -> Tensor:
        return torch.cat([rollout[name][step] for rollout, step in rows])

    return observation_of(rows[0][0], together)
