"""The learner's update: V-trace targets, the losses, one optimiser step (IMPALA, Espeholt et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from polybeast_moe.config import LearnerConfig, OptimizerConfig, RunConfig
from polybeast_moe.errors import UserError
from polybeast_moe.import_paths import function_at
from polybeast_moe.learning import losses
from polybeast_moe.learning.distributed import ALONE, Backward, Ranks
from polybeast_moe.learning.objective import ActorCritic, compares_experts, objective, shared_means
from polybeast_moe.learning.phases import Settings
from polybeast_moe.learning.reward_scale import RewardScale
from polybeast_moe.learning.rollback import Rollback
from polybeast_moe.learning.temperature import matching_temperature
from polybeast_moe.learning.usage import usage
from polybeast_moe.models import Policy, PolicyOutput
from polybeast_moe.ops import VTrace, vtrace
from polybeast_moe.runtime.device import device_of
from polybeast_moe.runtime.rollouts import Batch

_ROUNDING = 1.001  # a ratio above its bound by less than this is the same policy run on another batch size


class UpdateReport(NamedTuple):
    """What one update measured: `diagnostics` under the names of `metrics.csv`, mean alpha [E] of the batch."""

    diagnostics: dict[str, float]
    mean_alpha: list[float]
    applied: bool
    """False when the loss or its gradient was not finite at some pass, which left the weights as they were."""
    rolled_back: bool = False
    """After a run of such updates: the weights are the last good ones again."""


class _Losses(NamedTuple):
    """The loss of one batch and what it was made of."""

    total: Tensor
    parts: dict[str, Tensor]
    output: PolicyOutput
    actor_critic: ActorCritic
    behaviour: Tensor
    """[T, B, A]: log-probabilities under the policy that acted."""
    boundary_kl: Tensor | None
    """What the phase that has begun with this update changes in the policy; None within a phase."""


class Learner:
    """Owns the optimiser of a policy. `version` is the policy's: it grows by one with every update applied."""

    def __init__(
        self,
        policy: Policy,
        config: LearnerConfig,
        ranks: Ranks = ALONE,
        *,
        experts: int = 1,
        graph_hidden: int = 0,
    ) -> None:
        """With several `ranks` all learners take each step together.

        `experts` is how many the policy scores, `graph_hidden` the size of its graph's states; only ranks ask.

        Raises UserError where a function of the user's own cannot be imported.
        """
        self._policy = policy
        self._forward = torch.compile(policy) if config.compile else policy
        self._config = config
        self._optimizer = make_optimizer(policy, config.optimizer)
        self._rollback = Rollback(policy, self._optimizer, config.rollback)
        self._backward = Backward(policy, ranks)
        self._ranks = ranks
        self._sizes = experts, graph_hidden
        self._reward_scale = RewardScale() if config.reward.normalise else None
        extra_loss, reward = config.extra_loss, config.reward.function
        self._extra_loss = function_at(extra_loss, "learner.extra_loss") if extra_loss else None
        self._own_reward = function_at(reward, "learner.reward.function") if reward else None
        self._before: Settings | None = None
        self.version = 0

    @classmethod
    def configured(cls, policy: Policy, config: RunConfig, ranks: Ranks) -> Learner:
        """Makes the learner of a run, the same on every rank."""
        experts, graph_hidden = len(config.policy.expert_names), config.graph.hidden
        return cls(policy, config.learner, ranks, experts=experts, graph_hidden=graph_hidden)

    def update(self, batch: Batch | None, settings: Settings, share: float = 1.0) -> UpdateReport:
        """Takes one step on the batch with the phase's settings, or as many as `passes` says.

        Args:
            batch: of this rank; None where it has none in time. It then helps the others with theirs.
            share: of this rank's frames in those of all ranks; 0 without a batch.

        Returns:
            What this rank's own batch showed at the first step. The norm of the gradient, and whether it was applied,
            are everybody's.
        """
        self._take_in_rewards(batch, settings, share)
        measured: list[_Losses] = []

        def loss() -> Tensor | None:
            if batch is None:
                self._stand_in(settings)
                return None
            measured.append(self._losses(batch, settings, share))
            return measured[-1].total

        grad_norm = self._step(loss, share, settings.learning_rate)
        stepped = [math.isfinite(grad_norm)]
        report = UpdateReport({"grad_norm": grad_norm}, [], stepped[0])
        if measured:
            assert batch is not None
            report = self._report(batch, settings, measured[0], report)
        for _ in range(self._config.passes - 1):
            stepped.append(math.isfinite(self._step(loss, share, settings.learning_rate)))
        report = report._replace(applied=all(stepped))
        self._before = settings
        rolled_back = self._rollback.watch(report.applied)
        self.version += any(stepped) or rolled_back  # whoever plays takes both over
        return report._replace(rolled_back=rolled_back)

    def _losses(self, batch: Batch, settings: Settings, share: float) -> _Losses:
        """The loss of this rank's batch; where it takes means over a batch inside, those are over all ranks."""
        config = self._config

        def over_ranks(mean: Tensor) -> Tensor:
            return self._ranks.mean(mean, share)

        output = self._evaluate(batch, settings)
        values = output.value.view(batch.steps + 1, batch.games)
        log_policy = torch.log_softmax(output.logits, dim=-1).view(batch.steps + 1, batch.games, -1)[:-1]
        log_probs = log_policy.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
        behaviour = torch.log_softmax(batch.behaviour_logits, dim=-1)
        behaviour_log_probs = behaviour.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)

        targets = self._targets(batch, settings, output, values.detach(), log_probs.detach(), behaviour_log_probs)
        advantages = targets.pg_advantages
        if config.normalise_advantages:
            advantages = losses.normalised(advantages, over_ranks)

        actor_critic = ActorCritic(log_policy, log_probs, values[:-1], targets.vs, advantages)
        parts = objective(actor_critic, output, batch.first, settings, over_ranks)
        parts["extra"] = self._extra(output, batch, settings)
        return _Losses(
            torch.stack(list(parts.values())).sum(),
            parts,
            output,
            actor_critic,
            behaviour,
            self._boundary_kl(batch, settings, log_policy),
        )

    @torch.no_grad()
    def _report(self, batch: Batch, settings: Settings, seen: _Losses, report: UpdateReport) -> UpdateReport:
        """Adds what the batch showed to the report of the step."""
        behaviour, learnt = seen.behaviour, seen.actor_critic
        live = batch.steps * batch.games  # the bootstrap row's policy is not trained on
        ratios = (learnt.log_probs - behaviour.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)).exp()
        measured = {
            "alpha_entropy": seen.output.alpha_entropy[:live].mean(),
            "policy_entropy": losses.policy_entropy(learnt.log_policy),
            "policy_lag": (self.version - batch.policy_version).float().mean(),
            "behaviour_kl": (behaviour.exp() * (behaviour - learnt.log_policy)).sum(-1).mean(),
            "rho_clip_share": (ratios > self._config.clip_rho * _ROUNDING).float().mean(),
            "explained_variance": losses.explained_variance(learnt.values, learnt.vs),
            "loss_total": seen.total,
            **{f"loss_{name}": value for name, value in seen.parts.items()},
        }
        if seen.output.graph_moments is not None:
            measured["graph_spread"] = losses.spread(seen.output.graph_moments)
        if seen.boundary_kl is not None:
            measured["boundary_kl"] = seen.boundary_kl
        diagnostics = {**_numbers(measured), **report.diagnostics}
        scores = seen.output.router_scores[:live]
        if settings.target_alpha_entropy is not None and scores.shape[1] > 1:  # one expert leaves nothing to steer
            target = settings.target_alpha_entropy
            diagnostics["target_alpha_entropy"] = target
            diagnostics["matching_temperature"] = matching_temperature(scores, target, settings.routing)
        mean_alpha = seen.output.alpha[:live].mean(0).tolist()
        diagnostics |= usage(mean_alpha, diagnostics["alpha_entropy"])
        return UpdateReport(diagnostics, mean_alpha, report.applied)

    @torch.no_grad()
    def _boundary_kl(self, batch: Batch, settings: Settings, log_policy: Tensor) -> Tensor | None:
        """Mean KL(before ‖ now) of the policies that the same weights are under the settings of two phases."""
        if self._before is None or self._before.phase == settings.phase:
            return None
        logits = self._evaluate(batch, self._before).logits
        before = torch.log_softmax(logits, dim=-1).view(batch.steps + 1, batch.games, -1)[:-1]
        return (before.exp() * (before - log_policy)).sum(-1).mean()

    def _extra(self, output: PolicyOutput, batch: Batch, settings: Settings) -> Tensor:
        """The loss of the user's own, weighted; its rows are the output's, the bootstrap's B at their end included."""
        weight = settings.losses.extra
        if self._extra_loss is None or not weight:
            return output.value.new_zeros(())
        return weight * _of_shape((), self._extra_loss(output, batch), "learner.extra_loss")

    def _rewards(self, batch: Batch, settings: Settings) -> Tensor:
        """R [T, B]: the weighted sum of rewards, or what a function of the user's own makes of it."""
        rewards = losses.training_reward(batch.reward, batch.reward_terms, settings.reward)
        if self._own_reward is None:
            return rewards
        return _of_shape(rewards.shape, self._own_reward(rewards, batch), "learner.reward.function")

    def _take_in_rewards(self, batch: Batch | None, settings: Settings, share: float) -> None:
        """Moves the scale of rewards by this batch: once, however many passes are made over it."""
        if self._reward_scale is None:
            return
        mean_square = torch.zeros((), dtype=torch.float64, device=device_of(self._policy))
        if batch is not None:
            mean_square = self._rewards(batch, settings).double().square().mean()
        self._reward_scale.take(self._ranks.mean(mean_square, share).item())

    def _stand_in(self, settings: Settings) -> None:
        """A rank without a batch takes part in the means that `_losses` takes over ranks, with nothing of its own."""
        device = device_of(self._policy)
        if self._config.normalise_advantages:
            self._ranks.mean(torch.zeros(2, dtype=torch.float64, device=device), 0.0)
        for shape in shared_means(settings.losses, *self._sizes):
            self._ranks.mean(torch.zeros(shape, device=device), 0.0)

    def optimizer_state(self) -> dict[str, Any]:
        """Returns the optimiser's state and the learner's own, loadable without unpickling code."""
        state = self._optimizer.state_dict()
        if self._reward_scale is not None:
            state["reward_scale"] = self._reward_scale.state()
        if self._before is not None:
            state["settings"] = asdict(self._before)
        return state

    def restore(self, optimizer_state: dict[str, Any], version: int) -> None:
        """Goes on from a snapshot's optimiser state and policy version, with the options of the configuration."""
        if self._reward_scale is not None and "reward_scale" in optimizer_state:
            self._reward_scale.restore(optimizer_state["reward_scale"])
        if "settings" in optimizer_state:
            self._before = Settings.from_dict(optimizer_state["settings"])
        own, saved = self._optimizer.state_dict()["param_groups"], optimizer_state["param_groups"]
        groups = [  # load_state_dict alone would bring the options back, too
            {**options, "params": group["params"], "lr": group["lr"]} for options, group in zip(own, saved, strict=True)
        ]
        self._optimizer.load_state_dict({"state": optimizer_state["state"], "param_groups": groups})
        self._rollback = Rollback(self._policy, self._optimizer, self._config.rollback)
        self.version = version

    def _evaluate(self, batch: Batch, settings: Settings) -> PolicyOutput:
        every_expert = {"every_expert": True} if compares_experts(settings.losses) else {}
        temperature: float | Tensor = settings.temperature
        if self._config.compile:  # a number would be part of the program, and another one a reason to compile again
            temperature = torch.full((), settings.temperature, dtype=torch.float64, device=batch.reward.device)
        narrow = self._config.precision == "bfloat16"
        with torch.autocast(batch.reward.device.type, dtype=torch.bfloat16, enabled=narrow):
            output: PolicyOutput = self._forward(
                batch.observation,
                batch.initial_state,
                routing=settings.routing,
                temperature=temperature,
                first=batch.first,
                **every_expert,
            )
        wide = {name: part.float() for name, part in output._asdict().items() if part is not None}
        return PolicyOutput(**{**output._asdict(), **wide})  # losses need more digits than bfloat16 has

    @torch.no_grad()
    def _targets(
        self,
        batch: Batch,
        settings: Settings,
        output: PolicyOutput,
        values: Tensor,
        log_probs: Tensor,
        behaviour_log_probs: Tensor,
    ) -> VTrace:
        """V-trace targets; a step limit bootstraps from the final observation: r + γ V(final), discount 0."""
        config = self._config
        ended = batch.terminated | batch.truncated
        rewards = self._rewards(batch, settings)
        if self._reward_scale is not None:
            rewards = self._reward_scale.normalised(rewards)
        rewards = losses.transform_reward(rewards, config.reward)
        if len(batch.final_step):
            final = self._final_values(batch, settings, output)
            rewards = rewards.index_put((batch.final_step, batch.final_game), config.discount * final, accumulate=True)
        return vtrace(
            behaviour_log_probs,
            log_probs,
            config.discount * (~ended).float(),
            rewards,
            values[:-1],
            values[-1],
            clip_rho=config.clip_rho,
            clip_c=config.clip_c,
            clip_pg_rho=config.clip_pg_rho,
        )

    def _final_values(self, batch: Batch, settings: Settings, output: PolicyOutput) -> Tensor:
        """V of the final observations [F], with the recurrent state after the step that reached them."""
        state = batch.initial_state.new_zeros(len(batch.final_step), batch.initial_state.shape[1])
        if output.states is not None:
            state = output.states[batch.final_step, batch.final_game]
        first = torch.zeros(1, len(batch.final_step), dtype=torch.bool, device=state.device)
        final: PolicyOutput = self._policy(
            batch.final_observation, state, routing=settings.routing, temperature=settings.temperature, first=first
        )
        return final.value

    def _step(self, loss: Callable[[], Tensor | None], share: float, learning_rate: float) -> float:
        """Applies one gradient step and returns the gradient's norm before clipping; none is applied if not finite."""
        self._optimizer.zero_grad(set_to_none=True)
        self._backward(loss, share)
        norm = nn.utils.clip_grad_norm_(self._policy.parameters(), self._config.max_grad_norm).item()
        if math.isfinite(norm):
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        return norm


def _of_shape(shape: tuple[int, ...], given: object, key: str) -> Tensor:
    """Returns what a user's function gave. Raises UserError where it is no tensor of that shape."""
    if not isinstance(given, Tensor) or given.shape != shape:
        what = f"a tensor of shape {list(given.shape)}" if isinstance(given, Tensor) else repr(type(given).__name__)
        raise UserError(f"{key}: the function must give a tensor of shape {list(shape)}, it gave {what}")
    return given


def _numbers(tensors: dict[str, Tensor]) -> dict[str, float]:
    """0-d tensors by name, as numbers: all in one transfer."""
    return dict(zip(tensors, torch.stack([tensor.double() for tensor in tensors.values()]).tolist(), strict=True))


def make_optimizer(policy: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Returns the configured optimiser; the learning rate is the phase's, set at every step."""
    if config.name == "rmsprop":
        return torch.optim.RMSprop(
            policy.parameters(), alpha=config.alpha, eps=config.eps, weight_decay=config.weight_decay
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(
        policy.parameters(),
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=config.fused or None,  # None: torch's choice among the others
    )
