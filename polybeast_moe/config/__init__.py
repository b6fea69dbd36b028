"""The configuration of a run: each component's settings as a validated, frozen model.

`RunConfig` is the whole file. Validation happens here, at the edge; everything inside trusts what it gets. Reading
files and command-line overrides is `polybeast_moe.config_files`.
"""

from polybeast_moe.config.base import MISFIT, Section
from polybeast_moe.config.distributed import DistributedConfig
from polybeast_moe.config.env import EnvConfig
from polybeast_moe.config.guards import Guard, RollbackConfig
from polybeast_moe.config.learner import LearnerConfig, OptimizerConfig, RewardConfig
from polybeast_moe.config.outputs import TARGET_FIGURES, Bound, EvaluationConfig, MonitoringConfig, SnapshotConfig
from polybeast_moe.config.phases import EntropyTarget, PhaseConfig, Until
from polybeast_moe.config.policy import SEMANTIC_EXPERTS, GraphConfig, PolicyConfig, RouterConfig
from polybeast_moe.config.run import RunConfig
from polybeast_moe.config.runtime import RuntimeConfig
from polybeast_moe.config.schedules import Piecewise, Ramp, Schedule, moves
from polybeast_moe.config.weights import AlphaEntropyLoss, LossWeights, RewardWeights

__all__ = [
    "MISFIT",
    "SEMANTIC_EXPERTS",
    "TARGET_FIGURES",
    "AlphaEntropyLoss",
    "Bound",
    "DistributedConfig",
    "EntropyTarget",
    "EnvConfig",
    "EvaluationConfig",
    "GraphConfig",
    "Guard",
    "LearnerConfig",
    "LossWeights",
    "MonitoringConfig",
    "OptimizerConfig",
    "PhaseConfig",
    "Piecewise",
    "PolicyConfig",
    "Ramp",
    "RewardConfig",
    "RewardWeights",
    "RollbackConfig",
    "RouterConfig",
    "RunConfig",
    "RuntimeConfig",
    "Schedule",
    "Section",
    "SnapshotConfig",
    "Until",
    "moves",
]
