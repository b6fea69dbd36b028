"""The whole configuration, and what must agree between its sections."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from polybeast_moe.config.base import Section, misfit
from polybeast_moe.config.distributed import DistributedConfig
from polybeast_moe.config.env import EnvConfig
from polybeast_moe.config.guards import Guard
from polybeast_moe.config.learner import LearnerConfig
from polybeast_moe.config.outputs import Bound, EvaluationConfig, MonitoringConfig, SnapshotConfig, TargetFigure
from polybeast_moe.config.phases import EntropyTarget, PhaseConfig
from polybeast_moe.config.policy import GraphConfig, PolicyConfig
from polybeast_moe.config.runtime import RuntimeConfig
from polybeast_moe.config.schedules import ends
from polybeast_moe.errors import nearest


class RunConfig(Section):
    """A whole run, as one YAML file holds it."""

    seed: int = Field(1, ge=0, lt=2**63)
    run_dir: str | None = Field(None, description="None: runs/<configuration's name>-<date and time>")
    env: EnvConfig = EnvConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    graph: GraphConfig = GraphConfig()
    policy: PolicyConfig = PolicyConfig()
    learner: LearnerConfig = LearnerConfig()
    distributed: DistributedConfig = DistributedConfig()
    phases: Annotated[tuple[PhaseConfig, ...], Field(min_length=1)]
    guards: dict[str, Guard] = Field(default_factory=dict)
    targets: dict[str, dict[TargetFigure, Bound]] = Field(default_factory=dict)
    snapshots: SnapshotConfig = SnapshotConfig()
    monitoring: MonitoringConfig = MonitoringConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _phases_and_targets_agree(self) -> RunConfig:
        names = [phase.name for phase in self.phases]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise misfit(("phases", index, "name"), f"phase names must differ: {name} is taken")
        for name in self.targets:
            if name not in names:
                raise misfit(("targets", name), f"there is no such phase{nearest(name, names)}")
        return self

    @model_validator(mode="after")
    def _phases_follow_each_other(self) -> RunConfig:
        for key in ("episodes", "frames"):
            highest = 0
            for index, phase in enumerate(self.phases):
                end = getattr(phase.until, key)
                if end is not None and end <= highest:
                    what = f"counts from the start of the run: {end} must be above the earlier phase's {highest}"
                    raise misfit(("phases", index, "until", key), what)
                highest = end or highest
        return self

    @model_validator(mode="after")
    def _entropy_targets_can_be_reached(self) -> RunConfig:
        # Of the experts that are configured, also where `single_expert` takes their place for a comparison: the phases
        # stay as they are, and with one expert nothing is steered.
        highest = math.log(len(self.policy.experts))
        for index, phase in enumerate(self.phases):
            if isinstance(phase.temperature, EntropyTarget):
                low, high = ends(phase.temperature.target_alpha_entropy)
                if low < 0 or high > highest:
                    at = ("phases", index, "temperature", "target_alpha_entropy")
                    raise misfit(at, f"must lie between 0 and ln(number of experts) = {highest:.3f} nats")
        return self

    @model_validator(mode="after")
    def _guards_move_settings(self) -> RunConfig:
        settings = list(self.phases[0].schedules())
        for name, guard in self.guards.items():
            if guard.setting not in settings:
                what = f"{guard.setting!r} is no setting of a phase{nearest(guard.setting, settings)}"
                raise misfit(("guards", name, "setting"), what)
            steered = any(isinstance(phase.temperature, EntropyTarget) for phase in self.phases)
            moves_entropy = guard.setting == "temperature" or (
                guard.setting == "losses.alpha_entropy" and guard.add is not None
            )
            if moves_entropy and steered:
                what = f"a guard of {guard.setting} and a target_alpha_entropy fight each other: keep one"
                raise misfit(("guards", name, "setting"), what)
            lacks = self._lacks(guard.setting) if guard.add is not None else None
            if lacks:
                raise misfit(("guards", name, "setting"), f"{guard.setting} {lacks}")
        return self

    @model_validator(mode="after")
    def _losses_have_what_they_need(self) -> RunConfig:
        for index, phase in enumerate(self.phases):
            for loss in ("graph_smoothing", "graph_alignment", "extra"):
                lacks = self._lacks(f"losses.{loss}")
                if lacks and ends(getattr(phase.losses, loss)) != (0.0, 0.0):
                    raise misfit(("phases", index, "losses", loss), lacks)
        return self

    def _lacks(self, setting: str) -> str | None:
        """What the weight of a loss needs and this configuration lacks; None where that is nothing."""
        if setting == "losses.extra" and self.learner.extra_loss is None:
            return "needs learner.extra_loss: the import path of a function"
        if setting == "losses.graph_smoothing" and not self.graph.enabled:
            return "needs graph.enabled: true"
        if setting == "losses.graph_alignment":
            if not (self.graph.enabled and self.policy.router.operator_prior):
                return "needs graph.enabled: true and policy.router.operator_prior: true"
            if self.policy.single_expert != "none":
                return "needs policy.single_expert: none, one expert has no router"
        return None

    @model_validator(mode="after")
    def _what_is_encoded_is_stored(self) -> RunConfig:
        readers = ("full_map", "store_glyphs"), ("landmarks", "store_glyphs"), ("inventory", "store_inventory")
        for reads, stores in readers:
            if getattr(self.policy, reads) and not getattr(self.env, stores):
                raise misfit(("policy", reads), f"needs env.{stores}: true")
        if self.policy.router.kind == "scenes" and not self.env.store_glyphs:
            raise misfit(("policy", "router", "kind"), "scenes needs env.store_glyphs: true")
        return self

    @model_validator(mode="after")
    def _a_target_knows_what_is_routed(self) -> RunConfig:
        for index, phase in enumerate(self.phases):
            if isinstance(phase.temperature, EntropyTarget) and self.policy.router.keep is not None:
                what = "is found from all scores: it needs policy.router.keep: null"
                raise misfit(("phases", index, "temperature", "target_alpha_entropy"), what)
        return self

    @model_validator(mode="after")
    def _batch_is_made_of_whole_rounds(self) -> RunConfig:
        slots, groups = self.learner.slots_per_batch, self.runtime.groups
        if self.runtime.mode == "inline" and slots % groups:
            what = f"{slots} must be a multiple of runtime.groups ({groups}) in inline mode"
            raise misfit(("learner", "slots_per_batch"), what)
        return self

    @model_validator(mode="after")
    def _recorded_inference_has_fixed_shapes(self) -> RunConfig:
        if self.runtime.policy_graphs == "none":
            return self
        obstacles = {
            "runtime.mode: asynchronous": self.runtime.mode == "inline",
            "policy.expert_execution: auto or dense": self.policy.expert_execution == "sparse",
            "policy.router.kind: learned or frozen": self.policy.router.kind == "scenes",
            "graph.implementation: batched": self.graph.enabled and self.graph.implementation == "pyg",
        }
        for needed, lacks in obstacles.items():
            if lacks:
                raise misfit(("runtime", "policy_graphs"), f"{self.runtime.policy_graphs} needs {needed}")
        return self

    @property
    def reads_graph(self) -> bool:
        """Whether the policy reads the knowledge graph: in a stream of its own, or for its action mask alone."""
        return self.graph.enabled or self.policy.action_mask

    def stores_reward_terms(self) -> bool:
        """Whether rollouts hold the engine's reward terms: a phase weighs one, or a guard may add to one's weight."""
        guarded = {guard.setting for guard in self.guards.values() if guard.add is not None} - {"reward.task"}
        return any(phase.reward.uses_terms() for phase in self.phases) or any(
            setting.startswith("reward.") for setting in guarded
        )

    def to_plain(self) -> dict[str, Any]:
        """Returns nested dictionaries and lists, as YAML holds them."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
