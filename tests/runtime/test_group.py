"""A group's slots against the same games played one by one in plain Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from nle import nethack

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs import NetHackVectorEnv
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.envs.tasks import TaskOptions
from polybeast_moe.runtime.rollouts import Rollout, make_batch, rollout_layout

RUN_SEED, FIRST_GAME, SLOTS = 5, 40, 14
SHAPE = (
    "env.character=tou-hum-neu-mal",  # a tourist dies soon
    "env.max_episode_steps=450",
    "env.store_glyphs=true",
    "env.store_inventory=true",
    "env.crop_size=7",
    "runtime.games_per_group=5",
    "runtime.unroll=64",
    "phases.warmup.reward.new_squares=0.1",  # so that reward terms are stored
)
NO_ACTION = len(ACTIONS)


class Play:
    """One group playing random actions into slot after slot; every slot stays as it was filled."""

    def __init__(self, config: RunConfig, package, directory: Path, slots: int, first_episode: int = 0) -> None:
        layout = rollout_layout(config, state_size=0)
        self.region = _C.Region(layout, slots)
        self.group = _C.Group(
            _C.LibraryFile(str(package.library)),
            game_settings(config.env, package),
            directory,
            layout,
            run_seed=RUN_SEED,
            first_game=FIRST_GAME,
            first_episode=first_episode,
        )
        self.rollouts = [Rollout(self.region, slot) for slot in range(slots)]
        generator = torch.Generator().manual_seed(0)
        for rollout in self.rollouts:
            rollout["final_count"].fill_(-1)  # what an earlier use of the slot left
            rollout["record_count"].fill_(99)
            self.group.open(self.region, rollout.slot)
            rollout["action"].random_(0, len(ACTIONS), generator=generator)
            weights = torch.rand(rollout["alpha"].shape, generator=generator)
            weights[torch.rand(weights.shape, generator=generator) < 0.4] = 0.0  # as sparsemax does
            rollout["alpha"].copy_(weights / weights.sum(-1, keepdim=True).clamp(min=1e-6))
            for t in range(config.runtime.unroll):
                self.group.step(self.region, rollout.slot, t)


@pytest.fixture(scope="module")
def config(make_config) -> RunConfig:
    return make_config(*SHAPE)


@pytest.fixture(scope="module")
def play(config: RunConfig, nle_package, tmp_path_factory) -> Play:
    return Play(config, nle_package, tmp_path_factory.mktemp("group"), SLOTS)


def crop_of(glyphs: np.ndarray, blstats: np.ndarray, side: int) -> np.ndarray:
    half = side // 2
    padded = np.pad(glyphs, half, constant_values=nethack.NO_GLYPH)
    x, y = int(blstats[0]), int(blstats[1])
    return padded[y : y + side, x : x + side]


def check_observation(fields, prefix: str, index, game: LoneGame) -> None:
    seen, side = game.game.observation(), game.side

    def row(name: str) -> np.ndarray:
        return fields[prefix + name][index].numpy()

    for name in ("glyphs", "blstats", "message", "inv_glyphs", "inv_letters", "inv_oclasses"):
        assert np.array_equal(row(name), seen[name]), name
    assert np.array_equal(row("glyph_crop"), crop_of(seen["glyphs"], seen["blstats"], side))
    keys = ("glyphs", "blstats", "message", "inv_glyphs", "inv_oclasses", "inv_letters", "misc")
    lit = _C.evaluate_conditions(**{key: seen[key][None] for key in keys}, memories=[game.stairs])
    assert np.array_equal(row("conditions").view(np.uint64), lit[0])


class LoneGame:
    """Replays one game of the group from its recorded actions, and says what must be in the slots."""

    def __init__(self, config: RunConfig, package, directory: Path, k: int) -> None:
        self.game = _C.Game(_C.LibraryFile(str(package.library)), game_settings(config.env, package), directory)
        self.k, self.side = k, config.env.crop_size
        self.episode = 0
        self.start()

    def start(self) -> None:
        self.seeds = _C.episode_seeds(RUN_SEED, FIRST_GAME + self.k, self.episode)
        self.game.reset(*self.seeds)
        self.episode += 1
        self.previous_action, self.first = NO_ACTION, True
        self.stairs = _C.StairsMemory()
        self.total, self.length, self.score, self.entropies = 0.0, 0, 0, []

    def check_row(self, rollout: Rollout, t: int) -> None:
        check_observation(rollout.fields, "", (t, self.k), self)
        assert rollout["first"][t, self.k] == self.first
        assert rollout["previous_action"][t, self.k] == self.previous_action
        assert rollout["episode_step"][t, self.k] == self.length

    def step(self, rollout: Rollout, t: int) -> tuple[dict, bool] | None:
        """Plays row t; returns the record of an episode that ends there, and whether it was cut."""
        action = int(rollout["action"][t, self.k])
        seen = self.game.observation()
        if seen["blstats"][11] > 0:
            self.score = int(seen["blstats"][9])
        reward, terminated, truncated = self.game.step(action)
        assert rollout["reward"][t, self.k].item() == np.float32(reward)
        assert bool(rollout["terminated"][t, self.k]) == terminated
        assert bool(rollout["truncated"][t, self.k]) == truncated
        alpha = rollout["alpha"][t, self.k].double().numpy()
        self.entropies.append(-(alpha[alpha > 0] * np.log(alpha[alpha > 0])).sum())
        self.total += reward
        self.length += 1
        self.previous_action, self.first = action, False
        return (self.record(), truncated) if terminated or truncated else None

    def record(self) -> dict:
        episode = self.game.episode()
        return {
            "score": episode["score"],
            "score_after_end": episode["score_after_end"],
            "return": pytest.approx(self.total, abs=1e-9),
            "length": self.length,
            "depth": episode["depth"],
            "turns": episode["turns"],
            "how_done": episode["how_done"],
            "alpha_entropy": pytest.approx(float(np.mean(self.entropies)), abs=1e-9),
            "seed_core": self.seeds[0],
            "seed_disp": self.seeds[1],
            "gold": episode["gold"],
            "death": episode["death"],
        }


def test_slots_hold_what_the_same_games_alone_would_show(play: Play, config: RunConfig, nle_package, tmp_path) -> None:
    """Observations, rewards, ends, final observations and records, all recomputed from the actions and the seeds."""
    games = [LoneGame(config, nle_package, tmp_path / str(k), k) for k in range(config.runtime.games_per_group)]
    deaths = limits = 0
    for rollout in play.rollouts:
        records, finals = [], []
        for game in games:
            game.check_row(rollout, 0)
        for t in range(config.runtime.unroll):
            for game in games:
                ended = game.step(rollout, t)
                if ended is not None:
                    record, cut = ended
                    assert record["score"] >= game.score
                    assert (record["how_done"] == -1) == cut
                    records.append((t, game.k, record))
                    if cut:
                        index = len(finals)
                        check_observation(rollout.fields, "final_", index, game)
                        finals.append((t, game.k, game.previous_action))
                    game.start()
                game.check_row(rollout, t + 1)
        names = ("final_step", "final_game", "final_previous_action")
        assert rollout["final_count"].item() == len(finals)
        assert list(zip(*(rollout[name][: len(finals)].tolist() for name in names), strict=True)) == finals
        assert rollout.episodes() == [record for *_, record in records]
        places = [rollout[name][: len(records)].tolist() for name in ("record_step", "record_game")]
        assert list(zip(*places, strict=True)) == [(t, k) for t, k, _ in records]
        limits += len(finals)
        deaths += len(records) - len(finals)
    assert play.group.fatal_games == 0
    assert deaths >= 2, "the test says nothing of terminations"
    assert limits >= 2, "the test says nothing of truncations"


def test_reward_terms_are_those_of_the_vector_environment(play: Play, config: RunConfig) -> None:
    env = NetHackVectorEnv(
        config.env.task,
        1,
        character=config.env.character,
        max_episode_steps=config.env.max_episode_steps,
        clock=config.env.clock,
        autoreset_mode=AutoresetMode.DISABLED,
        reward_terms=True,
    )
    ends, nonzero = 0, torch.zeros(len(_C.REWARD_TERMS), dtype=torch.bool)
    for k in range(config.runtime.games_per_group):
        episode = 0
        env.set_seeds([(*_C.episode_seeds(RUN_SEED, FIRST_GAME + k, episode), None)])
        env.reset()
        for rollout in play.rollouts:
            for t in range(config.runtime.unroll):
                *_, info = env.step(rollout["action"][t, k : k + 1].numpy())
                stored = rollout["reward_terms"][t, k]
                assert stored.tolist() == info["reward_terms"][0].tolist(), (k, t)
                nonzero |= stored != 0
                if "episode_record" in info:
                    episode += 1
                    ends += 1
                    env.set_seeds([(*_C.episode_seeds(RUN_SEED, FIRST_GAME + k, episode), None)])
                    env.reset(options={"reset_mask": np.array([True])})
    env.close()
    assert ends >= 4
    assert nonzero.sum() >= 6, "the test says little"


def test_reward_terms_take_no_space_unless_a_phase_weighs_one(make_config) -> None:
    def names(*overrides: str) -> set[str]:
        return {name for name, *_ in rollout_layout(make_config(*overrides), state_size=0).fields}

    assert "reward_terms" not in names("phases.warmup.reward.task=0.5", "phases.warmup.reward.gold=0")
    assert "reward_terms" in names("phases.transition.reward.gold={from: 0, to: 0.1}")


def test_consecutive_slots_join_up(play: Play) -> None:
    names = ("glyph_crop", "glyphs", "blstats", "message", "conditions", "previous_action", "first")
    for before, after in zip(play.rollouts, play.rollouts[1:], strict=False):
        for name in names:
            assert torch.equal(before[name][-1], after[name][0]), name


def test_an_episode_that_ends_is_followed_by_the_first_step_of_another(play: Play) -> None:
    for rollout in play.rollouts:
        ended = (rollout["terminated"] | rollout["truncated"]).bool()
        assert torch.equal(rollout["first"][1:].bool(), ended)
        assert torch.equal(rollout["previous_action"][1:], torch.where(ended, NO_ACTION, rollout["action"]))
        assert not (rollout["terminated"] & rollout["truncated"]).any()
    assert play.rollouts[0]["first"][0].all()


def test_the_hero_stands_in_the_middle_of_the_crop(play: Play) -> None:
    hero = play.rollouts[0]["glyph_crop"][0, :, 3, 3]
    assert nethack.glyph_is_monster(int(hero[0]))
    assert (hero == hero[0]).all()


def test_episodes_are_numbered_from_the_one_asked_for(config: RunConfig, nle_package, tmp_path) -> None:
    short = config.model_copy(update={"env": config.env.model_copy(update={"max_episode_steps": 3})})
    seen = {
        first: {
            (game, episode["seed_core"], episode["seed_disp"])
            for rollout in Play(short, nle_package, tmp_path / str(first), 1, first).rollouts
            for game, episode in zip(rollout["record_game"].tolist(), rollout.episodes(), strict=False)
        }
        for first in (0, 1000)
    }
    for first, episodes in seen.items():
        assert len(episodes) == config.runtime.games_per_group * (64 // 3)  # none twice
        assert episodes == {
            (k, *_C.episode_seeds(RUN_SEED, FIRST_GAME + k, first + i)) for k in range(5) for i in range(64 // 3)
        }


def test_seeds_differ_between_runs_games_and_episodes() -> None:
    seeds = [_C.episode_seeds(run, game, episode) for run in range(8) for game in range(40) for episode in range(40)]
    assert len(set(seeds)) == len(seeds)
    assert len({core for core, _ in seeds} | {disp for _, disp in seeds}) == 2 * len(seeds)
    assert all(0 <= seed < 2**63 for pair in seeds for seed in pair)


@pytest.mark.parametrize("action", [-1, NO_ACTION])
def test_an_action_that_does_not_exist_is_refused(make_config, nle_package, tmp_path, action: int) -> None:
    play = Play(make_config(), nle_package, tmp_path / "group", 1)
    play.rollouts[0]["action"][0, 1] = action
    with pytest.raises(IndexError, match=f"action {action} of game {FIRST_GAME + 1}"):
        play.group.step(play.region, 0, 0)


def test_games_that_a_layout_has_no_room_for_are_refused(make_config, nle_package, tmp_path) -> None:
    """A slot keeps so many final observations as episodes can be truncated in it."""
    layout = rollout_layout(make_config("env.max_episode_steps=100"), state_size=0)
    library = _C.LibraryFile(str(nle_package.library))
    short = game_settings(make_config("env.max_episode_steps=99").env, nle_package)
    stalling = TaskOptions(actions=ACTIONS, max_episode_steps=100, no_progress_timeout=198)  # looked at twice a step
    for settings in (short, stalling.game_settings("NetHackChallenge-v0", None, nle_package)):
        with pytest.raises(ValueError, match="sooner than the layout has room for"):
            _C.Group(library, settings, tmp_path / "group", layout, run_seed=0, first_game=0)


def test_a_step_beyond_the_slot_is_refused(make_config, nle_package, tmp_path) -> None:
    play = Play(make_config(), nle_package, tmp_path / "group", 1)
    with pytest.raises(RuntimeError, match="outside an open slot"):
        play.group.step(play.region, 0, 8)


def test_a_game_that_nethack_gives_up_ends_and_the_group_goes_on(make_config, nle_package, tmp_path) -> None:
    """Without its data file a game cannot start: its group tries other seeds, and says so when none helps."""
    play = Play(make_config("env.max_episode_steps=100"), nle_package, tmp_path / "group", 1)
    (tmp_path / "group" / f"game-{FIRST_GAME}" / "nhdat").unlink()

    def play_past_the_limit() -> None:
        for _ in range(100):
            play.group.step(play.region, 0, 0)

    with pytest.raises(_C.FatalGameError):
        play_past_the_limit()
    assert play.group.fatal_games >= 16
    assert play.group.last_fatal_reason


def test_a_batch_lays_rollouts_side_by_side(play: Play, config: RunConfig) -> None:
    chosen = [play.rollouts[i] for i in (3, 6, 8)]
    batch = make_batch(chosen)
    T, K = config.runtime.unroll, config.runtime.games_per_group
    assert (batch.steps, batch.games) == (T, 3 * K)
    for i, rollout in enumerate(chosen):
        side = slice(i * K, (i + 1) * K)
        for name in ("action", "reward", "reward_terms", "terminated", "truncated", "behaviour_logits", "first"):
            assert torch.equal(getattr(batch, name)[:, side], rollout[name].to(getattr(batch, name).dtype)), name
        for name in ("glyph_crop", "blstats", "conditions", "previous_action", "message"):
            rows = getattr(batch.observation, name).unflatten(0, (T + 1, 3 * K))
            assert torch.equal(rows[:, side], rollout[name].to(rows.dtype)), name
    cut = torch.zeros_like(batch.truncated)
    cut[batch.final_step, batch.final_game] = True
    assert torch.equal(cut, batch.truncated)
    assert len(batch.final_step) == len(batch.final_observation.blstats) == sum(int(r["final_count"]) for r in chosen)
    index = 0
    for rollout in chosen:
        for entry in range(int(rollout["final_count"])):
            assert torch.equal(batch.final_observation.blstats[index], rollout["final_blstats"][entry])
            assert torch.equal(batch.final_observation.message[index], rollout["final_message"][entry])
            index += 1


def test_a_batch_outlives_its_slots(make_config, nle_package, tmp_path) -> None:
    play = Play(make_config("env.max_episode_steps=3"), nle_package, tmp_path / "group", 1)
    batch = make_batch(play.rollouts)
    before = [tensor.clone() for tensor in (batch.reward, batch.observation.blstats, batch.final_observation.message)]
    play.region.slot(0)[64:] = 255
    after = (batch.reward, batch.observation.blstats, batch.final_observation.message)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
