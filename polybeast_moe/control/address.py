"""Where a run's control socket is: in the run directory, or named there when it had to go elsewhere.

A Unix socket's path has at most 107 bytes, and some network file systems hold no sockets. Then `control.sock` is a
small file with the path of a socket in a private folder of the machine that trains.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from polybeast_moe.errors import UserError

FILE_NAME = "control.sock"
_LONGEST = 107  # sun_path of sys/un.h, its terminating zero aside


def listen(run_dir: Path, private: Path) -> tuple[socket.socket, Path]:
    """Opens the socket, for its owner alone; returns it with its path.

    `private` is a folder of this process, where the socket goes when the run directory cannot hold it.

    Raises:
        OSError: neither place can.
    """
    place = run_dir.absolute() / FILE_NAME
    _remove(place)
    with contextlib.suppress(OSError):
        return _bound(place), place
    elsewhere = private / FILE_NAME
    bound = _bound(elsewhere)
    aside = place.with_name(f".{FILE_NAME}")
    aside.write_text(f"{elsewhere}\n")
    aside.replace(place)
    return bound, elsewhere


def forget(run_dir: Path, path: Path) -> None:
    """Removes the socket and the file that names it."""
    for file in {path, run_dir.absolute() / FILE_NAME}:
        with contextlib.suppress(OSError):
            file.unlink()


def connect(run_dir: Path, timeout: float) -> socket.socket | None:
    """Connects to the run's trainer; None when there is nobody at the other end.

    Raises:
        UserError: the socket is another user's.
    """
    path = _socket_of(run_dir.absolute() / FILE_NAME)
    if path is None:
        return None
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end.settimeout(timeout)
    try:
        facts = path.lstat()
        if not stat.S_ISSOCK(facts.st_mode):
            raise OSError("no socket")
        if facts.st_uid not in (os.getuid(), 0) and os.getuid() != 0:
            raise UserError(f"{path}: the socket is another user's")
        end.connect(_reachable(path))
    except OSError:
        end.close()
        return None
    except UserError:
        end.close()
        raise
    return end


def _socket_of(place: Path) -> Path | None:
    try:
        facts = place.lstat()
        if stat.S_ISREG(facts.st_mode) and facts.st_size < 4096:
            return Path(place.read_text().rstrip("\n"))
    except (OSError, ValueError):
        return None
    return place


def _reachable(path: Path) -> str:
    text = str(path)
    if len(os.fsencode(text)) > _LONGEST or "\0" in text:
        raise OSError("too long for a socket")
    return text


def _bound(path: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(end.fileno(), 0o600)  # before bind, which makes the file: at no moment is it anybody else's
        end.bind(_reachable(path))
        path.chmod(0o600)
        end.listen(8)
    except OSError:
        end.close()
        raise
    return end


def _remove(place: Path) -> None:
    """Removes what a killed trainer left."""
    with contextlib.suppress(OSError):
        place.unlink()
