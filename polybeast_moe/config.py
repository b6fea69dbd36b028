"""The configuration of a run: each component's settings as a validated, frozen model.

`RunConfig` is the whole file. Validation happens here, at the edge; everything inside trusts what it gets. Reading
files and command-line overrides is `polybeast_moe.config_files`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

SEMANTIC_EXPERTS = ("survival", "combat", "exploration", "general")


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class EnvConfig(Section):
    """Which NetHack is played. Options are NLE's own (`nle.env.base.NLE`, `nle.env.tasks`)."""

    task: Literal["NetHackScore-v0"] = "NetHackScore-v0"
    character: str = Field("mon-hum-neu-mal", pattern=r"^(@|[a-z]{3}(-[a-z]{3})*)$")
    max_episode_steps: PositiveInt = 5000
    clock: int | Literal["real"] = 1_600_000_000
    penalty_step: float = -0.01
    penalty_time: float = 0.0
    crop_size: int = Field(9, ge=3, le=21, description="side of the egocentric glyph crop, odd, in map squares")
    store_glyphs: bool = Field(False, description="keep the whole 21 x 79 glyph map in rollouts beside the crop")

    @field_validator("crop_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the hero stands in the middle")
        return value


class RuntimeConfig(Section):
    """Who steps the games and how many: `groups` x `games_per_group` games, rollouts of `unroll` steps."""

    mode: Literal["inline"] = "inline"
    groups: PositiveInt = 2
    games_per_group: PositiveInt = 32
    unroll: PositiveInt = 32
    threads: PositiveInt | None = Field(None, description="torch threads; None: every core this process may use")


class GraphConfig(Section):
    """The graph stream of the policy: which knowledge graph, and the size of its attention layers."""

    enabled: bool = True
    file: str = "graphs/nethack.yaml"
    hidden: PositiveInt = 64
    heads: PositiveInt = 4
    implementation: Literal["batched", "pyg"] = "batched"

    @model_validator(mode="after")
    def _heads_divide(self) -> GraphConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class RouterConfig(Section):
    """Scores are `score_bound * tanh(s / score_bound)` before the temperature divides them."""

    hidden: PositiveInt = 64
    score_bound: PositiveFloat = 1.0
    operator_prior: bool = Field(True, description="add the graph's operator scores, summed per expert, to the scores")


class PolicyConfig(Section):
    """The policy network. `class` is an import path; a class of the user's own gets (config, graph)."""

    class_: str = Field("polybeast_moe.models.policy.GraphMoEPolicy", alias="class")
    glyph_embedding: PositiveInt = 16
    conv_channels: PositiveInt = 32
    hidden: PositiveInt = 256
    message: bool = Field(True, description="encode the message line as a bag of characters")
    lstm: int = Field(0, ge=0, description="units of the recurrent core; 0: none")
    experts: tuple[str, ...] = Field(SEMANTIC_EXPERTS, min_length=1, max_length=64)
    expert_hidden: PositiveInt = 128
    expert_intent: bool = Field(True, description="experts read the graph's intent vector beside the visual stream")
    router: RouterConfig = RouterConfig()
    mixture_backend: Literal["auto", "torch", "numba", "triton"] = "auto"

    @field_validator("experts")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expert names must differ")
        return value


class OptimizerConfig(Section):
    """Adam(W) (Kingma & Ba 2015) or RMSProp as IMPALA used it (Espeholt et al. 2018)."""

    name: Literal["adam", "adamw", "rmsprop"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    alpha: float = Field(0.99, gt=0, lt=1, description="RMSProp's smoothing")
    eps: PositiveFloat = 1e-6
    weight_decay: float = Field(0.0, ge=0)


class RewardConfig(Section):
    """What the learner makes of the task's reward: `tanh` gives tanh(reward / scale), `clip` clamps to [-1, 1]."""

    transform: Literal["none", "clip", "tanh"] = "tanh"
    scale: PositiveFloat = 10.0


class LearnerConfig(Section):
    """V-trace actor-critic (IMPALA, Espeholt et al. 2018)."""

    slots_per_batch: PositiveInt = Field(2, description="rollouts (one group, `unroll` steps each) in one update")
    discount: float = Field(0.995, gt=0, le=1)
    clip_rho: PositiveFloat = 1.0
    clip_c: PositiveFloat = 1.0
    clip_pg_rho: PositiveFloat = 1.0
    normalise_advantages: bool = True
    max_grad_norm: PositiveFloat = 40.0
    optimizer: OptimizerConfig = OptimizerConfig()
    reward: RewardConfig = RewardConfig()


class Ramp(Section):
    """A scalar that moves from one value to another over its phase."""

    from_: float = Field(alias="from")
    to: float
    shape: Literal["linear", "cosine", "exponential"] = "linear"

    @model_validator(mode="after")
    def _exponential_needs_positive(self) -> Ramp:
        if self.shape == "exponential" and (self.from_ <= 0 or self.to <= 0):
            raise ValueError("an exponential ramp needs both ends above zero")
        return self


Schedule = float | Ramp


class EntropyTarget(Section):
    """Closed loop: the temperature is steered so that alpha entropy (nats) follows this schedule."""

    target_alpha_entropy: Schedule


class Until(Section):
    """When a phase ends: exactly one of a total of episodes, a total of frames, or a metric's threshold."""

    episodes: PositiveInt | None = None
    frames: PositiveInt | None = None
    metric: str | None = None
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Until:
        if sum(value is not None for value in (self.episodes, self.frames, self.metric)) != 1:
            raise ValueError("give exactly one of episodes, frames, metric")
        if (self.metric is not None) != (self.above is not None or self.below is not None):
            raise ValueError("a metric goes with above or below, and they go with a metric")
        if self.above is not None and self.below is not None:
            raise ValueError("give above or below, not both")
        return self


class AlphaEntropyLoss(Section):
    """A penalty on (minimize) or bonus for (maximize) the mean alpha entropy."""

    weight: Schedule
    direction: Literal["minimize", "maximize"] = "minimize"


class LossWeights(Section):
    """Weights of the losses in a phase; each may be a constant or a schedule over the phase."""

    policy: Schedule = 1.0
    baseline: Schedule = 0.5
    entropy: Schedule = 0.01
    alpha_entropy: AlphaEntropyLoss | None = None
    load_balance: Schedule = 0.0


class PhaseConfig(Section):
    """A named stretch of the run with its own routing, temperature, learning rate and loss weights."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    until: Until
    routing: Literal["softmax", "sparsemax"]
    temperature: Schedule | EntropyTarget = 1.0
    learning_rate: Schedule = 5e-4
    losses: LossWeights = LossWeights()

    @model_validator(mode="after")
    def _no_fight(self) -> PhaseConfig:
        if isinstance(self.temperature, EntropyTarget) and self.losses.alpha_entropy is not None:
            raise ValueError("a target_alpha_entropy and an alpha_entropy loss fight each other: keep one")
        values = [self.temperature] if not isinstance(self.temperature, EntropyTarget) else []
        for ends in values:
            low = min(ends.from_, ends.to) if isinstance(ends, Ramp) else ends
            if low <= 0:
                raise ValueError(f"temperature must stay above 0 (got {low:g})")
        return self


class Bound(Section):
    """A target on one figure of the report: at least, at most, or within two values."""

    at_least: float | None = None
    at_most: float | None = None
    within: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Bound:
        if sum(value is not None for value in (self.at_least, self.at_most, self.within)) != 1:
            raise ValueError("give exactly one of at_least, at_most, within")
        return self


class SnapshotConfig(Section):
    """When snapshots are written and how many are kept. Each phase's end and the run's end write one too."""

    every_seconds: PositiveFloat = 30.0
    keep_last: int = Field(3, ge=1)


class MonitoringConfig(Section):
    """Cadence of metrics rows (seconds) and which sinks get them beside the CSV files."""

    every_seconds: PositiveFloat = 5.0
    tensorboard: bool = True


class EvaluationConfig(Section):
    """What is measured beside training: episodes of a uniformly random policy under the same protocol."""

    random_episodes: int = Field(0, ge=0)


class RunConfig(Section):
    """A whole run, as one YAML file holds it."""

    seed: int = Field(1, ge=0, lt=2**63)
    run_dir: str | None = Field(None, description="None: runs/<configuration's name>-<date and time>")
    env: EnvConfig = EnvConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    graph: GraphConfig = GraphConfig()
    policy: PolicyConfig = PolicyConfig()
    learner: LearnerConfig = LearnerConfig()
    phases: Annotated[tuple[PhaseConfig, ...], Field(min_length=1)]
    targets: dict[str, dict[str, Bound]] = {}
    snapshots: SnapshotConfig = SnapshotConfig()
    monitoring: MonitoringConfig = MonitoringConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _phases_and_targets_agree(self) -> RunConfig:
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError("phase names must differ")
        for unknown in set(self.targets) - set(names):
            raise ValueError(f"targets name a phase that does not exist: {unknown!r}")
        for key in ("episodes", "frames"):
            ends = [getattr(phase.until, key) for phase in self.phases if getattr(phase.until, key) is not None]
            if ends != sorted(set(ends)):
                raise ValueError(f"until.{key} counts from the start of the run and must grow from phase to phase")
        return self

    @model_validator(mode="after")
    def _batch_is_made_of_whole_rounds(self) -> RunConfig:
        if self.learner.slots_per_batch % self.runtime.groups:
            raise ValueError(
                f"learner.slots_per_batch ({self.learner.slots_per_batch}) must be a multiple of runtime.groups "
                f"({self.runtime.groups}) in inline mode"
            )
        return self

    def to_plain(self) -> dict[str, Any]:
        """Returns nested dictionaries and lists, as YAML holds them."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
