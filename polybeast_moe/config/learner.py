"""The learner: V-trace, optimiser, what becomes of the reward."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from polybeast_moe.config.base import Section
from polybeast_moe.config.guards import RollbackConfig

Fraction = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """Adam(W) (Kingma & Ba 2015) or RMSProp as IMPALA used it (Espeholt et al. 2018)."""

    name: Literal["adam", "adamw", "rmsprop"] = "adam"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    alpha: float = Field(0.99, gt=0, lt=1, description="RMSProp's smoothing")
    eps: PositiveFloat = 1e-6
    weight_decay: float = Field(0.0, ge=0)
    fused: bool = Field(True, description="Adam's step as one kernel for all weights")


class RewardConfig(Section):
    """What the learner makes of a step's weighted sum R.

    tanh(R / scale), R / scale clamped to [-1, 1], the symmetric logarithm sign(R) ln(1 + |R| / scale), or R.
    """

    transform: Literal["none", "clip", "tanh", "symlog"] = "tanh"
    scale: PositiveFloat = 10.0
    normalise: bool = Field(False, description="divide R by its running root mean square before scale and transform")
    function: str | None = Field(None, description="import path of (R [T, B], batch) -> [T, B], which makes R another")


class LearnerConfig(Section):
    """V-trace actor-critic (IMPALA, Espeholt et al. 2018)."""

    slots_per_batch: PositiveInt = Field(2, description="rollouts (one group, `unroll` steps each) in one update")
    discount: float = Field(0.995, gt=0, le=1)
    clip_rho: PositiveFloat = 1.0
    clip_c: PositiveFloat = 1.0
    clip_pg_rho: PositiveFloat = 1.0
    normalise_advantages: bool = True
    max_grad_norm: PositiveFloat = 40.0
    passes: PositiveInt = Field(1, description="gradient steps on each batch")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the policy's forward and backward")
    compile: bool = Field(False, description="the policy's forward and backward by torch.compile")
    optimizer: OptimizerConfig = OptimizerConfig()
    reward: RewardConfig = RewardConfig()
    extra_loss: str | None = Field(None, description="import path of (output, batch) -> 0-d; phases weigh losses.extra")
    rollback: RollbackConfig = RollbackConfig()
