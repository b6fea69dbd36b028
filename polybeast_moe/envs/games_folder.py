"""Temporary folders for NetHack's files: locked while in use, swept by the next start when a run was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from polybeast_moe.errors import UserError


class GamesFolder:
    """An empty folder of its own, removed by `remove`, at the end of a `with`, or with the object.

    It is in use as long as somebody holds the lock on it, which the kernel releases with the process.
    """

    def __init__(self, prefix: str) -> None:
        """Makes the folder below the system's temporary directory and removes unused ones of the same prefix.

        Raises:
            UserError: it cannot be made.
        """
        try:
            sweep(prefix)
            self.path, lock = _make(prefix)
        except OSError as error:
            root = tempfile.gettempdir()
            raise UserError(f"{root}: the games' folder cannot be made: {error.strerror}; set TMPDIR") from None
        self._remove = weakref.finalize(self, _remove, self.path, lock)

    def remove(self) -> None:
        """Removes the folder and what is in it. Safe to call twice."""
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def sweep(prefix: str) -> None:
    """Removes folders of that prefix which nobody has locked: killed runs have left them."""
    for leftover in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            lock = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(lock)


def _make(prefix: str) -> tuple[Path, int]:
    """Makes a folder and locks it; another start may sweep it between the two, and then there is another try."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for somebody who is sweeping it
        if path.exists():
            return path, lock
        os.close(lock)


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)
