"""A folder for games belongs to one start; those of killed runs are swept, whatever two starts do at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from polybeast_moe.envs.games_folder import GamesFolder, sweep
from polybeast_moe.errors import UserError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_owner(temporary: Path) -> None:
    with GamesFolder("games-") as folder:
        (folder.path / "game-0").mkdir()
        assert list(temporary.iterdir()) == [folder.path]
        sweep("games-")  # another start
        assert (folder.path / "game-0").is_dir()
    assert not list(temporary.iterdir())
    folder.remove()  # twice does no harm
    dropped = GamesFolder("games-")
    del dropped
    assert not list(temporary.iterdir())


def test_what_a_killed_process_left_is_swept_and_nothing_else(temporary: Path) -> None:
    script = (
        "import signal; from polybeast_moe.envs.games_folder import GamesFolder;"
        "folder = GamesFolder('games-'); print(folder.path, flush=True); signal.pause()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(temporary)}, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        (left / "game-0").mkdir()
        (temporary / "of somebody else").mkdir()
        sweep("games-")
        assert left.is_dir()
        owner.send_signal(signal.SIGKILL)
    with GamesFolder("games-") as folder:
        assert sorted(temporary.iterdir()) == sorted([folder.path, temporary / "of somebody else"])


@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked"])
def test_another_start_may_sweep_a_folder_that_is_made_but_not_locked(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    module, name = (tempfile, "mkdtemp") if moment == "before it is opened" else (os, "open")
    genuine, swept = getattr(module, name), []

    def interrupted(*arguments, **options):
        result = genuine(*arguments, **options)
        if not swept:
            swept.append(result)
            monkeypatch.setattr(module, name, genuine)
            sweep("games-")
            assert not list(temporary.iterdir())
        return result

    monkeypatch.setattr(module, name, interrupted)
    with GamesFolder("games-") as folder:
        assert swept
        assert list(temporary.iterdir()) == [folder.path]
        sweep("games-")
        assert folder.path.is_dir()


def test_no_room_is_one_line_that_names_the_way_out(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "nowhere"))
    with pytest.raises(UserError, match=r"nowhere: the games' folder cannot be made: .*; set TMPDIR"):
        GamesFolder("games-")
