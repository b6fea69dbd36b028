"""The random policy plays the run's protocol: whole episodes, settled beforehand, in games that are not the run's."""

from __future__ import annotations

import json

from polybeast_moe import _C
from polybeast_moe.evaluation.random_policy import FILE_NAME, SEED_OFFSET, measure_random_policy, play_random_policy


def test_records_are_those_of_whole_episodes(make_config) -> None:
    config = make_config("evaluation.random_episodes=12", "env.max_episode_steps=90", "env.character=tou-hum-neu-mal")
    episodes = play_random_policy(config)
    assert len(episodes) == 12
    for episode in episodes:
        assert 1 <= episode["length"] <= 90
        assert (episode["how_done"] == -1) == (episode["length"] == 90)
        assert episode["score"] >= 0
        assert episode["depth"] >= 1
        assert "alpha_entropy" not in episode  # nothing was routed
        assert episode["return"] <= episode["score"] + 1e-6  # the reward is the score less penalties
    assert len({(episode["return"], episode["turns"]) for episode in episodes}) > 6


def test_it_is_a_function_of_the_runs_seed_and_of_nothing_else_but_the_game(make_config) -> None:
    episodes = "evaluation.random_episodes=5"
    played = play_random_policy(make_config(episodes))
    assert play_random_policy(make_config(episodes, "policy.lstm=8", "runtime.unroll=3")) == played
    assert play_random_policy(make_config(episodes, "seed=2")) != played


def test_its_games_are_not_the_runs(make_config) -> None:
    config = make_config("evaluation.random_episodes=6")
    own = {_C.episode_seeds(config.seed, game, episode) for game in range(64) for episode in range(64)}
    assert not any((episode["seed_core"], episode["seed_disp"]) in own for episode in play_random_policy(config))


def test_it_is_measured_once_for_a_run(make_config, tmp_path) -> None:
    config = make_config("evaluation.random_episodes=4")
    measure_random_policy(config, tmp_path, print)
    written = json.loads((tmp_path / FILE_NAME).read_text())
    assert written["protocol"]["seed"] == config.seed + SEED_OFFSET
    assert len(written["episodes"]) == 4
    before = (tmp_path / FILE_NAME).stat().st_mtime_ns
    measure_random_policy(config, tmp_path, print)
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns == before
    assert not list(tmp_path.glob(".*.json.*"))
    (tmp_path / FILE_NAME).write_text('{"protocol"')  # not ours, or cut off: measured again
    measure_random_policy(config, tmp_path, print)
    assert json.loads((tmp_path / FILE_NAME).read_text()) == written


def test_a_run_that_asks_for_none_gets_no_file(make_config, tmp_path) -> None:
    measure_random_policy(make_config(), tmp_path, print)
    assert not (tmp_path / FILE_NAME).exists()


def test_an_interrupted_measurement_leaves_no_file(make_config, tmp_path) -> None:
    """A part of the episodes would be no fair floor."""
    answers = iter([False, True])
    measure_random_policy(make_config("evaluation.random_episodes=12"), tmp_path, print, lambda: next(answers))
    assert not (tmp_path / FILE_NAME).exists()
