"""Makes the sinks that a configuration asks for."""

from __future__ import annotations

from pathlib import Path

from polybeast_moe.config import RunConfig
from polybeast_moe.monitoring.sinks import CsvSink, Sink


def make_sinks(config: RunConfig, run_dir: Path) -> list[Sink]:
    """Returns the sinks of a run directory: CSV files, TensorBoard's events unless that is off, W&B if asked for."""
    sinks: list[Sink] = [CsvSink(run_dir, config.policy.expert_names)]
    if config.monitoring.tensorboard:
        from polybeast_moe.monitoring.tensorboard import TensorBoardSink  # slow to import

        sinks.append(TensorBoardSink(run_dir, config.policy.expert_names))
    if config.monitoring.wandb is not None:
        from polybeast_moe.monitoring.wandb_sink import WandbSink  # optional, and slow to import

        sinks.append(WandbSink(run_dir, config.policy.expert_names, config.monitoring.wandb, config.to_plain()))
    return sinks
