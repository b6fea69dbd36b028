"""Plays NetHackVectorEnv and environments of `nle.env.tasks` side by side and compares every step, for test_oracle.py.

Usage: oracle.py SPEC, a JSON object: `task`, `options` (NLE's), `games`, `steps`, `seed`, and optionally `keys`,
`autoreset`, `processes`, `prefix` (actions that every episode begins with), `lgen`. Prints what it has seen as JSON.
"""

import json
import sys
import warnings
from collections import Counter
from typing import Any

import numpy as np
from nle import nethack
from nle.env import base, tasks

from polybeast_moe import _C
from polybeast_moe.envs import TASKS, EndStatus, NetHackVectorEnv

CLOCK = 1_600_000_000  # what pinned_clock.c shows


class Oracle:
    """One environment of NLE's, with the seeds that ours gets."""

    def __init__(self, task: str, keys: list[str], options: dict[str, Any]) -> None:
        name = TASKS[task]
        self.env = (base.NLE if name == "NLE" else getattr(tasks, name))(observation_keys=keys, **options)

    def reset(self, seeds: tuple[int, int, int | None]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        core, disp, lgen = seeds  # not through seed(): NetHackChallenge refuses it
        self.env.nethack._pynethack.set_initial_seeds(core, disp, False, lgen)
        return self.env.reset()


def same(where: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], game: int | None) -> None:
    assert list(ours) == list(theirs), f"{where}: keys {list(ours)}"
    for key, array in ours.items():
        row = array if game is None else array[game]
        assert row.dtype == theirs[key].dtype, f"{where}: {key} is {row.dtype}"
        assert np.array_equal(row, theirs[key]), f"{where}: {key} differs"


class Duel:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.games, self.task = spec["games"], spec["task"]
        self.keys = spec.get("keys", list(_C.OBSERVATION_KEYS))
        self.ours = NetHackVectorEnv(
            self.task,
            self.games,
            observation_keys=self.keys,
            autoreset_mode=spec.get("autoreset", "NextStep"),
            num_processes=spec.get("processes", 1),
            clock=CLOCK,
            **spec["options"],
        )
        self.theirs = [Oracle(self.task, self.keys, spec["options"]) for _ in range(self.games)]
        assert self.ours.single_observation_space == self.theirs[0].env.observation_space
        assert self.ours.single_action_space == self.theirs[0].env.action_space
        self.episodes = [0] * self.games
        self.played = [0] * self.games  # steps of the running episode
        self.seen: Counter[str] = Counter()
        self.reward = 0.0

    def seeds(self, game: int) -> tuple[int, int, int | None]:
        lgen = 1000 + self.episodes[game] if self.spec.get("lgen") else None
        return (*_C.episode_seeds(self.spec["seed"], game, self.episodes[game]), lgen)

    def begin(self, where: str, game: int, observation: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        theirs, their_info = self.theirs[game].reset(self.seeds(game))
        same(f"{where}, reset", observation, theirs, game)
        assert info["end_status"][game] == their_info["end_status"]
        assert info["is_ascended"][game] == their_info["is_ascended"]
        self.episodes[game] += 1
        self.played[game] = 0

    def play(self) -> None:
        rng = np.random.default_rng(self.spec["seed"])
        mode = self.ours.autoreset_mode.value
        prefix = self.spec.get("prefix", [])
        self.ours.set_seeds([self.seeds(game) for game in range(self.games)])
        observation, info = self.ours.reset()
        for game in range(self.games):
            self.begin("step 0", game, observation, info)
        ended = np.zeros(self.games, dtype=bool)
        for step in range(self.spec["steps"]):
            actions = rng.integers(int(self.ours.single_action_space.n), size=self.games)
            for game in range(self.games):
                if self.played[game] < len(prefix):
                    actions[game] = prefix[self.played[game]]
            self.ours.set_seeds([self.seeds(game) for game in range(self.games)])
            if mode == "Disabled" and ended.any():
                observation, info = self.ours.reset(options={"reset_mask": ended})
                for game in np.flatnonzero(ended).tolist():
                    self.begin(f"step {step}", game, observation, info)
                ended[:] = False
                self.ours.set_seeds([self.seeds(game) for game in range(self.games)])
            observation, reward, terminated, truncated, info = self.ours.step(actions)
            for game in range(self.games):
                where = f"step {step}, game {game}"
                if mode == "NextStep" and ended[game]:
                    assert (reward[game], terminated[game], truncated[game]) == (0.0, False, False)
                    self.begin(where, game, observation, info)
                    ended[game] = False
                    continue
                ended[game] = self.compare(
                    where, game, int(actions[game]), observation, reward, terminated, truncated, info
                )
                if mode == "SameStep" and ended[game]:
                    self.begin(where, game, observation, info)

    def compare(self, where, game, action, observation, reward, terminated, truncated, info) -> bool:
        theirs, their_reward, done, their_truncated, their_info = self.theirs[game].env.step(action)
        status = their_info["end_status"]
        assert reward[game] == their_reward, f"{where}: reward {reward[game]} instead of {their_reward}"
        assert (terminated[game], truncated[game]) == (done, their_truncated), f"{where}: {terminated}, {truncated}"
        ended = done or their_truncated
        row: int | None = game
        if ended and self.ours.autoreset_mode.value == "SameStep":
            observation, info, row = info["final_obs"][game], info["final_info"], None
        assert info["end_status"][game] == status, f"{where}: {info['end_status'][game]} instead of {status!r}"
        assert info["is_ascended"][game] == their_info["is_ascended"]
        if status != EndStatus.ABORTED:  # then NLE has played its quit into the same buffers
            same(where, observation, theirs, row)
        self.played[game] += 1
        self.seen["steps"] += 1
        self.seen[EndStatus(status).name] += 1
        if "blstats" in theirs:
            self.seen["hallucinating"] += bool(theirs["blstats"][nethack.NLE_BL_CONDITION] & nethack.BL_MASK_HALLU)
        self.reward += abs(their_reward)
        return ended


def main(spec: dict[str, Any]) -> None:
    warnings.simplefilter("ignore")
    duel = Duel(spec)
    duel.play()
    duel.ours.close()
    print(json.dumps({**duel.seen, "episodes": sum(duel.episodes), "reward": float(duel.reward)}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
