"""The same task for everybody: what a peer's network sees and is rewarded with is what NLE shows."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import imported

NAMES = ("games", "engine_games", "job", "network", "our_policy")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    yield from imported(monkeypatch, *(f"peers.{name}" for name in NAMES))


@pytest.fixture
def job(modules, tmp_path: Path):
    return modules.job.Job(tmp_path, time.time(), 1.0, steps=12)


def test_a_game_shows_crop_and_status_and_logs_its_end(modules, job) -> None:
    game = modules.games.Game(job, ("crop", "blstats", "glyphs"))
    seen, _ = game.reset(seed=1)
    y, x = int(seen["blstats"][modules.games.Y]), int(seen["blstats"][modules.games.X])
    assert seen["crop"][4, 4] == seen["glyphs"][y, x]
    assert game.observation_space.contains(seen)
    rewards, ends = [], []
    for _ in range(12):
        seen, reward, terminated, truncated, _ = game.step(0)
        rewards.append(reward)
        ends.append((terminated, truncated))
    assert ends == [(False, False)] * 11 + [(False, True)]
    assert all(abs(reward) <= 1 for reward in rewards)
    [(at, score, steps)] = modules.games.read_episodes(job.episodes, job.began)
    assert (score, steps) == (float(seen["blstats"][modules.games.SCORE]), 12)
    assert 0 < at <= time.time() - job.began + 0.001  # logged to the thousandth of a second
    game.close()


def test_the_reward_is_the_tasks_through_tanh(modules, job) -> None:
    game = modules.games.Game(job, ("blstats",), merge_ends=True)
    game.reset()
    game.env.step = lambda _: ({"blstats": np.zeros(27)}, 5.0, False, True, {})
    _, reward, terminated, truncated, _ = game.step(0)
    assert reward == math.tanh(0.5)
    assert (terminated, truncated) == (True, False)


def test_squares_outside_the_map_are_told(modules) -> None:
    glyphs = np.arange(21 * 79, dtype=np.int16).reshape(1, 21, 79)
    status = np.zeros((1, 27), dtype=np.int64)
    crop = modules.games.Crops(1)(glyphs, status)[0]  # a hero in the corner
    assert (crop[:4] == modules.games.OUTSIDE).all()
    assert (crop[:, :4] == modules.games.OUTSIDE).all()
    assert (crop[4:, 4:] == glyphs[0, :5, :5]).all()


def test_our_engine_plays_the_same_task_in_a_peers_loop(modules, job) -> None:
    games = modules.engine_games.ManyEngineGames(job, 3)
    seen, _ = games.reset()
    assert all(games.observation_space.contains(one) for one in seen)
    for _ in range(12):
        seen, rewards, terminated, truncated, _ = games.step([np.int64(0)] * 3)
    assert [bool(a or b) for a, b in zip(terminated, truncated, strict=True)] == [True] * 3
    assert [steps for _, _, steps in modules.games.read_episodes(job.episodes, job.began)] == [12] * 3
    assert len(seen) == len(rewards) == 3


def test_one_engine_game_begins_again_by_itself(modules, job) -> None:
    game = modules.engine_games.EngineGame(job, merge_ends=True)
    game.reset()
    ends = [game.step(0)[2] for _ in range(24)]
    assert ends == ([False] * 11 + [True]) * 2
    again, _ = game.reset()
    assert game.observation_space.contains(again)


def test_our_policy_is_the_shared_network(modules) -> None:
    torch.manual_seed(0)
    network = modules.network.SharedNetwork(23)
    crop, status = torch.randint(0, modules.network.GLYPHS + 1, (5, 9, 9)).short(), torch.randint(0, 99, (5, 27))
    logits, value = network(crop, status)
    assert logits.shape == (5, 23)
    assert value.shape == (5,)

    from polybeast_moe.config_files import load_config
    from polybeast_moe.models import Observation

    config = load_config("quickstart", ["policy.single_expert=equal_parameters"])
    policy = modules.our_policy.SharedPolicy(config, None, num_actions=23)
    policy.network.load_state_dict(network.state_dict())
    nothing = torch.zeros(5, 1, dtype=torch.int64)
    output = policy.infer(Observation(crop, status, nothing, nothing[:, 0]), policy.initial_state(5))
    torch.testing.assert_close(output.logits, logits)
    assert modules.network.size(policy) == modules.network.size(network)
    assert output.expert_logits.shape == (5, len(policy.expert_names), 23)
