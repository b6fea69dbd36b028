"""The engine against NLE's own NetHackScore: same seeds, actions and clock, same everything, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def pinned_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload: NLE reads `time` from the C library, and only a preloaded one can pin it there."""
    library = tmp_path_factory.mktemp("clock") / "pinned_clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", HERE / "pinned_clock.c", "-o", library], check=True)
    return library


@pytest.mark.parametrize(
    ("seed", "steps", "max_episode_steps", "character"),
    [
        (3, 6000, 500, "mon-hum-neu-mal"),
        (4, 6000, 100_000, "val-hum-neu-fem"),
        (5, 5000, 300, "@"),
    ],
)
def test_every_step_equals_nle(
    pinned_clock: Path, seed: int, steps: int, max_episode_steps: int, character: str
) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "oracle.py", str(seed), str(steps), str(max_episode_steps), character],
        env={**os.environ, "LD_PRELOAD": str(pinned_clock)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compared, episodes = map(int, done.stdout.split())
    assert compared == steps
    assert episodes >= 3
