"""The folder that holds the files of a run's games while it goes on."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import IO

from polybeast_moe.errors import UserError

_PREFIX = "polybeast-moe-"


def make_games_folder() -> tuple[Path, IO[bytes]]:
    """Makes an empty folder for the games' files, and sweeps those that killed runs have left.

    A folder is in use as long as somebody holds the lock on the file inside it, which the kernel releases with the
    process.
    """
    root = Path(tempfile.gettempdir())
    for leftover in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (leftover / "lock").open("rb") as its_lock:
            fcntl.flock(its_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
    try:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = (directory / "lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise UserError(f"{root}: the games' folder cannot be made: {error.strerror}; set TMPDIR") from None
    return directory, lock
