"""Plays stock Gymnasium NLE with a snapshot's agent, for test_agent.py. Prints each episode's actions as JSON.

Usage: agent_in_nle.py SNAPSHOT SEED EPISODES
"""

import json
import sys
import warnings

import gymnasium
import nle  # noqa: F401 - registers its environments

import polybeast_moe
from polybeast_moe.evaluation.draws import episode_seeds


def main(snapshot: str, seed: int, episodes: int) -> None:
    warnings.simplefilter("ignore")
    agent = polybeast_moe.load_policy(snapshot)
    env_config = agent.trained.config.env
    env = gymnasium.make(
        "NetHackScore-v0", character=env_config.character, max_episode_steps=env_config.max_episode_steps
    )
    played = []
    for episode in range(episodes):
        core, disp = episode_seeds(seed, episode)
        env.unwrapped.seed(core, disp, reseed=False)
        observation, _ = env.reset()
        state, actions, ended = agent.initial_state(seed, episode), [], False
        while not ended:
            action, state = agent.act(observation, state)
            observation, _, terminated, truncated, _ = env.step(action)
            actions.append(action)
            ended = terminated or truncated
        played.append(actions)
    print(json.dumps(played))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
