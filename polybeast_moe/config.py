"""The configuration of a run: each component's settings as a validated, frozen model.

`RunConfig` is the whole file. Validation happens here, at the edge; everything inside trusts what it gets. Reading
files and command-line overrides is `polybeast_moe.config_files`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from polybeast_moe.errors import nearest

SEMANTIC_EXPERTS = ("survival", "combat", "exploration", "general")


CHARACTER_ROLES = ["arc", "bar", "cav", "hea", "kni", "mon", "pri", "rog", "ran", "sam", "tou", "val", "wiz"]
CHARACTER_WORDS = {
    "race": ["hum", "elf", "dwa", "gno", "orc"],
    "alignment": ["law", "neu", "cha"],
    "gender": ["mal", "fem"],
}
"""NetHack 3.6's abbreviations (role.c), as NLE's `character` takes them: mon-hum-neu-mal."""

MISFIT = "misfit"


def _misfit(at: tuple[str | int, ...], what: str) -> PydanticCustomError:
    """Returns the error for values that are each valid but do not go together; `at` is the key to blame."""
    return PydanticCustomError(MISFIT, "{what}", {"at": at, "what": what})


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class EnvConfig(Section):
    """Which NetHack is played. Options are NLE's own (`nle.env.base.NLE`, `nle.env.tasks`)."""

    task: Literal["NetHackScore-v0"] = "NetHackScore-v0"
    character: str = "mon-hum-neu-mal"
    max_episode_steps: PositiveInt = 5000
    clock: int | Literal["real"] = 1_600_000_000
    penalty_step: float = -0.01
    penalty_time: float = 0.0
    crop_size: int = Field(9, ge=3, le=21, description="side of the egocentric glyph crop, odd, in map squares")
    store_glyphs: bool = Field(False, description="keep the whole 21 x 79 glyph map in rollouts beside the crop")
    store_inventory: bool = Field(False, description="keep the inventory's glyphs, letters and classes in rollouts")

    @field_validator("character")
    @classmethod
    def _known_character(cls, value: str) -> str:
        role, *rest = value.split("-")
        kinds = [{kind for kind, words in CHARACTER_WORDS.items() if word in words} for word in rest]
        known = value == "@" or role in CHARACTER_ROLES
        if not known or not all(kinds) or len(set().union(*kinds)) != len(rest):
            raise ValueError(
                f"{value!r} is no character: @ (random), or a role ({' '.join(CHARACTER_ROLES)}) and, after hyphens, "
                f"at most one each of {', '.join(' '.join(words) for words in CHARACTER_WORDS.values())}"
            )
        return value

    @field_validator("crop_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the hero stands in the middle")
        return value


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
    groups_per_batch: PositiveInt | None = Field(None, description="most groups in one inference; None: all that wait")


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
    full_map: bool = Field(False, description="encode the whole map beside the crop; needs env.store_glyphs")
    inventory: bool = Field(False, description="encode the inventory; needs env.store_inventory")
    lstm: int = Field(0, ge=0, description="units of the recurrent core; 0: none")
    experts: tuple[str, ...] = Field(SEMANTIC_EXPERTS, min_length=1, max_length=64)
    expert_hidden: PositiveInt = 128
    expert_intent: bool = Field(True, description="experts read the graph's intent vector beside the visual stream")
    expert_execution: Literal["auto", "dense", "sparse"] = Field(
        "auto", description="sparse: an expert runs only for rows that weigh it; auto: where that is faster"
    )
    single_expert: Literal["none", "equal_parameters", "equal_operations"] = Field(
        "none", description="replace experts and router by one expert of equal size, for comparison"
    )
    single_expert_support: PositiveFloat = Field(2.0, description="experts a row that equal_operations counts")
    router: RouterConfig = RouterConfig()
    mixture_backend: Literal["auto", "torch", "numba", "triton"] = "auto"

    @field_validator("experts")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expert names must differ")
        return value

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The experts that the policy has."""
        return self.experts if self.single_expert == "none" else ("single",)


Fraction = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """Adam(W) (Kingma & Ba 2015) or RMSProp as IMPALA used it (Espeholt et al. 2018)."""

    name: Literal["adam", "adamw", "rmsprop"] = "adam"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
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


def _number_or_ramp(value: Any) -> str:
    """Chooses the form that the user meant, so that an error speaks of that form alone."""
    return "<ramp>" if isinstance(value, Ramp | dict) else "<number>"


def _number_ramp_or_target(value: Any) -> str:
    if isinstance(value, EntropyTarget) or (isinstance(value, dict) and "target_alpha_entropy" in value):
        return "<target>"
    return _number_or_ramp(value)


_Number = Annotated[float, Tag("<number>")]
_Ramp = Annotated[Ramp, Tag("<ramp>")]
Schedule = Annotated[_Number | _Ramp, Discriminator(_number_or_ramp)]


class EntropyTarget(Section):
    """Closed loop: the temperature is steered so that alpha entropy (nats) follows this schedule.

    Each update multiplies the temperature by exp(gain * (target - alpha entropy)), kept within `bounds`.
    """

    target_alpha_entropy: Schedule
    gain: PositiveFloat = 0.1
    bounds: tuple[PositiveFloat, PositiveFloat] = (0.05, 10.0)

    @model_validator(mode="after")
    def _bounds_ordered(self) -> EntropyTarget:
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError("bounds: the first must be below the second")
        return self


Temperature = Annotated[
    _Number | _Ramp | Annotated[EntropyTarget, Tag("<target>")], Discriminator(_number_ramp_or_target)
]


def _ends(schedule: Schedule) -> tuple[float, float]:
    """Returns a schedule's lowest and highest value."""
    values = (schedule.from_, schedule.to) if isinstance(schedule, Ramp) else (schedule, schedule)
    return min(values), max(values)


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


def _no_less_than_zero(schedule: Schedule) -> Schedule:
    low, _ = _ends(schedule)
    if low < 0:
        raise ValueError(f"must not be below 0 (got {low:g})")
    return schedule


Weight = Annotated[Schedule, AfterValidator(_no_less_than_zero)]


class AlphaEntropyLoss(Section):
    """A penalty on (minimize) or bonus for (maximize) the mean alpha entropy."""

    weight: Weight
    direction: Literal["minimize", "maximize"] = "minimize"


class LossWeights(Section):
    """Weights of the losses in a phase; each may be a constant or a schedule over the phase."""

    policy: Weight = 1.0
    baseline: Weight = 0.5
    entropy: Weight = 0.01
    alpha_entropy: AlphaEntropyLoss | None = None
    load_balance: Weight = 0.0


class PhaseConfig(Section):
    """A named stretch of the run with its own routing, temperature, learning rate and loss weights."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    until: Until
    routing: Literal["softmax", "sparsemax"]
    temperature: Temperature = 1.0
    learning_rate: Weight = 5e-4
    losses: LossWeights = LossWeights()

    @field_validator("temperature")
    @classmethod
    def _above_zero(cls, value: Temperature) -> Temperature:
        if not isinstance(value, EntropyTarget) and _ends(value)[0] <= 0:
            raise ValueError(f"must stay above 0 (got {_ends(value)[0]:g})")
        return value

    @model_validator(mode="after")
    def _no_fight(self) -> PhaseConfig:
        if isinstance(self.temperature, EntropyTarget) and self.losses.alpha_entropy is not None:
            raise ValueError("a target_alpha_entropy and an alpha_entropy loss fight each other: keep one")
        return self

    @model_validator(mode="after")
    def _ramps_need_a_known_end(self) -> PhaseConfig:
        ramps = [key for key, schedule in self.schedules().items() if isinstance(schedule, Ramp)]
        if self.until.metric is not None and ramps:
            raise ValueError(
                f"{ramps[0]} is a ramp, but a phase that ends at a metric's threshold has no length known in advance: "
                "use a constant, or end the phase at a total of frames or episodes"
            )
        return self

    def schedules(self) -> dict[str, Schedule]:
        """Returns every scalar of the phase that may move, by dotted key."""
        temperature, losses = self.temperature, self.losses
        return {
            "temperature": temperature.target_alpha_entropy if isinstance(temperature, EntropyTarget) else temperature,
            "learning_rate": self.learning_rate,
            "losses.policy": losses.policy,
            "losses.baseline": losses.baseline,
            "losses.entropy": losses.entropy,
            "losses.alpha_entropy": losses.alpha_entropy.weight if losses.alpha_entropy is not None else 0.0,
            "losses.load_balance": losses.load_balance,
        }


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
        for index, name in enumerate(names):
            if name in names[:index]:
                raise _misfit(("phases", index, "name"), f"phase names must differ: {name} is taken")
        for name in self.targets:
            if name not in names:
                raise _misfit(("targets", name), f"there is no such phase{nearest(name, names)}")
        return self

    @model_validator(mode="after")
    def _phases_follow_each_other(self) -> RunConfig:
        for key in ("episodes", "frames"):
            highest = 0
            for index, phase in enumerate(self.phases):
                end = getattr(phase.until, key)
                if end is not None and end <= highest:
                    what = f"counts from the start of the run: {end} must be above the earlier phase's {highest}"
                    raise _misfit(("phases", index, "until", key), what)
                highest = end or highest
        return self

    @model_validator(mode="after")
    def _entropy_targets_can_be_reached(self) -> RunConfig:
        highest = math.log(len(self.policy.experts))
        for index, phase in enumerate(self.phases):
            if isinstance(phase.temperature, EntropyTarget):
                low, high = _ends(phase.temperature.target_alpha_entropy)
                if low < 0 or high > highest:
                    at = ("phases", index, "temperature", "target_alpha_entropy")
                    raise _misfit(at, f"must lie between 0 and ln(number of experts) = {highest:.3f} nats")
        return self

    @model_validator(mode="after")
    def _what_is_encoded_is_stored(self) -> RunConfig:
        for reads, stores in (("full_map", "store_glyphs"), ("inventory", "store_inventory")):
            if getattr(self.policy, reads) and not getattr(self.env, stores):
                raise _misfit(("policy", reads), f"needs env.{stores}: true")
        return self

    @model_validator(mode="after")
    def _batch_is_made_of_whole_rounds(self) -> RunConfig:
        slots, groups = self.learner.slots_per_batch, self.runtime.groups
        if self.runtime.mode == "inline" and slots % groups:
            what = f"{slots} must be a multiple of runtime.groups ({groups}) in inline mode"
            raise _misfit(("learner", "slots_per_batch"), what)
        return self

    def to_plain(self) -> dict[str, Any]:
        """Returns nested dictionaries and lists, as YAML holds them."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
