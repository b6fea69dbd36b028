"""The floor of every comparison: a uniformly random policy under a run's own protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import game_settings
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.runtime.rollouts import Rollout, rollout_layout

SEED_OFFSET = 0x72616E64  # its games are not those of the run

FILE_NAME = "random_policy.json"


def play_random_policy(
    config: RunConfig, package: NlePackage, directory: Path, interrupted: Callable[[], bool] = lambda: False
) -> list[dict[str, Any]] | None:
    """Plays `evaluation.random_episodes` episodes with uniformly random actions; returns their records.

    None when interrupted before the last one has ended. Every game plays the same number of episodes to their ends:
    stopping at the first N to finish would count short episodes too often.
    """
    wanted = config.evaluation.random_episodes
    games = min(wanted, config.runtime.games_per_group)
    quota = [wanted // games + (index < wanted % games) for index in range(games)]
    single = config.model_copy(
        update={"runtime": config.runtime.model_copy(update={"games_per_group": games, "unroll": 64})}
    )
    layout = rollout_layout(single, state_size=0)
    region = _C.Region(layout, 1)
    seed = config.seed + SEED_OFFSET
    group = _C.Group(
        _C.LibraryFile(str(package.library)),
        game_settings(config.env, package),
        directory,
        layout,
        run_seed=seed,
        first_game=0,
    )
    generator = torch.Generator().manual_seed(seed)
    rollout = Rollout(region, 0)
    actions = rollout["behaviour_logits"].shape[-1]
    played: list[list[dict[str, Any]]] = [[] for _ in range(games)]
    while any(len(episodes) < n for episodes, n in zip(played, quota, strict=True)):
        if interrupted():
            return None
        group.open(region, 0)
        rollout["action"].copy_(torch.randint(actions, rollout["action"].shape, generator=generator))
        for t in range(single.runtime.unroll):
            group.step(region, 0, t)
        for game, episode in zip(rollout["record_game"].tolist(), rollout.episodes(), strict=False):
            played[game].append(episode)
    return [episode for episodes, n in zip(played, quota, strict=True) for episode in episodes[:n]]


def measure_random_policy(
    config: RunConfig,
    package: NlePackage,
    directory: Path,
    run_dir: Path,
    log: Callable[[str], None],
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Plays the random policy once for a run directory and writes `random_policy.json` there, whole or not at all.

    A disk that is full costs the comparison, not the run: `log` tells of it.
    """
    try:
        _measure(config, package, directory, run_dir, log, interrupted)
    except OSError as error:
        log(f"no random policy to compare with: {error}")


def _measure(
    config: RunConfig,
    package: NlePackage,
    directory: Path,
    run_dir: Path,
    log: Callable[[str], None],
    interrupted: Callable[[], bool],
) -> None:
    wanted = config.evaluation.random_episodes
    protocol = {"env": config.env.model_dump(mode="json"), "seed": config.seed + SEED_OFFSET, "count": wanted}
    path = run_dir / FILE_NAME
    if not wanted or (path.exists() and json.loads(path.read_text())["protocol"] == protocol):
        return
    log(f"playing {wanted} episodes of the random policy")
    episodes = play_random_policy(config, package, directory, interrupted)
    if episodes is None:
        return
    aside = path.with_suffix(".json.part")
    aside.write_text(json.dumps({"protocol": protocol, "episodes": episodes}) + "\n")
    aside.replace(path)
