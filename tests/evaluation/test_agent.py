"""`load_policy` in stock Gymnasium NLE does what `evaluate` does in the same games."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import polybeast_moe
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.play import Moment, play_episodes

EPISODES, SEED = 4, 5


def evaluated(agent) -> list[list[int]]:
    """The actions of each episode of an evaluation."""
    actions: dict[int, list[int]] = defaultdict(list)

    def watch(moment: Moment) -> None:
        for episode, action in zip(moment.rows.episode.tolist(), moment.action.tolist(), strict=True):
            actions[episode].append(action)

    trained = agent.trained
    play_episodes(
        trained.policy,
        trained.config.env,
        episodes=EPISODES,
        seed=SEED,
        routing=trained.routing,
        temperature=trained.temperature,
        watch=watch,
    )
    return [actions[episode] for episode in range(EPISODES)]


@pytest.mark.parametrize("run", ["trained_run", "recurrent_run"])
def test_the_same_actions_in_the_same_games_as_in_an_evaluation(run, request, pinned_clock) -> None:
    path = request.getfixturevalue(run)
    command = [sys.executable, Path(__file__).parent / "agent_in_nle.py", path, str(SEED), str(EPISODES)]
    preload = f"{os.environ.get('LD_PRELOAD', '')} {pinned_clock}"
    done = subprocess.run(
        command, env={**os.environ, "LD_PRELOAD": preload, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    played = json.loads(done.stdout)
    assert played == evaluated(polybeast_moe.load_policy(path))
    assert len({action for actions in played for action in actions}) > 10


def test_it_needs_no_state_and_draws_afresh_without_one(trained_run) -> None:
    import gymnasium
    import nle  # noqa: F401

    agent = polybeast_moe.load_policy(trained_run)
    env = gymnasium.make("NetHackScore-v0")
    observation, _ = env.reset()
    env.close()
    action, state = agent.act(observation)
    assert 0 <= action < len(ACTIONS)
    assert (state.step, state.previous_action) == (1, action)
    assert len({agent.act(observation)[0] for _ in range(60)}) > 3


def test_greedy_takes_the_likeliest(trained_run) -> None:
    from polybeast_moe.envs import NetHackVectorEnv

    env = NetHackVectorEnv("NetHackScore-v0", 1)
    raw, _ = env.reset(seed=1)
    observation = {key: value[0].copy() for key, value in raw.items()}
    env.close()
    agent = polybeast_moe.load_policy(trained_run, greedy=True)
    action, _, output = agent.look(observation)
    assert action == int(np.argmax(output.logits.numpy()))
    assert {agent.act(observation)[0] for _ in range(20)} == {action}


def test_a_missing_key_is_named(trained_run) -> None:
    with pytest.raises(UserError, match="'glyphs' is missing"):
        polybeast_moe.load_policy(trained_run).act({"blstats": np.zeros(27)})


def test_the_package_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="load_polices"):
        _ = polybeast_moe.load_polices
