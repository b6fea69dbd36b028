"""Commands as files, for where no socket can be reached: another machine that shares the run directory.

    RUN_DIR/control/ID.command      written by the operator under another name, then renamed
    RUN_DIR/control/ID.reply        written by the trainer in the same way

The folder exists while a trainer listens. A file is never seen half-written, and one that is not an ordinary file of
the trainer's own user is removed unread. Root may command too: what it writes it gives to that user.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from polybeast_moe.control.protocol import LONGEST_COMMAND, LONGEST_REPLY
from polybeast_moe.errors import UserError

FOLDER = "control"
_COMMAND, _REPLY = ".command", ".reply"
_POLL_SECONDS = 0.1
_FETCHING_SECONDS = 1.0  # that replies stay for, once nobody listens any more


def open_inbox(run_dir: Path) -> Path:
    """Makes an empty folder for commands: what lies there was meant for an earlier trainer."""
    folder = run_dir / FOLDER
    _remove(folder)
    folder.mkdir(mode=0o700)
    return folder


def close_inbox(run_dir: Path) -> None:
    """Removes the folder: nobody listens any more. Replies may be fetched for a moment before."""
    folder = run_dir / FOLDER
    deadline = time.monotonic() + _FETCHING_SECONDS
    while any(folder.glob(f"*{_REPLY}")) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    _remove(folder)


def commands_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Takes every command out of the folder; yields its ID and content."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(_COMMAND))
    except OSError:
        return
    for name in names:
        content = _take(folder / name)
        if content is not None:
            yield name.removesuffix(_COMMAND), content


def answer(folder: Path, identity: str, reply: bytes) -> None:
    """Leaves a reply for whoever sent the command."""
    _publish(folder, identity + _REPLY, reply)


def ask(run_dir: Path, message: bytes, patience: float) -> bytes:
    """Leaves a command and waits for its reply.

    Raises:
        UserError: nobody listens, the trainer is another user's, it ends, or nobody answers within `patience` seconds;
            the command is then withdrawn.
    """
    folder = run_dir / FOLDER
    identity = secrets.token_hex(8)
    try:
        owner = folder.stat().st_uid
        _publish(folder, identity + _COMMAND, message, owner)
    except PermissionError:
        raise UserError(f"run directory {run_dir}: its trainer is another user's") from None
    except OSError:
        raise UserError(f"run directory {run_dir}: nobody is training there") from None
    reply = folder / (identity + _REPLY)
    deadline = time.monotonic() + patience
    try:
        while time.monotonic() < deadline:
            content = _take(reply, LONGEST_REPLY, owner)
            if content is not None:
                return content
            if not folder.exists():
                raise UserError(f"run directory {run_dir}: its trainer has ended")
            time.sleep(_POLL_SECONDS)
    finally:
        for file in (folder / (identity + _COMMAND), reply):
            file.unlink(missing_ok=True)
    raise UserError(f"run directory {run_dir}: nobody answers; its trainer may have been killed")


def _publish(folder: Path, name: str, content: bytes, owner: int | None = None) -> None:
    """Makes a file of that content, whole or not at all; root makes it the `owner`'s."""
    aside = folder / f".{name}"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if owner is not None and os.getuid() == 0:
            os.fchown(descriptor, owner, -1)
        file.write(content)
    aside.rename(folder / name)


def _take(path: Path, longest: int = LONGEST_COMMAND, owner: int | None = None) -> bytes | None:
    """Reads and removes a file of this user, root or the `owner`; None when there is none, or it is something else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError:
        _discard(path)
        return None
    try:
        facts = os.fstat(descriptor)
        ours = stat.S_ISREG(facts.st_mode) and facts.st_uid in (os.getuid(), 0, owner)
        return _read(descriptor, longest + 1) if ours else None
    except OSError:
        return None
    finally:
        os.close(descriptor)
        _discard(path)


def _read(descriptor: int, most: int) -> bytes:
    content = b""
    while len(content) < most and (more := os.read(descriptor, most - len(content))):
        content += more
    return content


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
