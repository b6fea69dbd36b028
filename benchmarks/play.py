"""Observations of real play for benchmarks: 64 games, uniformly random actions or a trained policy's.

    python benchmarks/play.py --out random.pt
    python benchmarks/play.py --run RUN_DIR --out trained.pt        # the run's newest good snapshot plays
    python benchmarks/play.py --run RUN_DIR --every 8 --out long.pt env.character='"@"' env.max_episode_steps=5000

A recording is made of stretches of 32 consecutive steps of all games, as a batch of training is. `--every N` keeps one
stretch in N, so that a recording of the same size reaches deeper into the episodes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig, RunConfig
from polybeast_moe.config_files import load_config
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.trained import load_trained
from polybeast_moe.models import Observation
from polybeast_moe.runtime.rollouts import Rollout

GAMES, UNROLL, WARM_UP_ROLLOUTS = 64, 32, 8
Player = Callable[[Rollout, int], Tensor]
HOW = {"random": "--rows 2048", "trained": "--run RUN_DIR --rows 2048"}
"""How `policy_results.sh` makes recordings of these names."""


def random_player(seed: int = 0) -> Player:
    """Uniformly random actions."""
    generator = torch.Generator().manual_seed(seed)
    return lambda _rollout, _t: torch.randint(len(ACTIONS), (GAMES,), generator=generator)


def trained_player(path: Path, seed: int = 0, overrides: Sequence[str] = ()) -> tuple[Player, RunConfig]:
    """A snapshot, or the newest good one of a run, at the routing and temperature that it was taken at."""
    trained = load_trained(path, overrides)
    state = trained.policy.initial_state(GAMES)
    generator = torch.Generator().manual_seed(seed)

    def play(rollout: Rollout, t: int) -> Tensor:
        output = trained.policy.infer(
            rollout.observation(t),
            state,
            routing=trained.routing,
            temperature=trained.temperature,
            first=rollout["first"][t].bool(),
            weights_version=0,
        )
        if output.state is not None:
            state.copy_(output.state)
        return torch.multinomial(torch.softmax(output.logits, -1), 1, generator=generator).squeeze(1)

    return play, trained.config


def record(player: Player, rows: int, env: EnvConfig | None = None, every: int = 1) -> Observation:
    """Stretches of UNROLL consecutive steps, one in `every`, from some hundred steps into the games on: [rows, ...].

    Time comes first: all games' step 0, all games' step 1, ...
    """
    env = env or EnvConfig()
    layout = _C.RolloutLayout(
        unroll=UNROLL,
        games=GAMES,
        actions=len(ACTIONS),
        experts=1,
        state=0,
        crop=env.crop_size,
        store_glyphs=env.store_glyphs,
        store_inventory=env.store_inventory,
        max_episode_steps=env.max_episode_steps,
    )
    region = _C.Region(layout, 1)
    rollout, package = Rollout(region, 0), check_nle()
    kept: list[Observation] = []
    with tempfile.TemporaryDirectory() as directory:
        library = _C.LibraryFile(str(package.library))
        group = _C.Group(library, game_settings(env, package), Path(directory), layout, run_seed=0, first_game=0)
        for stretch in range(WARM_UP_ROLLOUTS + every * -(-rows // (GAMES * UNROLL))):
            keep = stretch >= WARM_UP_ROLLOUTS and (stretch - WARM_UP_ROLLOUTS) % every == 0
            group.open(region, 0)
            for t in range(UNROLL):
                rollout["action"][t] = player(rollout, t)
                if keep:
                    kept.append(Observation(*(None if x is None else x.clone() for x in rollout.observation(t))))
                group.step(region, 0, t)
        del group
    fields = zip(*kept, strict=True)
    return Observation(*(None if field[0] is None else torch.cat(field)[:rows] for field in fields))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what is played."""
    parser.add_argument("--run", type=Path, help="a run whose newest snapshot plays, beside random play")
    parser.add_argument("--observations", type=Path, nargs="*", default=[], help="recordings of play.py instead")


def observations(arguments: argparse.Namespace, rows: int) -> dict[str, Observation]:
    """Recorded play by name."""
    if arguments.observations:
        loaded = {path.stem: torch.load(path, weights_only=True) for path in arguments.observations}
        return {name: Observation(**{k: v[:rows] for k, v in fields.items()}) for name, fields in loaded.items()}
    play = {"random": record(random_player(), rows)}
    if arguments.run:
        player, config = trained_player(arguments.run)
        play["trained"] = record(player, rows, config.env)
    return play


def commands(arguments: argparse.Namespace, script: str) -> list[str]:
    """What was run, for the page of results: how its recordings are made, then the script itself."""
    given = [str(path) for path in arguments.observations]
    made = [f"python benchmarks/play.py {HOW.get(Path(path).stem, '')} --out {path}" for path in given]
    return [*made, shlex.join(["python", f"benchmarks/{script}", *sys.argv[1:]])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings other than the run's own")
    parser.add_argument("--run", type=Path, help="a run whose newest snapshot plays; without it, random actions")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--every", type=int, default=1, help="keep one stretch of 32 steps in so many")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if arguments.run:
            player, config = trained_player(arguments.run, overrides=arguments.overrides)
        else:
            player, config = random_player(), load_config("quickstart", arguments.overrides)
    except UserError as error:
        parser.error(str(error))
    recorded = record(player, arguments.rows, config.env, arguments.every)
    torch.save({name: value for name, value in recorded._asdict().items() if value is not None}, arguments.out)


if __name__ == "__main__":
    main()
