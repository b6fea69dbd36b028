"""The command `polybeast-moe control`: words in, an answer out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polybeast_moe.control.client import send
from polybeast_moe.control.protocol import ARGUMENTS, Command, parse_command
from polybeast_moe.errors import UserError, nearest


def control(run_dir: Path, words: Sequence[str], *, as_json: bool, use_inbox: bool) -> int:
    """Has a run's trainer obey, prints its answer and returns the exit code.

    Raises:
        UserError: the words are no command, the trainer refuses, or there is none.
    """
    command = command_of(words)
    if not run_dir.is_dir():
        raise UserError(f"run directory {run_dir}: does not exist")
    result = send(run_dir, command, use_inbox=use_inbox)
    print(json.dumps(result) if as_json else "\n".join(f"{key:<24}{_text(value)}" for key, value in result.items()))
    return 0


def command_of(words: Sequence[str]) -> Command:
    """Returns the command that the words of a command line say.

    Raises:
        UserError: they say none.
    """
    name, *rest = words
    if name not in ARGUMENTS:
        raise UserError(f"control: unknown command {name!r}{nearest(name, ARGUMENTS)}")
    wanted = ARGUMENTS[name]
    if len(rest) != len(wanted):
        raise UserError(f"control: {' '.join([name, *(word.upper() for word in wanted)])} it must be")
    content: dict[str, Any] = {"command": name, **dict(zip(wanted, rest, strict=True))}
    if "value" in content:
        try:
            content["value"] = float(content["value"])
        except ValueError:
            raise UserError(f"control: {content['value']!r} is no number") from None
    return parse_command(json.dumps(content).encode())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    return "-" if value is None else str(value)
