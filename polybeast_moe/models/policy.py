"""The policy: two streams (what the screen shows, what the knowledge graph makes of it), a router, experts, a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.config import PolicyConfig, RunConfig
from polybeast_moe.models.action_mask import ActionMask
from polybeast_moe.models.experts import Experts
from polybeast_moe.models.full_map import FullMapEncoder
from polybeast_moe.models.glyphs import GlyphCropEncoder
from polybeast_moe.models.graph_plan import GraphPlan
from polybeast_moe.models.graph_stream import GraphStream
from polybeast_moe.models.initialise import LAST_GAIN, orthogonal
from polybeast_moe.models.interface import Observation, Policy, PolicyOutput
from polybeast_moe.models.inventory import InventoryEncoder
from polybeast_moe.models.landmarks import LandmarkEncoder
from polybeast_moe.models.recurrent import RecurrentCore
from polybeast_moe.models.router import Router, SceneRouter, best, bounded
from polybeast_moe.models.single_expert import Sizes, single_expert_hidden
from polybeast_moe.models.status import BlstatsEncoder, MessageEncoder
from polybeast_moe.ops import expert_mixture
from polybeast_moe.ops.mixture import Routing

if TYPE_CHECKING:
    from polybeast_moe.graph import KnowledgeGraph

_ACTION_EMBEDDING = 16


class VisualStream(nn.Module):
    """What one observation shows, as one vector: Observation of N rows -> [N, hidden]."""

    def __init__(self, config: PolicyConfig, crop_size: int, num_actions: int) -> None:
        super().__init__()
        self.glyphs = GlyphCropEncoder(crop_size, config.glyph_embedding, config.conv_channels, config.hidden)
        self.blstats = BlstatsEncoder()
        self.message = MessageEncoder() if config.message else None
        self.previous_action = nn.Embedding(num_actions + 1, _ACTION_EMBEDDING)
        self.map = FullMapEncoder(config.glyph_embedding, config.hidden) if config.full_map else None
        self.inventory = InventoryEncoder(config.glyph_embedding, config.hidden) if config.inventory else None
        self.landmarks = LandmarkEncoder() if config.landmarks else None
        features = config.hidden + self.blstats.out_features + _ACTION_EMBEDDING
        features += config.hidden * (config.full_map + config.inventory)
        if self.message is not None:
            features += self.message.out_features
        if self.landmarks is not None:
            features += self.landmarks.out_features
        self.join = orthogonal(nn.Linear(features, config.hidden))
        self.norm = nn.LayerNorm(config.hidden)

    def forward(self, observation: Observation, weights_version: int | None = None) -> Tensor:
        """Observation of N rows -> [N, hidden]; `weights_version` as in `Policy.forward`."""
        parts = [
            self.glyphs(observation.glyph_crop, weights_version),
            self.blstats(observation.blstats),
            self.previous_action(observation.previous_action),
        ]
        if self.message is not None:
            parts.append(self.message(_stored(observation.message, "message")))
        table = self.glyphs.table() if self.map is not None or self.inventory is not None else None
        if self.map is not None:
            parts.append(self.map(_stored(observation.glyphs, "glyphs"), table))
        if self.inventory is not None:
            glyphs = _stored(observation.inv_glyphs, "inv_glyphs")
            parts.append(self.inventory(glyphs, _stored(observation.inv_letters, "inv_letters"), table))
        if self.landmarks is not None:
            glyphs = _stored(observation.glyphs, "glyphs")
            parts.append(self.landmarks(glyphs, observation.blstats, observation.conditions))
        return F.relu(self.norm(self.join(torch.cat(parts, dim=1))))


def _stored(field: Tensor | None, name: str) -> Tensor:
    if field is None:
        raise ValueError(f"this policy reads observation.{name}: it must not be None")
    return field


class GraphMoEPolicy(Policy):
    """A mixture of experts over a visual stream and a graph stream. Same input and weights: same output."""

    def __init__(self, config: RunConfig, graph: KnowledgeGraph | None, *, num_actions: int) -> None:
        super().__init__()
        policy = config.policy
        if config.reads_graph and graph is None:
            raise ValueError("graph.enabled or policy.action_mask is true: this policy needs its knowledge graph")
        self.num_actions = num_actions
        self.expert_names = policy.expert_names
        self.expert_execution = policy.expert_execution
        self.mixture_backend = policy.mixture_backend
        self.expert_intent = policy.expert_intent
        self.operator_prior = policy.router.operator_prior

        self.visual = VisualStream(policy, config.env.crop_size, num_actions)
        self.core = RecurrentCore(policy.hidden, policy.lstm) if policy.lstm else None
        self.graph = GraphStream(config.graph, graph, self.expert_names) if config.graph.enabled and graph else None
        seen = policy.lstm or policy.hidden
        intent = config.graph.hidden if self.graph is not None else 0
        features = seen + (intent if policy.expert_intent else 0)
        self.router: Router | SceneRouter | None = None
        self.keep = policy.router.keep if policy.single_expert == "none" else None
        hidden = policy.expert_hidden
        if policy.single_expert == "none":
            by_scene = policy.router.kind == "scenes"
            size = seen + intent, len(self.expert_names)
            self.router = SceneRouter(policy.router) if by_scene else Router(policy.router, *size)
        else:
            hidden = single_expert_hidden(policy, Sizes(features, seen + intent, num_actions))
        self.experts = Experts(features, hidden, num_actions, len(self.expert_names))
        self.value = orthogonal(nn.Linear(seen + intent, 1), LAST_GAIN)
        self.mask = ActionMask(graph, num_actions) if policy.action_mask and graph is not None else None

    @property
    def state_size(self) -> int:
        """Numbers of recurrent state a game; 0 without a recurrent core."""
        return self.core.state_size if self.core is not None else 0

    def initial_state(self, batch: int) -> Tensor:
        """[batch, state_size] zeros: the state before the first step of an episode."""
        return self.experts.bias_in.new_zeros(batch, self.state_size)

    def forward(
        self,
        observation: Observation,
        state: Tensor | None = None,
        *,
        routing: Routing = "sparsemax",
        temperature: float | Tensor = 1.0,
        first: Tensor | None = None,
        weights_version: int | None = None,
        every_expert: bool = False,
    ) -> PolicyOutput:
        """Runs the policy on N rows.

        Args:
            observation: N rows; with a recurrent core N = T * B, time first.
            state: [B, S], the recurrent state before the first step; None: zeros.
            routing: "softmax" or "sparsemax".
            temperature: divides the bounded router scores; a constant, no gradient flows to it.
            first: [T, B] bool, True where a row is the first of its episode. Needed with a recurrent core only.
            weights_version: lets inference without gradients keep what depends on the weights until it changes.
            every_expert: run all experts for all rows, whatever their weights.

        Raises:
            ValueError: a recurrent core without `first`, or an observation without a message that is to be read.
        """
        seen = self.visual(observation, weights_version)
        states = None
        if self.core is not None:
            if first is None:
                raise ValueError("a recurrent policy needs first [T, B]")
            if state is None:
                state = self.initial_state(first.shape[1])
            seen, states = self.core(seen.unflatten(0, tuple(first.shape)), state, first)
            seen, state = seen.flatten(0, 1), states[-1]

        both, prior, read = seen, None, None
        if self.graph is not None:
            with torch.autocast(seen.device.type, enabled=False):  # sums over many messages need float32
                read = self.graph(observation.conditions, weights_version, observation.graph_plan)
            both = torch.cat([seen, read.intent], dim=1)
            prior = read.prior if self.operator_prior else None
        router_scores = self._scores(observation, both, prior)
        counted = best(router_scores, self.keep)
        support = None if every_expert else self._support(counted, routing, temperature)
        expert_logits = self.experts(both if self.expert_intent else seen, support)
        mixture = expert_mixture(counted, expert_logits, temperature, routing=routing, backend=self.mixture_backend)
        logits = mixture.logits
        return PolicyOutput(
            logits=logits if self.mask is None else self.mask(logits, observation.conditions),
            value=self.value(both).squeeze(1),
            alpha=mixture.alpha,
            router_scores=router_scores,
            alpha_entropy=mixture.entropy,
            expert_logits=expert_logits,
            state=state,
            states=states,
            operator_prior=self._bounded_prior(prior),
            graph_moments=read.moments if read is not None else None,
        )

    def plan(self, conditions: Tensor) -> GraphPlan | None:
        """Which neighbourhoods the graph's attention has to run for."""
        return self.graph.plan(conditions) if self.graph is not None else None

    def _scores(self, observation: Observation, features: Tensor, prior: Tensor | None) -> Tensor:
        """Bounded scores [N, E] of all experts, whatever `keep` leaves of them."""
        if self.router is None:
            return features.new_zeros(len(features), 1)
        if isinstance(self.router, SceneRouter):
            return cast(Tensor, self.router(_stored(observation.glyphs, "glyphs"), observation.blstats))
        return cast(Tensor, self.router(features, prior))

    def _bounded_prior(self, prior: Tensor | None) -> Tensor | None:
        """The prior as scores of its own, for losses: not while playing."""
        if prior is None or self.router is None or not torch.is_grad_enabled():
            return None
        return bounded(prior, self.router.bound)

    @torch.no_grad()
    def _support(self, router_scores: Tensor, routing: Routing, temperature: float | Tensor) -> Tensor | None:
        """Which experts have a weight above zero [N, E], where they shall run for those rows only; else None."""
        rows, experts = router_scores.shape
        auto = self.expert_execution == "auto"
        if self.expert_execution == "dense":
            return None
        # Best case: one expert a row. On a GPU, to look at the support is to wait for it.
        on_device = router_scores.device.type != "cpu"
        if auto and (routing == "softmax" or on_device or not self._pays(rows, rows, experts)):
            return None
        nothing = router_scores.new_zeros(rows, experts, 1)
        alpha = expert_mixture(router_scores, nothing, temperature, routing=routing, backend=self.mixture_backend).alpha
        support = alpha > 0
        used = int(support.any(0).sum())
        return support if not auto or self._pays(rows, int(support.sum()), used) else None

    def _pays(self, rows: int, pairs: int, experts: int) -> bool:
        """Whether `experts` experts for `pairs` (row, expert) pairs take less than all experts for all rows."""
        return self.experts.sparse_work(pairs, experts) < self.experts.dense_work(rows)
