"""Where orders meet the trainer: what each command does, in terms of the few things that a trainer can be asked."""

from __future__ import annotations

import os
import socket
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import with_overrides
from polybeast_moe.control.server import ControlServer, Order
from polybeast_moe.errors import UserError
from polybeast_moe.learning import live_changes
from polybeast_moe.learning.live_changes import Changer


class Controlled(Protocol):
    """What the trainer lets a human operator do. Each is called between two steps, in the trainer's own thread."""

    def status(self) -> dict[str, Any]:
        """Returns what status shows, as JSON holds it."""

    def let_play(self, on: bool) -> None:
        """Lets the games go on, or stops them."""

    def stop(self) -> None:
        """Ends the run after a snapshot."""

    def take_snapshot(self, kind: str) -> Future[Path]:
        """Takes a snapshot; the future holds its path once it is on the disk, or an OSError."""

    def change(self, changer: Changer) -> Future[Path] | None:
        """Changes what the phase controller decides. Raises UserError, changing nothing.

        The future is as `take_snapshot`'s, of the snapshot that makes the change survive; None: nothing has to.
        """


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
            case "snapshot":
                written = trainer.take_snapshot("operator")
                written.add_done_callback(lambda done: _answer(order, done, "no snapshot"))
            case "set":
                self._change(order, live_changes.hold(command.key, command.value, self._allowed))
            case "release":
                self._change(order, live_changes.release(command.key))
            case "next-phase":
                self._change(order, live_changes.next_phase())
            case "pause" | "resume":
                self._pause(command.name == "pause")
                order.reply.set_result({"paused": self.paused})
            case "stop":
                trainer.stop()
                order.reply.set_result({"stopping": True})

    def _change(self, order: Order, changer: Changer) -> None:
        """Changes what the phase controller decides; the answer comes once that is in a snapshot on the disk."""
        written = self._trainer.change(changer)
        status = self._status()
        keys = ("phase",) if order.command.name == "next-phase" else ("phase", "holds")
        result = {key: status[key] for key in keys}
        if written is None:
            order.reply.set_result(result)
        else:
            lost = f"{order.command.name} is in force, but in no snapshot: a resume may not know of it"
            written.add_done_callback(lambda done: _answer(order, done, lost, result))

    def _pause(self, on: bool) -> None:
        if on != self.paused:
            self._trainer.change(live_changes.pause(on))
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


def _answer(order: Order, written: Future[Path], otherwise: str, result: dict[str, Any] | None = None) -> None:
    """Answers with `result`, by default the snapshot's path, or says `otherwise` and why it was not written."""
    try:
        path = written.result()
    except OSError as error:
        order.reply.set_exception(UserError(f"{otherwise}: {error}"))
    except Exception as error:  # a fault of the trainer's: whoever waits is told of it, too
        order.reply.set_exception(error)
    else:
        order.reply.set_result(result if result is not None else {"snapshot": str(path)})
