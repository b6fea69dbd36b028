"""Observations of real play for benchmarks: 64 games, uniformly random actions or a trained policy's.

python benchmarks/play.py --out random.pt
python benchmarks/play.py --run RUN_DIR --out trained.pt        # the run's newest snapshot plays
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig, RunConfig
from polybeast_moe.config_files import load_config, resolve_data_file
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.graph import load_graph
from polybeast_moe.models import Observation, build_policy
from polybeast_moe.runtime.rollouts import Rollout
from polybeast_moe.snapshots import contents

GAMES, UNROLL, WARM_UP_ROLLOUTS = 64, 32, 8
Player = Callable[[Rollout, int], Tensor]


def random_player(seed: int = 0) -> Player:
    """Uniformly random actions."""
    generator = torch.Generator().manual_seed(seed)
    return lambda _rollout, _t: torch.randint(len(ACTIONS), (GAMES,), generator=generator)


def trained_player(run_dir: Path, seed: int = 0) -> tuple[Player, RunConfig]:
    """The newest snapshot of a run, at its last phase's routing and the temperature it had reached."""
    config = load_config(run_dir / "config.yaml")
    snapshot = contents.load(max((run_dir / "snapshots").glob("step-*")))
    graph = load_graph(resolve_data_file(config.graph.file, run_dir)) if config.graph.enabled else None
    policy = build_policy(config, graph, num_actions=len(ACTIONS))
    policy.load_state_dict(snapshot.weights)
    temperature = float((run_dir / "metrics.csv").read_text().splitlines()[-1].split(",")[6])
    routing = config.phases[-1].routing
    generator = torch.Generator().manual_seed(seed)

    def play(rollout: Rollout, t: int) -> Tensor:
        output = policy.infer(
            rollout.observation(t),
            policy.initial_state(GAMES),
            routing=routing,
            temperature=temperature,
            first=rollout["first"][t].bool(),
            weights_version=0,
        )
        return torch.multinomial(torch.softmax(output.logits, -1), 1, generator=generator).squeeze(1)

    return play, config


def record(player: Player, rows: int, env: EnvConfig | None = None) -> Observation:
    """Consecutive steps of play, some hundred steps into the games, time first: [rows, ...]."""
    env = env or EnvConfig()
    layout = _C.RolloutLayout(
        unroll=UNROLL,
        games=GAMES,
        actions=len(ACTIONS),
        experts=1,
        state=0,
        crop=env.crop_size,
        store_glyphs=False,
        max_episode_steps=env.max_episode_steps,
    )
    region = _C.Region(layout, 1)
    rollout, package = Rollout(region, 0), check_nle()
    recorded: list[Observation] = []
    with tempfile.TemporaryDirectory() as directory:
        library = _C.LibraryFile(str(package.library))
        group = _C.Group(library, game_settings(env, package), Path(directory), layout, run_seed=0, first_game=0)
        for _ in range(WARM_UP_ROLLOUTS + -(-rows // (GAMES * UNROLL))):
            group.open(region, 0)
            for t in range(UNROLL):
                rollout["action"][t] = player(rollout, t)
                recorded.append(Observation(*(None if x is None else x.clone() for x in rollout.observation(t))))
                group.step(region, 0, t)
        del group
    kept = recorded[WARM_UP_ROLLOUTS * UNROLL :]
    fields = zip(*kept, strict=True)
    return Observation(*(None if field[0] is None else torch.cat(field)[:rows] for field in fields))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what is played."""
    parser.add_argument("--run", type=Path, help="a run whose newest snapshot plays, beside random play")
    parser.add_argument("--observations", type=Path, nargs="*", default=[], help="recordings of play.py instead")


def observations(arguments: argparse.Namespace, rows: int) -> dict[str, Observation]:
    """Recorded play by name."""
    if arguments.observations:
        loaded = {path.stem: torch.load(path) for path in arguments.observations}
        return {name: Observation(**{k: v[:rows] for k, v in fields.items()}) for name, fields in loaded.items()}
    play = {"random play": record(random_player(), rows)}
    if arguments.run:
        player, config = trained_player(arguments.run)
        play["trained play"] = record(player, rows, config.env)
    return play


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run whose newest snapshot plays; without it, random actions")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    player, config = trained_player(arguments.run) if arguments.run else (random_player(), None)
    recorded = record(player, arguments.rows, config.env if config else None)
    torch.save({name: value for name, value in recorded._asdict().items() if value is not None}, arguments.out)


if __name__ == "__main__":
    main()
