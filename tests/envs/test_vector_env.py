"""NetHackVectorEnv as an environment of Gymnasium's: interface, modes, mistakes. For exactness see tests/engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from nle import nethack
from nle.env import base, tasks
from processes import alive
from waiting import wait_until

import polybeast_moe.envs
from polybeast_moe import _C
from polybeast_moe.envs import TASKS, EndStatus, NetHackVectorEnv
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.envs.tasks import TaskOptions
from polybeast_moe.envs.workers import PROGRAM
from polybeast_moe.errors import UserError

KEYS = ("glyphs", "blstats", "message")
CLOCK = 1_600_000_000
MakeEnv = Callable[..., NetHackVectorEnv]


@pytest.fixture
def make_env() -> Iterator[MakeEnv]:
    made: list[NetHackVectorEnv] = []

    def make(task: str = "NetHackScore-v0", num_envs: int = 2, **options: Any) -> NetHackVectorEnv:
        made.append(NetHackVectorEnv(task, num_envs, **{"observation_keys": KEYS, "clock": CLOCK, **options}))
        return made[-1]

    yield make
    for env in made:
        env.close()


def play(env: VectorEnv, steps: int, seed: int = 7) -> list[Any]:
    """Everything that random actions bring, copied."""
    seen: list[Any] = [_copy(env.reset(seed=seed))]
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        seen.append(_copy(env.step(rng.integers(env.single_action_space.n, size=env.num_envs))))
    return seen


def _copy(result: tuple[Any, ...]) -> tuple[Any, ...]:
    return ({key: array.copy() for key, array in result[0].items()}, *result[1:])


def ends(seen: list[Any]) -> int:
    return sum(int((step[2] | step[3]).sum()) for step in seen[1:])


@pytest.mark.parametrize("task", TASKS)
def test_spaces_and_defaults_are_nle_s(make_env: MakeEnv, task: str) -> None:
    name = TASKS[task]
    theirs = (base.NLE if name == "NLE" else getattr(tasks, name))()
    env = gymnasium.make_vec(f"polybeast_moe/{task}", num_envs=3)
    assert env.single_observation_space == theirs.observation_space
    assert env.single_action_space == theirs.action_space
    assert env.num_envs == 3
    assert env.observation_space.contains(env.reset()[0])
    theirs.close()
    env.close()


def test_make_vec_passes_nle_s_options_on() -> None:
    env = gymnasium.make_vec(
        "polybeast_moe/NetHackScore-v0",
        num_envs=2,
        observation_keys=KEYS,
        max_episode_steps=4,
        autoreset_mode=AutoresetMode.SAME_STEP,
        character="val-hum-neu-fem",
    )
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.spec is not None
    assert ends(play(env, 12)) == 6
    env.close()


def test_the_engine_knows_nle_s_keys_and_glyphs() -> None:
    assert set(_C.OBSERVATION_KEYS) == set(nethack.OBSERVATION_DESC)
    assert nethack.permonst(nethack.glyph_to_mon(270)).mname == "Oracle"
    assert (nethack.GLYPH_PET_OFF, nethack.NUMMONS, nethack.GLYPH_CMAP_OFF) == (381, 381, 2359)


def test_equal_seeds_give_equal_episodes_and_seeds_follow_the_documented_derivation(make_env: MakeEnv) -> None:
    env, other = make_env(max_episode_steps=20), make_env(max_episode_steps=20)
    first, second = play(env, 50), play(other, 50)
    assert data_equivalence(first, second)
    assert ends(first) >= 4
    assert [seeds[:2] for seeds in env.seeds()] == [_C.episode_seeds(7, game, 2) for game in range(2)]
    assert not data_equivalence(first[0], play(env, 0, seed=8)[0])
    assert data_equivalence(first[0], play(env, 0)[0])


def test_seeds_apply_to_the_next_reset_alone_and_none_is_fresh(make_env: MakeEnv) -> None:
    env = make_env()
    env.set_seeds([(1, 2), (3, 4, 5)])
    env.reset()
    assert env.seeds() == [(1, 2, None), (3, 4, 5)]
    env.set_seeds([(1, 2, None), None])
    env.reset(seed=9)
    assert env.seeds()[0] == (1, 2, None)
    assert env.seeds()[1][:2] != _C.episode_seeds(9, 1, 0)
    env.reset()
    assert [seeds[:2] for seeds in env.seeds()] == [_C.episode_seeds(9, game, 1) for game in range(2)]
    env.reset(seed=[5, None])
    assert env.seeds()[0][:2] == _C.episode_seeds(5, 0, 0)


def test_processes_change_nothing(make_env: MakeEnv) -> None:
    options = {"num_envs": 5, "max_episode_steps": 40, "reward_terms": True}
    alone = play(make_env(**options), 90)
    for processes in (2, 5):
        assert data_equivalence(alone, play(make_env(**options, num_processes=processes), 90))
    assert ends(alone) >= 10


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_autoreset_modes_are_gymnasium_s(make_env: MakeEnv, mode: AutoresetMode) -> None:
    env = make_env(num_envs=3, autoreset_mode=mode, max_episode_steps=3)
    env.reset(seed=1)
    for _ in range(2):
        *_, info = env.step(np.zeros(3, dtype=int))
        assert "episode_record" not in info
    observation, reward, terminated, truncated, info = env.step(np.array([1, 2, 3]))
    assert terminated.all()  # NLE calls its step limit a termination
    assert not truncated.any()
    record = info["episode_record"]
    assert record["length"].tolist() == [3, 3, 3]
    assert record["how_done"].tolist() == [-1, -1, -1]
    assert record["death"].tolist() == ["", "", ""]
    if mode is AutoresetMode.SAME_STEP:
        assert info["end_status"].tolist() == [EndStatus.RUNNING] * 3
        assert info["final_info"]["end_status"].tolist() == [EndStatus.ABORTED] * 3
        for game in range(3):
            assert set(info["final_obs"][game]) == set(KEYS)
            assert not np.array_equal(info["final_obs"][game]["glyphs"], observation["glyphs"][game])
        return
    assert info["end_status"].tolist() == [EndStatus.ABORTED] * 3
    if mode is AutoresetMode.NEXT_STEP:
        _, reward, terminated, truncated, info = env.step(np.zeros(3, dtype=int))
        assert (reward == 0).all()
        assert not (terminated | truncated).any()
        assert env.seeds()[2][:2] == _C.episode_seeds(1, 2, 1)
        return
    with pytest.raises(ResetNeeded, match=r"games \[0, 1, 2\] have ended"):
        env.step(np.zeros(3, dtype=int))
    before = {
        key: array.copy() for key, array in env.reset(options={"reset_mask": np.array([True, True, True])})[0].items()
    }
    env.reset(options={"reset_mask": np.array([False, True, False])})
    after = env.step(np.zeros(3, dtype=int))[0]
    assert before["glyphs"].shape == after["glyphs"].shape


def test_observations_are_views_that_the_next_step_overwrites(make_env: MakeEnv) -> None:
    env = make_env()
    first, _ = env.reset(seed=1)
    memory = {key: array.__array_interface__["data"] for key, array in first.items()}
    second, reward, *_ = env.step([1, 1])
    assert {key: array.__array_interface__["data"] for key, array in second.items()} == memory
    kept = reward.copy()
    env.step([2, 2])
    assert np.array_equal(reward, kept)


def test_standard_wrappers_work(make_env: MakeEnv) -> None:
    env = RecordEpisodeStatistics(make_env(max_episode_steps=10, autoreset_mode=AutoresetMode.SAME_STEP))
    env.reset(seed=3)
    for _ in range(10):
        _, _, _, _, info = env.step(np.zeros(2, dtype=int))
    assert info["episode"]["l"].tolist() == [10, 10]
    assert info["episode"]["r"].tolist() == pytest.approx(info["episode_record"]["return"].tolist())
    listed = DictInfoToList(make_env(max_episode_steps=5))
    _, infos = listed.reset(seed=3)
    assert infos[0]["end_status"] == EndStatus.RUNNING
    for _ in range(5):
        *_, infos = listed.step(np.zeros(2, dtype=int))
    assert infos[1]["episode_record"]["length"] == 5


def test_reward_terms_add_up_to_what_the_observations_say(make_env: MakeEnv) -> None:
    env = make_env(num_envs=8, reward_terms=True, max_episode_steps=10_000)
    observation, info = env.reset(seed=4)
    column = {name: index for index, name in enumerate(env.reward_term_names)}
    assert list(column) == list(_C.REWARD_TERMS)
    assert not info["reward_terms"].any()
    of = {"score": 9, "hit_points": 10, "gold": 13, "armour_class": 16, "experience_points": 19}
    rng = np.random.default_rng(0)
    deaths = prompts = squares = 0.0
    before, time_before = observation["blstats"].copy(), observation["blstats"][:, 20].copy()
    fresh = np.zeros(8, dtype=bool)
    for _ in range(1500):
        observation, reward, terminated, _, info = env.step(rng.integers(23, size=8))
        terms, now = info["reward_terms"], observation["blstats"]
        for game in np.flatnonzero(~terminated & ~fresh):
            for name, index in of.items():
                assert terms[game, column[name]] == now[game, index] - before[game, index], name
            assert terms[game, column["only_prompt"]] <= (now[game, 20] == time_before[game])
            assert terms[game, column["eaten"]] == max(terms[game, column["hunger"]], 0)
            penalty = -0.01 if now[game, 20] == time_before[game] else 0.0
            assert reward[game] == terms[game, column["score"]] + penalty
        assert (terms[fresh] == 0).all()
        assert (terms[terminated][:, column["death"]] == 1).all()
        deaths += terms[:, column["death"]].sum()
        prompts += terms[:, column["only_prompt"]].sum()
        squares += terms[:, column["new_squares"]].sum()
        assert (terms[:, column["new_squares"]] >= 0).all()
        before, time_before, fresh = now.copy(), now[:, 20].copy(), terminated.copy()
    assert deaths >= 1
    assert prompts > 0
    assert squares > 500


def test_a_meal_is_a_reward_term_of_its_own(make_env: MakeEnv) -> None:
    env = make_env(num_envs=1, reward_terms=True, observation_keys=("message",))
    env.reset(seed=3)
    column = env.reward_term_names.index("eaten")
    eat, west = (list(tasks.TASK_ACTIONS).index(key) for key in (nethack.Command.EAT, nethack.CompassDirection.W))
    observation, *_, info = env.step([eat])
    assert b"[ghij or ?*]" in bytes(observation["message"][0])
    assert info["reward_terms"][0, column] == 0
    *_, info = env.step([west])  # h: one of the Monk's apples, worth 50, less what the turn took
    assert info["reward_terms"][0, column] == 49


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "NetHackScor-v0"}, "unknown task 'NetHackScor-v0'; did you mean 'NetHackScore-v0'"),
        ({"observation_keys": ("glyph",)}, "observation_keys: unknown key 'glyph'; did you mean 'glyphs'"),
        ({"observation_keys": ()}, "observation_keys must be one or more"),
        ({"max_steps": 3}, "unknown option 'max_steps'; did you mean 'max_episode_steps'"),
        ({"max_episode_steps": 0}, "max_episode_steps must be a positive whole number"),
        ({"max_episode_steps": float("inf")}, "max_episode_steps must be a positive whole number"),
        ({"penalty_mode": "cubic"}, "unknown penalty_mode 'cubic'"),
        ({"penalty_mode": 3}, "unknown penalty_mode 3"),
        ({"task": "NetHackChallenge-v0", "actions": [1]}, "takes no 'actions'"),
        ({"num_envs": 0}, "num_envs must be a whole number of at least 1"),
        ({"num_processes": 3}, "3 processes for 2 games"),
        ({"clock": "fast"}, "clock must be"),
        ({"autoreset_mode": "Sometimes"}, "autoreset_mode"),
    ],
)
def test_impossible_arguments_are_refused_by_name(make_env: MakeEnv, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_env(**options)
    assert isinstance(caught.value, UserError)


def test_mistakes_in_use_are_refused_and_the_games_go_on(make_env: MakeEnv) -> None:
    env = make_env()
    with pytest.raises(ResetNeeded, match="call reset before the first step"):
        env.step([0, 0])
    with pytest.raises(ResetNeeded, match="first reset must start every game"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(seed=1)
    for actions, error, message in (
        ([0, 23], ValueError, r"action 23 of game 1 is not in \[0, 23\)"),
        ([-1, 0], ValueError, "action -1 of game 0"),
        ([0], ValueError, r"shape \(1,\) instead of \(2,\)"),
        ([[0, 0]], ValueError, "shape"),
        ([0.0, 1.0], TypeError, "whole numbers, not float64"),
        ([True, False], TypeError, "whole numbers, not bool"),
        (["h", "j"], TypeError, "whole numbers"),
    ):
        with pytest.raises(error, match=message):
            env.step(actions)
    for seeds, message in (
        ([(1, 2)], "1 entries for 2 games"),
        ([(1,), None], "game 0 needs"),
        ([(1, -2), None], "game 0"),
    ):
        with pytest.raises(ValueError, match=message):
            env.set_seeds(seeds)
    with pytest.raises(ValueError, match="reset_mask must be a bool array"):
        env.reset(options={"reset_mask": np.array([1, 0])})
    with pytest.raises(ValueError, match="3 seeds for 2 games"):
        env.reset(seed=[1, 2, 3])
    assert env.step([0, 1])[0]["blstats"].shape == (2, 27)
    env.close()
    env.close()
    for use in (lambda: env.step([0, 0]), env.reset, lambda: env.set_seeds([None, None])):
        with pytest.raises(ClosedEnvironmentError, match="is closed"):
            use()


def test_a_process_that_dies_ends_its_games_and_is_replaced(make_env: MakeEnv) -> None:
    env = make_env(num_envs=4, num_processes=2)
    env.reset(seed=1)
    env.step(np.zeros(4, dtype=int))
    os.kill(env._stepper.pids[1], signal.SIGKILL)
    _, reward, terminated, _, info = env.step(np.zeros(4, dtype=int))
    assert terminated.tolist() == [False, False, True, True]
    assert (reward[2:] == 0).all()
    assert info["episode_record"]["how_done"].tolist()[2:] == [-2, -2]
    assert "process that played it died" in info["fatal_reason"][3]
    assert env.fatal_games == 2
    for _ in range(3):
        terminated = env.step(np.zeros(4, dtype=int))[2]
    assert not terminated.any()


def test_what_comes_to_all_processes_of_a_job_is_left_to_the_one_that_made_them(make_env: MakeEnv) -> None:
    env = make_env(num_envs=2, num_processes=2)
    env.reset(seed=1)
    for number in (signal.SIGINT, signal.SIGUSR1):
        for pid in env._stepper.pids:
            os.kill(pid, number)
    for _ in range(3):
        assert not env.step(np.zeros(2, dtype=int))[2].any()


def test_games_and_workers_that_a_block_has_not_are_refused(tmp_path: Path) -> None:
    settings = TaskOptions().game_settings("NetHackScore-v0", CLOCK, check_nle())
    block = _C.GameBlock(settings, 2, 1, ["blstats"], False)
    with pytest.raises(IndexError, match="no games 1 to 3"):
        _C.Games(block, 1, 3, tmp_path)
    command = [PROGRAM, str(block.fd), "1", str(tmp_path), str(os.getpid())]
    worker = subprocess.run(command, pass_fds=(block.fd,), capture_output=True, text=True)
    assert (worker.returncode, worker.stderr) == (70, "pbm-games-1: the block of games has no worker 1\n")


def test_an_action_is_read_in_all_its_64_bits(tmp_path: Path) -> None:
    settings = TaskOptions().game_settings("NetHackScore-v0", CLOCK, check_nle())
    block = _C.GameBlock(settings, 1, 0, ["blstats"], False)
    games, fields = _C.Games(block, 0, 1, tmp_path), block.fields()
    fields["todo"][:] = _C.TODO_RESET
    games.run()
    fields["todo"][:], fields["action"][:] = _C.TODO_STEP, 2**32
    with pytest.raises(IndexError, match=f"action {2**32} is not one of"):
        games.run()


def test_processes_die_with_whoever_made_them(tmp_path: Path) -> None:
    script = (
        "import signal\n"
        "from polybeast_moe.envs import NetHackVectorEnv\n"
        "env = NetHackVectorEnv('NetHackScore-v0', 2, observation_keys=('blstats',), num_processes=2)\n"
        "env.reset(); print(*env._stepper.pids, flush=True); signal.pause()\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # SIGKILL gives it no chance to remove the games' folder
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(alive, pids)))


def test_what_cannot_be_played_at_all_is_an_error_not_a_hang(
    make_env: MakeEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without NetHack's data file no seed gives a game."""
    from polybeast_moe.envs import vector_env

    found = vector_env.check_nle()
    monkeypatch.setattr(
        vector_env, "check_nle", lambda: type(found)(found.library, Path("/nonexistent"), found.version)
    )
    for processes in (1, 2):
        env = make_env(num_processes=processes)
        with pytest.raises(RuntimeError, match="did not start with 16 seeds"):
            env.reset(seed=1)
        assert env.closed


def test_random_configurations_and_actions_never_break(make_env: MakeEnv) -> None:
    """A fuzz test: any task, any keys, all actions, every prompt answered at random."""
    rng = np.random.default_rng(int(os.environ.get("PBM_FUZZ_SEED", "0")))
    for _ in range(6):
        task = str(rng.choice(list(TASKS)))
        keys = rng.permutation(list(_C.OBSERVATION_KEYS))[: rng.integers(1, 18)].tolist()
        games = int(rng.integers(1, 5))
        options: dict[str, Any] = {} if task == "NetHackChallenge-v0" else {"actions": list(nethack.ACTIONS)}
        if rng.integers(2):
            options |= {"allow_all_modes": True, "allow_all_yn_questions": True}
        env = make_env(
            task,
            games,
            observation_keys=keys,
            autoreset_mode=str(rng.choice(["NextStep", "SameStep"])),
            num_processes=int(rng.integers(1, games + 1)),
            max_episode_steps=int(rng.integers(1, 200)),
            character=str(rng.choice(["@", "val-dwa-law-fem", "wiz-elf-cha-mal"])),
            reward_terms=bool(rng.integers(2)),
            **options,
        )
        env.reset(seed=int(rng.integers(1000)))
        for _ in range(250):
            observation, *_ = env.step(rng.integers(env.single_action_space.n, size=games))
        assert env.observation_space.contains(observation)
        env.close()


def test_importing_the_environments_imports_no_torch() -> None:
    script = "import sys, polybeast_moe.envs as e; e.NetHackVectorEnv; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert polybeast_moe.envs.NetHackVectorEnv is NetHackVectorEnv


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is nobody's own")
def test_processes_keep_to_cores_of_their_own(make_env: MakeEnv) -> None:
    env = make_env(num_envs=4, num_processes=2)
    env.reset(seed=1)
    first, second = (os.sched_getaffinity(pid) for pid in env._stepper.pids)
    assert first
    assert second
    assert not first & second
    assert first | second == os.sched_getaffinity(0)
