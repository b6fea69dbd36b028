"""Changes to a policy while it plays: what is lost without an expert, with another state's gates, without the graph.

Any change of a policy costs something, so each stands beside a perturbation of equal size: noise on the logits in a
random direction, in every state just so long that the Kullback-Leibler divergence from the policy is the change's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polybeast_moe.envs.scenes import scenes
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.games import GameRows
from polybeast_moe.evaluation.play import ActingPolicy, Change, InferWith
from polybeast_moe.evaluation.statistics import Floats
from polybeast_moe.models import Policy, PolicyOutput
from polybeast_moe.models.action_mask import masked_alike
from polybeast_moe.models.graph_stream import GraphReadout
from polybeast_moe.models.policy import GraphMoEPolicy
from polybeast_moe.models.router import best
from polybeast_moe.ops import expert_mixture
from polybeast_moe.ops.mixture import Routing

_POOL = 4096  # states whose gates may be dealt out
_NEWTON_STEPS = 30
_LONGEST = 1e4  # of noise: logits that far apart are as good as certain


class KnockOut:
    """An expert's weight is 0 and the others share its part, each in proportion to its own.

    Where it had all the weight, the router decides among the others, of which it keeps at most `keep`.
    """

    def __init__(self, expert: int, routing: Routing, temperature: float, keep: int | None = None) -> None:
        self._expert, self._routing, self._temperature, self._keep = expert, routing, temperature, keep

    def __call__(self, _rows: GameRows, output: PolicyOutput, _infer: InferWith) -> PolicyOutput:
        """Changes alpha and logits."""
        others = [e for e in range(output.alpha.shape[1]) if e != self._expert]
        left = output.alpha[:, others]
        total = left.sum(dim=1, keepdim=True)
        scores = best(output.router_scores[:, others], self._keep and min(self._keep, len(others)))
        again = expert_mixture(scores, output.expert_logits[:, others], self._temperature, routing=self._routing).alpha
        alpha = torch.zeros_like(output.alpha)
        alpha[:, others] = torch.where(total > 1e-6, left / total.clamp(min=1e-6), again)
        return with_gates(output, alpha)


class ShuffleGates:
    """Each state gets the gates of another state, one of the same scene (`within`) or of any other scene."""

    def __init__(self, within: bool, seed: int = 0) -> None:
        self._within = within
        self._generator = np.random.default_rng(seed)
        self._alpha: Floats | None = None
        self._scene = np.full(_POOL, -1, dtype=np.int64)
        self._met = 0

    def __call__(self, rows: GameRows, output: PolicyOutput, _infer: InferWith) -> PolicyOutput:
        """Changes alpha and logits; what was last met is dealt out."""
        scene, alpha = scenes(rows.raw), output.alpha.double().numpy()
        pool = self._keep(scene, alpha)
        dealt = alpha.copy()
        for kind in np.unique(scene).tolist():
            own = np.flatnonzero(scene == kind)
            same = self._scene == kind
            candidates = np.flatnonzero(same if self._within else (self._scene >= 0) & ~same)
            if len(candidates):
                dealt[own] = pool[self._generator.choice(candidates, size=len(own))]
        return with_gates(output, torch.from_numpy(dealt).to(output.alpha.dtype))

    def _keep(self, scene: NDArray[np.int64], alpha: Floats) -> Floats:
        if self._alpha is None:
            self._alpha = np.zeros((_POOL, alpha.shape[1]))
        at = (self._met + np.arange(len(scene))) % _POOL
        self._alpha[at], self._scene[at] = alpha, scene
        self._met += len(scene)
        return self._alpha


class WithoutGraph:
    """The graph stream says nothing: its intent vector and its prior over experts are 0."""

    def __init__(self, policy: Policy) -> None:
        """Raises UserError where the policy has no graph stream that could be taken away."""
        if not isinstance(policy, GraphMoEPolicy) or policy.graph is None:
            raise UserError("this policy has no graph stream to switch off")
        self._policy = policy

    def __call__(self, _rows: GameRows, _output: PolicyOutput, infer: InferWith) -> PolicyOutput:
        """Runs the policy again without it; the recurrent state, which does not depend on it, stays."""

        def silence(_module: torch.nn.Module, _given: object, read: GraphReadout) -> GraphReadout:
            return GraphReadout(torch.zeros_like(read.intent), torch.zeros_like(read.prior))

        assert self._policy.graph is not None
        handle = self._policy.graph.register_forward_hook(silence)
        try:
            return infer(self._policy)
        finally:
            handle.remove()


class Gauged:
    """A change, or a perturbation as large; says how large.

    Attributes:
        rows: states so far.
    """

    def __init__(self, change: Change, perturb: bool = False, seed: int = 0) -> None:
        """Plays `change`; with `perturb`, noise of its size in each state instead."""
        self._change, self._perturb = change, perturb
        self._generator = np.random.default_rng(seed)
        self._total = 0.0
        self.rows = 0

    @property
    def divergence(self) -> float:
        """Mean KL(policy, what was played) over the states met, in nats."""
        return self._total / max(1, self.rows)

    def __call__(self, rows: GameRows, output: PolicyOutput, infer: InferWith) -> PolicyOutput:
        """Returns what is played."""
        played = self._change(rows, output, infer)
        before = output.logits.double().numpy()
        size = divergence(before, played.logits.double().numpy())
        if self._perturb:
            noise = self._generator.normal(size=before.shape)
            logits = before + matched_length(before, noise, size)[:, None] * noise
            size = divergence(before, logits)
            played = output._replace(logits=torch.from_numpy(logits))
        self._total += float(size.sum())
        self.rows += len(size)
        return played


def with_gates(output: PolicyOutput, alpha: Tensor) -> PolicyOutput:
    """Returns the output with other gates [N, E] and what follows from them; every expert must have run."""
    logits = masked_alike((alpha[:, :, None] * output.expert_logits).sum(dim=1), output.logits)
    entropy = -(alpha * torch.where(alpha > 0, alpha, 1.0).log()).sum(dim=1)
    return output._replace(alpha=alpha, alpha_entropy=entropy, logits=logits)


def divergence(before: Floats, after: Floats) -> Floats:
    """KL(softmax(before), softmax(after)) in nats: logits [N, A] twice -> [N]."""
    before, after = (_log_softmax(logits) for logits in (before, after))
    return np.asarray((np.exp(before) * (before - after)).sum(axis=1).clip(min=0))


def matched_length(logits: Floats, direction: Floats, wanted: Floats) -> Floats:
    """How far to go from logits [N, A] along directions [N, A] for divergences `wanted` [N]: lengths [N].

    Newton's method: the divergence grows with the length and is convex in it.
    """
    p = np.exp(_log_softmax(logits))
    drift = (p * direction).sum(axis=1)
    variance = (p * (direction - drift[:, None]) ** 2).sum(axis=1)
    length = np.minimum(np.sqrt(2 * wanted / np.maximum(variance, 1e-12)), _LONGEST)
    for _ in range(_NEWTON_STEPS):
        there = logits + length[:, None] * direction
        slope = (np.exp(_log_softmax(there)) * direction).sum(axis=1) - drift
        excess = divergence(logits, there) - wanted
        length = np.clip(length - excess / np.maximum(slope, 1e-12), 0.0, _LONGEST)
    return np.where(wanted > 0, length, 0.0)


@contextlib.contextmanager
def all_experts(policy: ActingPolicy) -> Iterator[None]:
    """Has every expert run in every state, also where it has no weight: then others may be given the weight."""
    if not isinstance(policy, GraphMoEPolicy):
        yield  # a policy of the user's own runs its experts as it likes
        return
    before, policy.expert_execution = policy.expert_execution, "dense"
    try:
        yield
    finally:
        policy.expert_execution = before


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
