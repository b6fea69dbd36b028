"""The columns of a run's CSV files, in order, and the TensorBoard tag of each metric: the single truth of both."""

from __future__ import annotations

from collections.abc import Sequence

from polybeast_moe.envs.episode_record import EPISODE_FIELDS

PIPELINE_PARTS = ("engine", "inference", "update")  # what wall time is spent on

_HEAD = {
    "frames": None,  # the horizontal axis of every curve
    "episodes": "progress/episodes",
    "updates": "progress/updates",
    "skipped_updates": "progress/skipped_updates",
    "wall_seconds": "progress/wall_seconds",
    "frames_per_second": "throughput/frames_per_second",
    "phase": None,
    "router_temperature": "schedule/router_temperature",
    "routing": None,
    "learning_rate": "schedule/learning_rate",
    "alpha_entropy": "router/alpha_entropy",
    "usage_entropy": "router/usage_entropy",
    "routing_information": "router/routing_information",
}
_TAIL = {
    "mean_episode_return": "episodes/mean_return",
    "mean_episode_score": "episodes/mean_score",
    "policy_lag": "policy/lag",
    "policy_entropy": "policy/entropy",
    "behaviour_kl": "policy/behaviour_kl",
    "boundary_kl": "policy/boundary_kl",
    "rho_clip_share": "policy/rho_clip_share",
    "grad_norm": "learner/grad_norm",
    "graph_spread": "policy/graph_spread",
    "smallest_share": "router/smallest_share",
    "target_alpha_entropy": "router/target_alpha_entropy",
    "matching_temperature": "router/matching_temperature",
    "explained_variance": "learner/explained_variance",
    "loss_total": "loss/total",
    "loss_policy": "loss/policy",
    "loss_baseline": "loss/baseline",
    "loss_entropy": "loss/entropy",
    "loss_alpha_entropy": "loss/alpha_entropy",
    "loss_load_balance": "loss/load_balance",
    "loss_expert_diversity": "loss/expert_diversity",
    "loss_semantic_orthogonality": "loss/semantic_orthogonality",
    "loss_graph_alignment": "loss/graph_alignment",
    "loss_temporal_consistency": "loss/temporal_consistency",
    "loss_overlap": "loss/overlap",
    "loss_graph_smoothing": "loss/graph_smoothing",
    "loss_extra": "loss/extra",
    "held_out_score": "held_out/mean_score",
    "held_out_standard_error": "held_out/standard_error",
    "held_out_frames": None,
    **{f"{part}_share": f"throughput/{part}_share" for part in PIPELINE_PARTS},
    **{f"{part}_us_per_frame": f"throughput/{part}_us_per_frame" for part in PIPELINE_PARTS},
    "memory_bytes": "machine/memory_bytes",
    "restarts": "machine/restarts",
}

EPISODE_COLUMNS = ("episode", "frames", "phase", *EPISODE_FIELDS)


def expert_column(expert: str) -> str:
    """Returns the name of the column that holds an expert's share of the mean alpha."""
    return f"expert_{expert}_share"


def metric_columns(experts: Sequence[str]) -> tuple[str, ...]:
    """Returns the columns of `metrics.csv` for these experts, in order."""
    return (*_HEAD, *(expert_column(expert) for expert in experts), *_TAIL)


def metric_tags(experts: Sequence[str]) -> dict[str, str]:
    """Returns the TensorBoard tag, ``group/name``, of every column that is a curve."""
    tags = {**_HEAD, **{expert_column(expert): f"experts/{expert}_share" for expert in experts}, **_TAIL}
    return {column: tag for column, tag in tags.items() if tag is not None}
