"""What each expert does, and which operators of the knowledge graph are attended to, scene by scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import ACTION_LABELS
from polybeast_moe.envs.scenes import SCENES, scenes
from polybeast_moe.evaluation.play import Moment
from polybeast_moe.graph.configured import configured_graph
from polybeast_moe.models import Policy
from polybeast_moe.models.policy import GraphMoEPolicy

EVERY = 16  # moments: attention over all operators costs more than playing does, and neighbouring states are alike


class ExpertPortraits:
    """Gathers from an evaluation (`play_episodes(..., watch=portraits)`) what experts do and operators mean.

    The actions need every expert in every state: play with `interventions.all_experts(policy)`. Operators are looked at
    in every 16th moment, in a policy that has a graph stream.
    """

    def __init__(self, policy: Policy, config: RunConfig) -> None:
        self._experts = config.policy.expert_names
        self._stream = policy.graph if isinstance(policy, GraphMoEPolicy) else None
        graph = configured_graph(config) if self._stream is not None else None
        self._operators = [operator.name for operator in graph.operators] if graph is not None else []
        self._actions = np.zeros((len(self._experts), len(ACTION_LABELS)))
        self._attention = np.zeros((len(SCENES), len(self._operators)))
        self._seen = np.zeros(len(SCENES))
        self._moments = 0

    def __call__(self, moment: Moment) -> None:
        """Takes the rows of a moment."""
        if moment.output is None:
            raise ValueError("random actions have no experts")
        logits = moment.output.expert_logits.double()
        self._actions += (moment.output.alpha.double()[:, :, None] * logits.softmax(-1)).sum(0).numpy()
        if self._stream is not None and self._moments % EVERY == 0:
            scene = scenes(moment.rows.raw)
            by_head = self._stream.operator_attention(moment.observation.conditions)  # [N, H, O]
            np.add.at(self._attention, scene, by_head.mean(1).double().numpy())
            self._seen += np.bincount(scene, minlength=len(SCENES))
        self._moments += 1

    def figures(self) -> dict[str, Any]:
        """Returns `expert_actions` and, of a policy with a graph, `scene_operators`, as JSON holds them.

        `expert_actions`: expert -> action -> share of what it would do, states weighted by the expert's alpha; none
        for an expert that never had any. `scene_operators`: scene -> operator -> share of the readout's attention, mean
        over heads and states; none for a scene that never came up.
        """
        totals = self._actions.sum(axis=1)
        found: dict[str, Any] = {
            "expert_actions": {
                name: dict(zip(ACTION_LABELS, (row / total).tolist(), strict=True))
                for name, row, total in zip(self._experts, self._actions, totals, strict=True)
                if total > 0
            }
        }
        if self._operators:
            found["scene_operators"] = {
                scene: dict(zip(self._operators, (row / count).tolist(), strict=True))
                for scene, row, count in zip(SCENES, self._attention, self._seen, strict=True)
                if count > 0
            }
        return found


def together(*watchers: Callable[[Moment], None]) -> Callable[[Moment], None]:
    """Returns one watcher that hands every moment to all of them."""

    def watch(moment: Moment) -> None:
        for watcher in watchers:
            watcher(moment)

    return watch
