"""Sample Factory's APPO: rollout workers, an inference worker and a learner, all processes.

Settings are its own arguments. Its release on PyPI has no NetHack example; `network: own` is its default arguments, its
own encoders for dictionaries (its default convolutions on an image of the screen around the hero, its perceptrons on
message and status line) and its recurrent core: the published example's shape, in its library's own parts.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sample_factory.algo.utils.context import global_model_factory
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.model.encoder import Encoder
from sample_factory.train import make_runner

from peers.games import COLUMNS, ROWS, Game, X, Y
from peers.job import Job, read_job
from peers.meter import Meter
from peers.network import HIDDEN, SharedNetwork, SharedTrunk, size

ENV = "nethack_score"
SHARED = ("crop", "blstats")
OWN = ("image", "message", "blstats")
TILE = (9, 6)  # pixels of a character
SIDE = 12  # characters of the image


class SharedEncoder(Encoder):
    """The shared trunk; the heads that Sample Factory puts on it are single linear layers, as the shared network's."""

    def __init__(self, cfg: Any, obs_space: Any) -> None:  # noqa: ARG002
        super().__init__(cfg)
        self.trunk = SharedTrunk()

    def forward(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        """[N, 256]."""
        return self.trunk(seen["crop"], seen["blstats"])

    def get_out_size(self) -> int:
        """Features."""
        return HIDDEN


def tiles() -> Any:
    """[256 characters, 16 colours, 3, height, width] uint8: the font as a table."""
    from PIL import Image, ImageDraw, ImageFont

    font, (height, width) = ImageFont.load_default(), TILE
    masks = np.zeros((256, height, width), dtype=np.float32)
    for code in range(32, 127):
        image = Image.new("L", (width, height))
        ImageDraw.Draw(image).text((0, -1), chr(code), fill=255, font=font)
        masks[code] = np.asarray(image, dtype=np.float32) / 255
    bits = np.arange(16)[:, None] >> np.array([0, 1, 2])  # the terminal's colours: red, green, blue, and bright
    colours = np.where(bits & 1, 255.0, 60.0)
    return (masks[:, None, None] * colours[None, :, :, None, None]).astype(np.uint8)


def image_view() -> tuple[tuple[str, ...], tuple[Any, Any]]:
    """An image of the characters around the hero."""
    table, half = tiles(), SIDE // 2
    shape = (3, SIDE * TILE[0], SIDE * TILE[1])
    chars = np.full((ROWS + SIDE, COLUMNS + SIDE), ord(" "), dtype=np.uint8)
    colours = np.zeros_like(chars)

    def draw(seen: dict[str, Any]) -> Any:
        y, x = seen["blstats"][Y], seen["blstats"][X]
        chars[half : half + ROWS, half : half + COLUMNS] = seen["chars"]
        colours[half : half + ROWS, half : half + COLUMNS] = seen["colors"]
        near = np.s_[y : y + SIDE, x : x + SIDE]
        drawn = table[chars[near], colours[near] & 15]  # [12, 12, 3, h, w]
        return drawn.transpose(2, 0, 3, 1, 4).reshape(shape)

    return ("chars", "colors", "blstats"), (spaces.Box(0, 255, shape, np.uint8), draw)


def make_game(_name: str, cfg: Any, _env_config: Any = None, _render_mode: Any = None) -> Any:
    """Called in every rollout worker."""
    job = read_job(cfg.job)
    if job.engine == "ours":
        from peers.engine_games import ManyEngineGames

        return ManyEngineGames(job, cfg.engine_games)
    if job.network == "shared":
        return Game(job, SHARED)
    return Game(job, OWN, {"image": image_view()})


def configuration(job: Job, file: str) -> Any:
    """Sample Factory's configuration of a job."""
    given: dict[str, Any] = {
        "env": ENV,
        "experiment": "run",
        "train_dir": str(job.folder),
        "device": "cpu",
        "seed": job.seed,
        "save_every_sec": 10**6,
        "save_best_every_sec": 10**6,
        "decorrelate_envs_on_one_worker": False,
    }
    if job.network == "shared":
        given |= {"use_rnn": False, "normalize_input": False}
    given |= job.settings
    words = [f"--{name}={value}" for name, value in given.items() if name != "engine_games"]
    parser, _ = parse_sf_args(words)
    parser.add_argument("--job", default=file)
    parser.add_argument("--engine_games", type=int, default=job.settings.get("engine_games", 1))
    return parse_full_cfg(parser, words)


def games(job: Job, cfg: Any) -> int:
    """How many are played at once."""
    each = cfg.engine_games if job.engine == "ours" else 1
    return int(cfg.num_workers * cfg.num_envs_per_worker * each)


def rollout_workers() -> list[int]:
    """Their processes."""
    children = multiprocessing.active_children()
    return [child.pid for child in children if child.pid and "rollout" in child.name]


def parameters(job: Job, cfg: Any) -> int:
    """Of the network, counted on one made for that."""
    from sample_factory.algo.utils.make_env import make_env_func_batched
    from sample_factory.model.actor_critic import create_actor_critic
    from sample_factory.utils.attr_dict import AttrDict

    env = make_env_func_batched(cfg, env_config=AttrDict(worker_index=0, vector_index=0, env_id=0))
    found = size(create_actor_critic(cfg, env.observation_space, env.action_space))
    if job.network == "shared":
        expected = size(SharedNetwork(int(env.action_space.n)))
        assert found == expected, f"{found} parameters, the shared network has {expected}"
    env.close()
    return found


def main() -> None:
    import sys

    job = read_job()
    if job.network == "shared":
        global_model_factory().register_encoder_factory(SharedEncoder)
    register_env(ENV, make_game)
    cfg, runner = make_runner(configuration(job, sys.argv[1]))
    meter = Meter(
        job,
        environments=games(job, cfg),
        parameters=parameters(job, cfg),
        frames=lambda: int(runner.total_env_steps_since_resume or 0),
        victims=rollout_workers,
    )
    if runner.init() != ExperimentStatus.SUCCESS:
        raise SystemExit("Sample Factory could not be initialised")
    meter.start()
    runner.run()


if __name__ == "__main__":
    main()
