"""Random numbers that depend on where they are used alone."""

from __future__ import annotations

import numpy as np

from polybeast_moe import _C
from polybeast_moe.evaluation.draws import draw, episode_seeds, uniform


def test_they_are_even_and_do_not_hang_together() -> None:
    episode, step = (axis.ravel() for axis in np.mgrid[0:200, 0:200])
    drawn = uniform(5, episode, step).reshape(200, 200)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, 20, (0, 1))
    assert ((counts - 2000) ** 2 / 2000).sum() < 43.8  # chi square, 19 degrees of freedom, p = 0.001
    for other in (uniform(6, episode, step).reshape(200, 200), np.roll(drawn, 1, 0), np.roll(drawn, 1, 1), drawn.T):
        off_diagonal = ~np.eye(200, dtype=bool)
        assert abs(np.corrcoef(drawn[off_diagonal], other[off_diagonal])[0, 1]) < 0.02


def test_one_is_the_same_alone_or_among_others() -> None:
    both = uniform(1, np.array([3, 4]), np.array([7, 9]))
    assert both[1] == uniform(1, np.array([4]), np.array([9]))[0]


def test_actions_come_as_often_as_softmax_says() -> None:
    logits = np.tile(np.array([[0.0, 2.0, -1.0, 1.0, -np.inf]], dtype=np.float32), (40_000, 1))
    zeros = np.zeros(40_000, dtype=np.int64)
    actions = draw(logits, uniform(2, np.arange(40_000), zeros))
    wanted = np.exp([0.0, 2.0, -1.0, 1.0, -np.inf])
    np.testing.assert_allclose(np.bincount(actions, minlength=5) / 40_000, wanted / wanted.sum(), atol=0.01)


def test_the_ends_of_the_unit_interval_are_actions() -> None:
    logits = np.array([[-100.0, 0.0, 0.0]], dtype=np.float32)
    assert draw(logits, np.array([0.0])) in (0, 1)
    assert draw(logits, np.array([np.nextafter(1.0, 0.0)])) == 2


def test_games_of_an_evaluation_are_not_those_of_a_run_of_the_same_seed() -> None:
    runs = {_C.episode_seeds(1, game, episode) for game in range(64) for episode in range(64)}
    ours = {episode_seeds(1, episode) for episode in range(1000)}
    assert len(ours) == 1000
    assert not ours & runs
