"""Games brought back to where they stood go on as if nothing had happened, in every field of what they fill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from written import Fields, written

from polybeast_moe import _C
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.runtime.rollouts import Rollout, rollout_layout
from polybeast_moe.runtime.saved_games import games_from_plain, games_to_plain

GROUPS, GAMES, KEPT = 2, 3, 1000
SEARCH = ACTIONS.index(ord("s"))


class Play:
    """An actor whose groups are told what to do; a batch is a rollout of every group."""

    def __init__(self, config, package, directory: Path) -> None:
        layout, game = rollout_layout(config, state_size=0), game_settings(config.env, package)
        self.region = _C.Region(layout, slots=GROUPS, actors=1, groups_per_actor=GROUPS, run_seed=3, game=game)
        self.actor = _C.Actor(self.region, 0, directory, 0, KEPT)
        self.rollouts = [Rollout(self.region, slot) for slot in range(GROUPS)]

    def batch(self, seed: int | None) -> list[Fields]:
        """Rollouts by group, of random actions; None: of heroes that stay where they are."""
        drawing = torch.Generator().manual_seed(seed or 0)
        group_of: dict[int, int] = {}
        while not (full := self.region.take_delivered(GROUPS)):
            self.actor.run_once()
            for request in self.region.requests(GROUPS):
                rollout, t = self.rollouts[request.slot], request.step
                drawn = torch.randint(len(ACTIONS), (GAMES,), generator=drawing)
                rollout["action"][t] = SEARCH if seed is None else drawn
                rollout["alpha"][t] = torch.softmax(torch.randn(rollout["alpha"][t].shape, generator=drawing), -1)
                group_of[request.slot] = request.group
                assert self.region.answer(request)
        found = {group_of[slot]: self.observed(slot) for slot in full}
        for slot in full:
            self.region.give_back(slot)
        return [found[group] for group in range(GROUPS)]

    def observed(self, slot: int) -> Fields:
        chosen_elsewhere = ("behaviour_logits", "initial_state", "policy_version", "phase", "routing", "temperature")
        return {name: value for name, value in written(self.rollouts[slot]).items() if name not in chosen_elsewhere}


@pytest.mark.parametrize("seed", [None, 5], ids=["on the stairs", "anywhere"])
def test_restored_games_go_on_as_those_that_never_stopped(make_config, nle_package, tmp_path: Path, seed) -> None:
    """Observations, what is remembered of stairs, the step before, and an episode's means, by way of JSON."""
    config = make_config("env.max_episode_steps=29", "phases.warmup.reward.new_squares=1")
    one, other = (Play(config, nle_package, tmp_path / name) for name in ("one", "other"))
    one.batch(seed)
    one.batch(seed)
    plain = json.loads(json.dumps(games_to_plain(one.actor.saved_games())))
    games = games_from_plain(plain, (GROUPS, GAMES))
    assert games is not None
    assert other.actor.restore(games) == 0
    ended = 0
    for following in range(3):
        for mine, theirs in zip(one.batch(following), other.batch(following), strict=True):
            assert mine.keys() == theirs.keys()
            for name in mine:
                assert torch.equal(mine[name], theirs[name]), name
            ended += int(mine["record_count"])
    assert ended >= GROUPS * GAMES, "no episode that was cut in two came to its end"
