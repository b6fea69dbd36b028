"""Replays: a few kilobytes play an episode again, wherever and whenever."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from polybeast_moe.envs import NetHackVectorEnv, RecordReplays, Replay, ReplayError
from polybeast_moe.envs.replay import BestReplays

CLOCK = 1_600_000_000
KEYS = ("glyphs", "blstats", "message", "inv_strs")

PLAY = """\
import hashlib, sys
from polybeast_moe.envs import Replay
digest = hashlib.sha256()
for step in Replay.load(sys.argv[1]).play(("glyphs", "blstats", "message", "inv_strs")):
    for array in step.observation.values(): digest.update(array.tobytes())
    digest.update(repr(step.reward).encode())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, str]]:
    """A folder of replays, and by core seed what the episodes looked like when they were played."""
    folder = tmp_path_factory.mktemp("replays")
    base = NetHackVectorEnv(
        "NetHackScore-v0", 4, observation_keys=KEYS, clock=CLOCK, max_episode_steps=1200, penalty_mode="square"
    )
    env = RecordReplays(base, folder, keep=3)
    rng = np.random.default_rng(1)
    digests = [hashlib.sha256() for _ in range(4)]
    seen: dict[int, str] = {}
    observation, _ = env.reset(seed=5)
    reward, ended = np.zeros(4), np.zeros(4, dtype=bool)
    for _ in range(2500):
        for game in range(4):
            if ended[game]:  # what is seen is the last of an episode; the next step begins another
                digests[game] = hashlib.sha256()
                continue
            for array in observation.values():
                digests[game].update(array[game].tobytes())
            digests[game].update(repr(float(reward[game])).encode())
        seeds = base.seeds()
        observation, reward, terminated, _, _ = env.step(rng.integers(23, size=4))
        for game in np.flatnonzero(terminated).tolist():
            last = digests[game].copy()
            for array in observation.values():
                last.update(array[game].tobytes())
            last.update(repr(float(reward[game])).encode())
            seen[seeds[game][0]] = last.hexdigest()
        ended = terminated
    env.close()
    return folder, seen


def test_the_best_episodes_are_kept(recorded: tuple[Path, dict[int, str]]) -> None:
    folder, seen = recorded
    files = sorted(folder.iterdir())
    assert len(files) == 3
    assert len(seen) > 3
    assert all(path.stat().st_size < 8192 for path in files)
    assert max(len(Replay.load(path).actions) for path in files) > 500


def test_a_replay_reproduces_every_step_at_another_time_and_place(recorded: tuple[Path, dict[int, str]]) -> None:
    """Played in another process, in another time zone, under a system clock half a year on."""
    folder, seen = recorded
    clock = folder.parent / "other_clock.so"
    source = "#include <time.h>\ntime_t time(time_t *o) { if (o) *o = 1615555555; return 1615555555; }\n"
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", clock], input=source, text=True, check=True)
    preloaded = f"{os.environ.get('LD_PRELOAD', '')} {clock}"  # after a sanitizer's runtime, which must be first
    for path in folder.glob("*.replay"):
        played = subprocess.run(
            [sys.executable, "-c", PLAY, path],
            env={**os.environ, "LD_PRELOAD": preloaded, "TZ": "Pacific/Kiritimati"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert played.stdout.strip() == seen[Replay.load(path).seeds[0]]


def test_an_episode_that_comes_out_otherwise_is_an_error(recorded: tuple[Path, dict[int, str]]) -> None:
    replay = Replay.load(next(recorded[0].glob("*.replay")))
    other = Replay(replay.task, replay.options, (1, 2, None), replay.clock, replay.actions[:50], 0, replay.record)
    with pytest.raises(ReplayError, match="instead of"):
        list(other.play(("blstats",)))


def test_saving_and_loading_keep_everything(tmp_path: Path) -> None:
    replay = Replay(
        "NetHackScout-v0", {"character": "@"}, (2**63 + 1, 2, 3), 5, np.arange(9, dtype=np.uint8), 4, {"score": 7}
    )
    replay.save(tmp_path / "a.replay")
    loaded = Replay.load(tmp_path / "a.replay")
    assert np.array_equal(loaded.actions, replay.actions)
    assert (loaded.task, loaded.options, loaded.seeds, loaded.clock) == (replay.task, replay.options, replay.seeds, 5)
    assert (loaded.frozen_steps, loaded.record) == (4, {"score": 7})
    assert [path.name for path in tmp_path.iterdir()] == ["a.replay"]


def test_files_that_are_no_replays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="No such file"):
        Replay.load(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ReplayError, match="not a replay"):
        Replay.load(tmp_path / "text")
    for header in (b'{"task": "NetHackScore-v0"', b'"words"\n' + zlib.compress(b"")):
        (tmp_path / "cut").write_bytes(b"polybeast_moe replay 1\n" + header)
        with pytest.raises(ReplayError, match="broken"):
            Replay.load(tmp_path / "cut")


def test_the_best_of_none_is_none(tmp_path: Path) -> None:
    assert not BestReplays(tmp_path, keep=0).wants(1_000)
    assert BestReplays(tmp_path, keep=1).wants(0)


def test_the_real_clock_cannot_be_recorded(tmp_path: Path) -> None:
    env = NetHackVectorEnv("NetHackScore-v0", 1, observation_keys=("blstats",))
    with pytest.raises(ValueError, match="pinned clock"):
        RecordReplays(env, tmp_path)
    env.close()
