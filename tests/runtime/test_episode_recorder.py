"""A run's best episodes come back as replays, put together from the slots that the learner saw."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from polybeast_moe.envs.replay import Replay
from polybeast_moe.runtime.episode_recorder import EpisodeRecorder


def play_again(path: Path) -> int:
    """Plays a replay; its own check holds score, return, length, depth, turns and end against the record."""
    replay = Replay.load(path)
    steps = list(replay.play(("blstats",)))
    assert steps[-1].terminated or steps[-1].truncated
    assert replay.record["length"] == len(replay.actions) == len(steps) - 1
    return int(replay.record["score"])


def test_the_best_episodes_of_a_run_play_again(make_config, start_inline, tmp_path: Path) -> None:
    config = make_config("env.max_episode_steps=21", "runtime.unroll=8", "runtime.games_per_group=3")  # ends off slots
    runtime = start_inline(config)
    recorder = EpisodeRecorder(config.env, tmp_path / "replays", 4, pytest.fail)
    everything = EpisodeRecorder(config.env, tmp_path / "all", 10_000, pytest.fail)
    late = EpisodeRecorder(config.env, tmp_path / "late", 10_000, pytest.fail)
    scores = []
    for batch in range(16):
        rollouts = runtime.collect()
        recorder.add(rollouts)
        everything.add(rollouts)
        if batch:
            late.add(rollouts)  # in the middle of an episode of every game, as after a resumption
        scores += [episode["score"] for rollout in rollouts for episode in rollout.episodes()]
        runtime.give_back(rollouts)
    assert len(scores) > 20
    kept = sorted(map(play_again, (tmp_path / "replays").iterdir()))
    assert kept == sorted(scores)[-4:]
    assert Counter(map(play_again, (tmp_path / "all").iterdir())) == Counter(scores)
    unseen = {path.name for path in (tmp_path / "all").iterdir()} - {
        path.name for path in (tmp_path / "late").iterdir()
    }
    assert len(unseen) == 6  # those under way in the first batch, one of each game


def test_a_later_start_keeps_the_best_of_both(make_config, start_inline, tmp_path: Path) -> None:
    config, kept = make_config(), []
    for start in range(2):
        runtime = start_inline(config, first_episode=start * 1000)
        recorder = EpisodeRecorder(config.env, tmp_path / "replays", 3, pytest.fail)
        scores = list(kept)
        for _ in range(12):
            rollouts = runtime.collect()
            recorder.add(rollouts)
            scores += [int(episode["score"]) for rollout in rollouts for episode in rollout.episodes()]
            runtime.give_back(rollouts)
        kept = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "replays").iterdir())
        assert kept == sorted(scores)[-3:]


def test_what_a_dead_actor_had_begun_is_in_no_replay(start_runtime, make_config, tmp_path: Path) -> None:
    runtime = start_runtime("runtime.actors=1")
    recorder = EpisodeRecorder(make_config().env, tmp_path / "replays", 10_000, pytest.fail)
    episodes = 0
    for batch in range(24):
        rollouts = runtime.collect()
        recorder.add(rollouts)
        episodes += sum(len(rollout.episodes()) for rollout in rollouts)
        runtime.give_back(rollouts)
        if batch in (3, 9):
            os.kill(runtime.supervisor.pids()["pbm-actor-0.0"], signal.SIGKILL)
    assert runtime.supervisor.restarts == 2
    assert len(list(map(play_again, (tmp_path / "replays").iterdir()))) == episodes > 6


def test_under_the_real_clock_and_without_room_nothing_is_kept(make_config, start_inline, tmp_path: Path) -> None:
    config = make_config("env.clock=real")
    runtime = start_inline(config)
    pinned = make_config().env
    (tmp_path / "file").write_text("in the way of a folder")
    said: list[str] = []
    recorders = [
        EpisodeRecorder(config.env, tmp_path / "replays", 10, said.append),
        EpisodeRecorder(pinned, tmp_path / "replays", 0, said.append),
        EpisodeRecorder(pinned, tmp_path / "file" / "replays", 10, said.append),
    ]
    for _ in range(8):
        rollouts = runtime.collect()
        for recorder in recorders:
            recorder.add(rollouts)
        runtime.give_back(rollouts)
    assert not (tmp_path / "replays").exists()
    assert said
    assert all("no replay of an episode of score" in line for line in said)
