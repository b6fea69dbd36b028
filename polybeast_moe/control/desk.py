"""Where orders meet the trainer: what each command does, in terms of the few things that a trainer can be asked."""

from __future__ import annotations

import os
import socket
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import with_overrides
from polybeast_moe.control.protocol import Command
from polybeast_moe.control.server import ControlServer, Order
from polybeast_moe.errors import UserError
from polybeast_moe.learning import operator
from polybeast_moe.learning.operator import Changer


class Controlled(Protocol):
    """What the trainer lets an operator do. Each is called between two steps, in the trainer's own thread."""

    def status(self) -> dict[str, Any]:
        """Returns what status shows, as JSON holds it."""

    def let_play(self, on: bool) -> None:
        """Lets the games go on, or stops them."""

    def stop(self) -> None:
        """Ends the run after a snapshot."""

    def take_snapshot(self, kind: str) -> Future[Path]:
        """Takes a snapshot; the future holds its path once it is on the disk, or an OSError."""

    def change(self, changer: Changer) -> None:
        """Changes what the phase controller decides. Raises UserError, changing nothing."""


class Desk:
    """Obeys the orders that have come to a server. `paused` is what an operator has asked for last."""

    def __init__(self, server: ControlServer, trainer: Controlled, config: RunConfig) -> None:
        self.paused = False
        self._server = server
        self._trainer = trainer
        self._config = config

    def serve(self) -> None:
        """Obeys whatever has come; cheap when nothing has."""
        for order in self._server.take():
            try:
                self._obey(order)
            except Exception as error:  # an order that goes wrong is refused; the run goes on
                order.reply.set_exception(error)

    def close(self) -> None:
        """Stops listening."""
        self._server.close()

    def _obey(self, order: Order) -> None:
        command, trainer = order.command, self._trainer
        match command.name:
            case "status":
                order.reply.set_result(self._status())
                return
            case "snapshot":
                trainer.take_snapshot("operator").add_done_callback(lambda written: _tell(order, written))
                return
            case "pause" | "resume":
                self._pause(command.name == "pause")
            case "stop":
                trainer.stop()
            case "set":
                trainer.change(operator.hold(command.key, command.value, self._allowed))
            case "release":
                trainer.change(operator.release(command.key))
            case "next-phase":
                trainer.change(operator.next_phase())
        order.reply.set_result(_done(command, self._status()))

    def _pause(self, on: bool) -> None:
        if on != self.paused:
            self._trainer.change(operator.pause(on))
            self._trainer.let_play(not on)
        self.paused = on

    def _allowed(self, overrides: list[str]) -> None:
        changed = with_overrides(self._config, overrides)
        if changed.stores_reward_terms() and not self._config.stores_reward_terms():
            raise UserError(
                "rollouts of this run store no reward terms, because no phase weighs one: give one a weight with resume"
            )

    def _status(self) -> dict[str, Any]:
        return {
            **self._trainer.status(),
            "paused": self.paused,
            "run_directory": str(self._server.run_dir),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }


def _done(command: Command, status: dict[str, Any]) -> dict[str, Any]:
    """What is true now, as far as the command concerns it."""
    keys = {"pause": ["paused"], "resume": ["paused"], "stop": ["stopping"], "next-phase": ["phase"]}
    return {key: status[key] for key in keys.get(command.name, ["phase", "holds"])}


def _tell(order: Order, written: Future[Path]) -> None:
    try:
        order.reply.set_result({"snapshot": str(written.result())})
    except OSError as error:
        order.reply.set_exception(UserError(f"no snapshot: {error}"))
    except Exception as error:  # a fault of the trainer's: whoever waits is told of it, too
        order.reply.set_exception(error)
