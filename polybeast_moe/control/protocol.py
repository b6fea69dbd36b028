"""Messages of live control: commands and replies, one JSON object a line, every length and type checked.

A command is ``{"command": "set", "key": "router_temperature", "value": 0.3}``; the reply is
``{"ok": true, "result": {...}}`` or ``{"ok": false, "error": "one line"}``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from polybeast_moe.errors import UserError, nearest

LONGEST_COMMAND = 4096  # bytes, the newline included
LONGEST_REPLY = 1 << 20

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "status": (),
    "pause": (),
    "resume": (),
    "snapshot": (),
    "stop": (),
    "set": ("key", "value"),
    "release": ("key",),
    "next-phase": (),
}
"""Every command, and the names of what goes with it."""


@dataclass(frozen=True)
class Command:
    """One wish of an operator, of the right form; whether it can be granted is the trainer's to say."""

    name: str
    key: str = ""
    value: float = 0.0

    def encode(self) -> bytes:
        """Returns the message, its newline included."""
        content = {"command": self.name, **{name: getattr(self, name) for name in ARGUMENTS[self.name]}}
        return json.dumps(content).encode() + b"\n"


def parse_command(message: bytes) -> Command:
    """Reads one message.

    Raises:
        UserError: it is too long, no JSON object, or not a command of the right form.
    """
    if len(message) > LONGEST_COMMAND:
        raise UserError(f"a command has at most {LONGEST_COMMAND} bytes")
    content = _object(message)
    name = content.pop("command", None)
    if not isinstance(name, str) or name not in ARGUMENTS:
        raise UserError(f"unknown command{nearest(name if isinstance(name, str) else '', ARGUMENTS)}")
    wanted = ARGUMENTS[name]
    if content.keys() != set(wanted):
        raise UserError(f"{name} goes with {' and '.join(wanted) or 'nothing else'}")
    return Command(name, _key(content.get("key", "-")), _number(content.get("value", 0.0)))


def encode_reply(result: Any = None, error: str | None = None) -> bytes:
    """Returns a reply, its newline included."""
    if error is not None:
        content = {"ok": False, "error": " ".join(error.split())}
    else:
        content = {"ok": True, "result": result if result is not None else {}}
    return json.dumps(content).encode() + b"\n"


def parse_reply(message: bytes) -> dict[str, Any]:
    """Returns the result of a reply.

    Raises:
        UserError: it is a refusal, whose words these are, or no reply at all.
    """
    if len(message) > LONGEST_REPLY:
        raise UserError("the answer is too long to be one")
    content = _object(message)
    if content.get("ok") is True and isinstance(content.get("result"), dict):
        result: dict[str, Any] = content["result"]
        return result
    error = content.get("error")
    raise UserError(error if isinstance(error, str) else "the answer is not one of a trainer")


def _object(message: bytes) -> dict[str, Any]:
    try:
        content = json.loads(message.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # not UTF-8, no JSON, thousands of brackets or digits
        raise UserError("not a JSON object on a line") from None
    if not isinstance(content, dict):
        raise UserError("not a JSON object on a line")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _key(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 100 or not value.isprintable():
        raise UserError("key must be a name")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError("value must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError("value must be a finite number")
    return number
