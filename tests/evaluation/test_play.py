"""Whole episodes, settled beforehand; the same whatever plays beside them; nothing of the policy changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nle.nethack import NLE_BL_GOLD

from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.draws import episode_seeds
from polybeast_moe.evaluation.evaluate import evaluate_policy, figures_of
from polybeast_moe.evaluation.games import GameTable
from polybeast_moe.evaluation.play import Moment, Played, play_episodes
from polybeast_moe.evaluation.score import score_parts
from polybeast_moe.evaluation.trained import load_trained


@pytest.fixture(scope="module", params=["trained_run", "recurrent_run"])
def trained(request):
    return load_trained(request.getfixturevalue(request.param))


def test_games_are_ended_when_others_cannot_begin(make_config, tmp_path, monkeypatch) -> None:
    """Half of them are there when the folder of the other half cannot be made."""
    made: list[GameTable] = []

    def second_fails(*arguments: Any) -> GameTable:
        if made:
            assert list(tmp_path.glob("pbm-games-*"))
            raise UserError("no folder")
        made.append(GameTable(*arguments))
        return made[0]

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("polybeast_moe.evaluation.play.GameTable", second_fails)
    with pytest.raises(UserError):
        play_episodes(None, make_config().env, episodes=4, seed=1)
    assert not list(tmp_path.glob("pbm-games-*"))


def play(trained, episodes: int = 7, seed: int = 3, **more) -> Played:
    return play_episodes(
        trained.policy,
        more.pop("env", trained.config.env),
        episodes=episodes,
        seed=seed,
        routing=trained.routing,
        temperature=trained.temperature,
        **more,
    )


def test_exactly_the_episodes_asked_for_are_played_each_to_its_end(trained) -> None:
    played = play(trained)
    assert [(record["seed_core"], record["seed_disp"]) for record in played.records] == [
        episode_seeds(3, episode) for episode in range(7)
    ]
    for record in played.records:
        assert (record["how_done"] == -1) == (record["length"] == 40)
    np.testing.assert_allclose(played.alpha.sum(axis=1), played.column("length"), rtol=1e-5)


def test_they_are_a_function_of_the_seed(trained) -> None:
    once = play(trained)
    assert play(trained).records == once.records
    assert play(trained, seed=4).records != once.records


def test_an_episode_is_the_same_among_fewer(trained) -> None:
    """Short ones do not push in: which episodes are played does not depend on when others end."""
    assert play(trained, episodes=3, games=2).records == play(trained, episodes=7, games=4).records[:3]


def test_random_actions_need_no_policy_and_reach_every_action(trained) -> None:
    seen: list[Moment] = []
    played = play_episodes(None, trained.config.env, episodes=6, seed=1, watch=seen.append)
    assert played.alpha is None
    actions = np.concatenate([moment.action for moment in seen])
    assert set(actions.tolist()) == set(range(23))
    assert len(actions) == played.column("length").sum()


def test_greedy_takes_the_likeliest(trained) -> None:
    seen: list[Moment] = []
    play(trained, episodes=3, greedy=True, watch=seen.append)
    for moment in seen:
        assert moment.action.tolist() == moment.output.logits.argmax(dim=1).tolist()


def test_moments_follow_each_other_game_by_game(trained) -> None:
    """What is watched is a whole game: steps count from 0, the action before is the one that was chosen."""
    steps: dict[int, list[tuple[int, int, int]]] = {}

    def watch(moment: Moment) -> None:
        rows = moment.rows
        for row in zip(rows.episode, rows.step, rows.previous_action, moment.action, strict=True):
            episode, step, previous, action = (int(value) for value in row)
            steps.setdefault(episode, []).append((step, previous, action))

    played = play(trained, watch=watch)
    for episode, taken in steps.items():
        assert [step for step, _, _ in taken] == list(range(int(played.records[episode]["length"])))
        assert [previous for _, previous, _ in taken] == [23, *(action for _, _, action in taken[:-1])]


def test_the_policy_sees_what_it_would_see_alone(trained) -> None:
    """Recurrent state and all: an episode inferred step by step by itself gives the same logits."""
    seen: list[Moment] = []
    play(trained, episodes=4, watch=seen.append)
    mine = [(m, int(np.flatnonzero(m.rows.episode == 2)[0])) for m in seen if 2 in m.rows.episode]
    state = trained.policy.initial_state(1)
    for number, (moment, row) in enumerate(mine):
        one = type(moment.observation)(*(None if x is None else x[row : row + 1] for x in moment.observation))
        output = trained.policy.infer(
            one, state, routing=trained.routing, temperature=trained.temperature, first=torch.tensor([number == 0])
        )
        torch.testing.assert_close(output.logits[0], moment.output.logits[row], rtol=1e-4, atol=1e-5)
        state = output.state
    assert len(mine) > 10


def test_nothing_of_the_policy_changes_and_training_can_go_on(trained) -> None:
    """A policy in training is evaluated as it is: afterwards its own inference with its own versions is as before."""
    policy, config = trained.policy, trained.config
    seen: list[Moment] = []
    play(trained, episodes=2, watch=seen.append)
    settings = {"routing": trained.routing, "temperature": trained.temperature, "weights_version": 7}
    observation = seen[0].observation
    weights = {name: value.clone() for name, value in policy.state_dict().items()}
    before = policy.infer(observation, policy.initial_state(len(seen[0].action)), **settings).logits.clone()
    evaluate_policy(policy, config, trained.routing, trained.temperature, 3, 9)
    after = policy.infer(observation, policy.initial_state(len(seen[0].action)), **settings).logits
    assert torch.equal(before, after)
    assert all(torch.equal(value, weights[name]) for name, value in policy.state_dict().items())


def test_an_evaluation_reads_the_weights_of_its_moment(trained) -> None:
    """What inference keeps between calls must not outlive a change of the weights."""
    play(trained, episodes=3)
    weights = {name: value.clone() for name, value in trained.policy.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    changed = {
        name: value + torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in weights.items()
    }
    trained.policy.load_state_dict(changed)
    seen, wanted = [], []
    play(trained, episodes=3, watch=seen.append)
    trained.policy.load_state_dict(weights)
    fresh = load_trained(trained.path)
    fresh.policy.load_state_dict(changed)
    play(fresh, episodes=3, watch=wanted.append)
    for one, other in zip(seen, wanted, strict=True):
        torch.testing.assert_close(one.output.value, other.output.value)
        torch.testing.assert_close(one.output.logits, other.output.logits)


def test_an_interrupted_evaluation_gives_nothing(trained) -> None:
    answers = iter([False] * 5 + [True] * 10)
    assert play(trained, interrupted=lambda: next(answers)) is None


def test_score_parts_add_up_to_what_the_game_says(trained) -> None:
    """A Tourist carries gold from the start, which is no score; walking down is 50 a level."""
    env = trained.config.env.model_copy(update={"character": "tou-hum-neu-mal", "max_episode_steps": 400})
    played = play_episodes(None, env, episodes=40, seed=2)
    parts = score_parts(*(played.column(name) for name in ("score", "depth", "gold")))
    np.testing.assert_array_equal(sum(parts.values()), played.column("score"))
    assert (parts["experience"] >= 0).all()
    assert (parts["gold"] >= 0).all()
    assert parts["gold"].max() > 0
    assert parts["experience"].max() > 0


def test_gold_of_the_last_step_before_the_limit_counts(trained) -> None:
    env = trained.config.env.model_copy(update={"max_episode_steps": 400})
    carried: dict[int, list[int]] = {}

    def watch(moment: Moment) -> None:
        for episode, gold in zip(moment.rows.episode.tolist(), moment.rows.raw["blstats"][:, NLE_BL_GOLD], strict=True):
            carried.setdefault(episode, []).append(int(gold))

    play_episodes(None, env, episodes=40, seed=2, watch=watch)
    episode, step = next((e, s) for e in range(40) for s in range(1, len(carried[e])) if carried[e][s] > carried[e][0])
    cut = env.model_copy(update={"max_episode_steps": step})
    played = play_episodes(None, cut, episodes=episode + 1, seed=2)
    assert played.records[episode]["gold"] == carried[episode][step] - carried[episode][0]


def test_depth_counts_as_in_botl_score() -> None:
    deepest = np.array([1.0, 2.0, 21.0, 31.0])
    parts = score_parts(np.full(4, 40_000.0), deepest, np.full(4, -5.0))
    assert parts["depth"].tolist() == [0, 50, 1000 + 1000, 1500 + 10_000]
    assert parts["gold"].tolist() == [0] * 4


def test_figures_say_what_was_played(trained) -> None:
    played = play(trained, episodes=12)
    figures = figures_of(played, trained.config.policy.expert_names)
    score = played.column("score")
    assert figures["episodes"] == 12
    assert figures["seed"] == 3
    assert figures["mean_score"] == pytest.approx(score.mean())
    assert figures["median_score"] == np.median(score)
    assert figures["standard_error"] == pytest.approx(score.std(ddof=1) / 12**0.5)
    assert figures["mean_score_interval"][0] <= figures["mean_score"] <= figures["mean_score_interval"][1]
    assert sum(figures["ends"].values()) == 12
    assert sum(figures["deaths"].values()) == 12 - figures["ends"].get("alive at the step limit", 0)
    assert sum(figures["score_parts"].values()) == pytest.approx(figures["mean_score"])
    assert sum(figures["expert_shares"].values()) == pytest.approx(1, abs=1e-5)
    assert list(figures["expert_shares"]) == list(trained.config.policy.expert_names)
    assert 0 <= figures["alpha_entropy"] <= figures["usage_entropy"] <= np.log(4) + 1e-6
    low, high = figures["routing_information_interval"]
    assert low <= figures["routing_information"] <= high


def test_a_long_episode_counts_by_its_steps() -> None:
    records = [
        {"score": 1, "return": 1, "length": length, "depth": 1, "how_done": 0, "gold": 0, "alpha_entropy": entropy}
        for length, entropy in ((10, 0.0), (90, 1.0))
    ]
    alpha = np.array([[10.0, 0.0], [45.0, 45.0]])
    figures = figures_of(Played(0, records, alpha), ("a", "b"))
    assert figures["expert_shares"] == pytest.approx({"a": 0.55, "b": 0.45})
    assert figures["alpha_entropy"] == pytest.approx(0.9)
