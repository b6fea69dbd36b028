"""The human operator's end of live control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polybeast_moe.control import address, inbox
from polybeast_moe.control.protocol import LONGEST_REPLY, Command, parse_reply
from polybeast_moe.errors import UserError

_PATIENCE = 130.0  # of the socket: a little more than the server's own
_INBOX_PATIENCE = 20.0


def send(run_dir: Path, command: Command, *, use_inbox: bool = False) -> dict[str, Any]:
    """Has the trainer of a run obey a command; returns its result.

    The socket is tried first; where nobody can be reached (another machine), the inbox of the run directory.

    Raises:
        UserError: the command is refused, or nobody is training there.
    """
    end = None if use_inbox else address.connect(run_dir, _PATIENCE)
    if end is None:
        return parse_reply(inbox.ask(run_dir, command.encode(), _INBOX_PATIENCE))
    try:
        with end, end.makefile("rb") as stream:
            end.sendall(command.encode())
            line = stream.readline(LONGEST_REPLY + 1)
    except OSError as error:
        raise UserError(f"run directory {run_dir}: its trainer went away: {error}") from None
    if not line:
        raise UserError(f"run directory {run_dir}: its trainer went away")
    return parse_reply(line)
