"""The floor of every comparison: a uniformly random policy under a run's own protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from polybeast_moe.config import RunConfig
from polybeast_moe.envs.episode_record import EpisodeRecord
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.play import play_episodes
from polybeast_moe.evaluation.report_data import read_object
from polybeast_moe.files import replace_file

SEED_OFFSET = 0x72616E64  # its games are not those of the run

FILE_NAME = "random_policy.json"


def play_random_policy(
    config: RunConfig, interrupted: Callable[[], bool] = lambda: False
) -> list[EpisodeRecord] | None:
    """Plays `evaluation.random_episodes` episodes with uniformly random actions; returns their records.

    None when interrupted before the last one has ended.
    """
    wanted, seed = config.evaluation.random_episodes, config.seed + SEED_OFFSET
    played = play_episodes(None, config.env, episodes=wanted, seed=seed, interrupted=interrupted)
    return played.records if played is not None else None


def measure_random_policy(
    config: RunConfig, run_dir: Path, log: Callable[[str], None], interrupted: Callable[[], bool] = lambda: False
) -> None:
    """Plays the random policy once for a run directory and writes `random_policy.json` there, whole or not at all.

    A disk that is full costs the comparison, not the run: `log` tells of it.
    """
    try:
        _measure(config, run_dir, log, interrupted)
    except (OSError, UserError) as error:
        log(f"no random policy to compare with: {error}")


def _measure(config: RunConfig, run_dir: Path, log: Callable[[str], None], interrupted: Callable[[], bool]) -> None:
    wanted = config.evaluation.random_episodes
    protocol = {"env": config.env.model_dump(mode="json"), "seed": config.seed + SEED_OFFSET, "count": wanted}
    path = run_dir / FILE_NAME
    if not wanted or (read_object(path) or {}).get("protocol") == protocol:
        return
    log(f"playing {wanted} episodes of the random policy")
    episodes = play_random_policy(config, interrupted)
    if episodes is None:
        return
    replace_file(path, (json.dumps({"protocol": protocol, "episodes": episodes}) + "\n").encode())
