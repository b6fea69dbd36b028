"""Figures of specialisation on cases where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polybeast_moe.envs.scenes import SCENES
from polybeast_moe.evaluation.play import play_episodes
from polybeast_moe.evaluation.specialisation import (
    StateCollector,
    States,
    information,
    jensen_shannon,
    joint_sums,
    measure,
    mutual_information,
    shuffles,
)
from polybeast_moe.evaluation.statistics import resampled_counts
from polybeast_moe.evaluation.trained import load_trained

EPISODES, LENGTH = 60, 80


def made(alpha_of, seed: int = 0, stay: float = 0.9) -> States:
    """Episodes whose scenes stay as they are with probability `stay`; `alpha_of(generator, scene)` [T, 4]."""
    generator = np.random.default_rng(seed)
    count = EPISODES * LENGTH
    fresh = generator.integers(4, size=count)
    moves = generator.random(count) > stay
    moves[::LENGTH] = True
    scene = fresh[np.maximum.accumulate(np.where(moves, np.arange(count), 0))]
    return States(
        episode=np.repeat(np.arange(EPISODES), LENGTH),
        step=np.tile(np.arange(LENGTH), EPISODES),
        scene=scene,
        previous_action=generator.integers(24, size=count),
        alpha=alpha_of(generator, scene),
        divergence=generator.random(count),
    )


def one_hot(generator: np.random.Generator, expert: np.ndarray) -> np.ndarray:
    return np.eye(4)[expert]


def persistent(generator: np.random.Generator, scene: np.ndarray) -> np.ndarray:
    """An expert chosen once for ten steps at a time, whatever the scene."""
    return np.eye(4)[np.repeat(generator.integers(4, size=len(scene) // 10), 10)]


COUNTS = resampled_counts(EPISODES, 400)


def test_an_expert_a_scene_has_all_the_information() -> None:
    states = made(one_hot)
    found = information(states, states.scene, 4, COUNTS)
    assert found["plug_in"] == pytest.approx(math.log(4), abs=0.01)
    assert found["value"] == pytest.approx(math.log(4), abs=0.02)
    assert found["low"] > 1.3


def test_experts_that_know_nothing_of_scenes_have_none() -> None:
    """Although both hang together over time, which makes the plug-in estimate much too high."""
    found = []
    for seed in range(20):
        states = made(persistent, seed)
        found.append(information(states, states.scene, 4, COUNTS))
    assert np.mean([one["plug_in"] for one in found]) > 0.006
    assert abs(np.mean([one["value"] for one in found])) < 0.002
    assert sum(one["low"] <= 0 <= one["high"] for one in found) >= 16


def test_a_soft_router_has_the_information_of_its_mixture() -> None:
    states = made(lambda generator, scene: 0.4 * np.eye(4)[scene] + 0.15)
    joint = (0.4 * np.eye(4) + 0.15) / 4
    wanted = sum(p * math.log(p * 16) for p in joint.ravel())
    assert information(states, states.scene, 4, COUNTS)["value"] == pytest.approx(wanted, abs=0.005)


def test_rivals_are_told_apart() -> None:
    """A router that follows the step, or the last action, and not the scene."""
    by_step = made(one_hot)
    step_alpha = np.eye(4)[by_step.step // 20]
    found = measure(States(**{**vars(by_step), "alpha": step_alpha}), SCENES)
    assert found["step_information"]["low"] > 0.9
    assert found["scene_information"]["high"] < 0.02
    action_alpha = np.eye(4)[by_step.previous_action % 4]
    found = measure(States(**{**vars(by_step), "alpha": action_alpha}), SCENES)
    assert found["previous_action_information"]["low"] > 1.3
    assert found["step_information"]["high"] < 0.02


def test_shuffled_categories_are_somebody_elses_in_their_order() -> None:
    states = made(one_hot)
    marked = states.episode * 1000 + states.step
    for other in shuffles(states, marked):
        theirs = other.reshape(EPISODES, LENGTH)
        assert (theirs // 1000 == theirs[:, :1] // 1000).all()  # one episode
        assert (theirs[:, 0] // 1000 != np.arange(EPISODES)).all()  # another one
        assert (np.diff(theirs % 1000) % LENGTH == 1).all()  # in order, round its end
        assert len(set(theirs[:, 0] // 1000)) == EPISODES  # every one once


def test_shuffles_take_episodes_of_any_lengths() -> None:
    episode = np.repeat(np.arange(4), [1, 7, 3, 20])
    states = States(episode, np.zeros(31, int), episode, episode, np.ones((31, 1)), np.zeros(31))
    for other in shuffles(states, episode):
        assert (other != episode).all()


def test_mutual_information_of_known_tables() -> None:
    independent = np.outer([0.2, 0.8], [0.5, 0.3, 0.2])
    assert mutual_information(independent) == pytest.approx(0, abs=1e-12)
    assert mutual_information(np.eye(3) * 7) == pytest.approx(math.log(3))
    assert mutual_information(np.array([[[1.0, 0.0], [1.0, 0.0]]])) == pytest.approx([0.0])


def test_joint_sums_are_sums_by_episode_and_category() -> None:
    states = made(persistent)
    joint = joint_sums(states.episode, states.scene, 4, states.alpha)
    for episode, scene in ((0, 1), (17, 3), (59, 0)):
        rows = (states.episode == episode) & (states.scene == scene)
        np.testing.assert_allclose(joint[episode, scene], states.alpha[rows].sum(axis=0))


def test_divergence_of_experts() -> None:
    same = np.random.default_rng(0).normal(size=(5, 1, 6)).repeat(3, axis=1)
    assert jensen_shannon(same) == pytest.approx(np.zeros(5), abs=1e-12)
    apart = np.where(np.eye(3, 6) > 0, 50.0, 0.0)[None]
    assert jensen_shannon(apart) == pytest.approx([math.log(3)])


def test_the_matrix_and_the_dominant_shares() -> None:
    states = made(lambda generator, scene: 0.8 * np.eye(4)[scene] + 0.05)
    found = measure(states, ("a", "b", "c", "d"))
    assert found["scene_expert_matrix"]["combat"] == pytest.approx({"a": 0.05, "b": 0.85, "c": 0.05, "d": 0.05})
    assert found["dominant_shares"]["combat"]["expert"] == "b"
    assert found["dominant_shares"]["combat"]["value"] == pytest.approx(0.85)
    assert sum(found["scene_shares"].values()) == pytest.approx(1)
    assert found["support_sizes"] == {"mean": 4.0, "shares": {"1": 0.0, "2": 0.0, "3": 0.0, "4": 1.0}}


def test_it_is_gathered_from_real_play(trained_run) -> None:
    trained = load_trained(trained_run)
    collector = StateCollector()
    played = play_episodes(
        trained.policy,
        trained.config.env,
        episodes=8,
        seed=1,
        routing=trained.routing,
        temperature=trained.temperature,
        watch=collector,
    )
    states = collector.states()
    lengths = played.column("length").astype(int)
    assert np.bincount(states.episode).tolist() == lengths.tolist()
    assert states.step.tolist() == [step for length in lengths for step in range(length)]
    np.testing.assert_allclose(joint_sums(states.episode, states.scene, 4, states.alpha).sum(axis=1), played.alpha)
    found = measure(states, trained.config.policy.expert_names)
    assert 0 <= found["jensen_shannon"]["low"] <= found["jensen_shannon"]["high"] <= math.log(4)
