"""The random policy plays the run's protocol: whole episodes, an equal share for each game, seeds of its own."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from polybeast_moe import _C
from polybeast_moe.evaluation.random_policy import FILE_NAME, SEED_OFFSET, measure_random_policy, play_random_policy

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def play(nle_package, tmp_path):
    count = iter(range(100))
    return lambda config: play_random_policy(config, nle_package, tmp_path / f"games-{next(count)}")


def game_and_episode(seed: int, games: int, episodes: int) -> dict[tuple[int, int], tuple[int, int]]:
    return {
        _C.episode_seeds(seed, game, episode): (game, episode) for game in range(games) for episode in range(episodes)
    }


@pytest.mark.parametrize(("wanted", "quota"), [(7, [3, 2, 2]), (2, [1, 1]), (3, [1, 1, 1])])
def test_every_game_plays_its_share_from_its_first_episode_on(make_config, play, wanted: int, quota: list[int]) -> None:
    """Taking whichever episodes end first would favour short ones."""
    config = make_config(f"evaluation.random_episodes={wanted}")
    known = game_and_episode(config.seed + SEED_OFFSET, 3, 50)
    played = [known[episode["seed_core"], episode["seed_disp"]] for episode in play(config)]
    shares = Counter(game for game, _ in played)
    assert [shares[game] for game in range(len(quota))] == quota
    assert sorted(played) == [(game, episode) for game, n in enumerate(quota) for episode in range(n)]


def test_records_are_those_of_whole_episodes(make_config, play) -> None:
    config = make_config("evaluation.random_episodes=12", "env.max_episode_steps=90", "env.character=tou-hum-neu-mal")
    episodes = play(config)
    for episode in episodes:
        assert 1 <= episode["length"] <= 90
        assert (episode["how_done"] == -1) == (episode["length"] == 90)
        assert episode["score"] >= 0
        assert episode["depth"] >= 1
        assert episode["alpha_entropy"] == 0
        assert episode["return"] <= episode["score"] + 1e-6  # the reward is the score less penalties
    assert len({(episode["return"], episode["turns"]) for episode in episodes}) > 6


def test_it_is_a_function_of_the_runs_seed(make_config, play) -> None:
    config = make_config("evaluation.random_episodes=5")
    assert play(config) == play(config)
    assert play(config) != play(make_config("evaluation.random_episodes=5", "seed=2"))


def test_its_games_are_not_the_runs(make_config, play) -> None:
    config = make_config("evaluation.random_episodes=6")
    own = game_and_episode(config.seed, 64, 64)
    assert not any((episode["seed_core"], episode["seed_disp"]) in own for episode in play(config))


def test_the_network_and_the_batch_make_no_difference(make_config, play) -> None:
    config = make_config("evaluation.random_episodes=5")
    other = make_config(
        "evaluation.random_episodes=5", "policy.lstm=8", "runtime.unroll=3", "learner.slots_per_batch=4"
    )
    assert play(config) == play(other)


def test_it_is_measured_once_for_a_run(make_config, nle_package, tmp_path) -> None:
    config = make_config("evaluation.random_episodes=4")
    measure_random_policy(config, nle_package, tmp_path / "games", tmp_path, print)
    written = json.loads((tmp_path / FILE_NAME).read_text())
    assert written["protocol"]["seed"] == config.seed + SEED_OFFSET
    assert len(written["episodes"]) == 4
    before = (tmp_path / FILE_NAME).stat().st_mtime_ns
    measure_random_policy(config, nle_package, tmp_path / "games", tmp_path, print)
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*.part"))


def test_a_run_that_asks_for_none_gets_no_file(make_config, nle_package, tmp_path) -> None:
    measure_random_policy(make_config(), nle_package, tmp_path / "games", tmp_path, print)
    assert not (tmp_path / FILE_NAME).exists()


def test_an_interrupted_measurement_leaves_no_file(make_config, nle_package, tmp_path) -> None:
    """A part of the episodes would be no fair floor."""
    answers = iter([False, True])
    config = make_config("evaluation.random_episodes=12")
    measure_random_policy(config, nle_package, tmp_path / "games", tmp_path, print, lambda: next(answers))
    assert not (tmp_path / FILE_NAME).exists()
