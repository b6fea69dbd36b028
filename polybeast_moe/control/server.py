"""The trainer's end of live control: threads that take messages, and orders that the trainer fetches between steps.

Nothing that comes in can harm the trainer: lengths and types are checked here, strangers are turned away, and whatever
goes wrong with one message is the answer to it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polybeast_moe.control import address, inbox
from polybeast_moe.control.protocol import LONGEST_COMMAND, Command, encode_reply, parse_command
from polybeast_moe.errors import UserError

_PATIENCE = 120.0  # seconds for the trainer to answer: an update, or a snapshot on a slow disk
_READ_SECONDS = 5.0
_LOOK_SECONDS = 0.2  # between looks into the inbox
_MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Order:
    """A command that waits for the trainer; set `reply` to its result, or to the UserError that refuses it."""

    command: Command
    reply: Future[dict[str, Any]] = field(default_factory=Future)


class ControlServer:
    """Listens while a run is going on. `take` gives the trainer what operators want, in the order it came."""

    def __init__(self, run_dir: Path, private: Path, log: Callable[[str], None]) -> None:
        """Listens on the run directory's socket (or one in the folder `private`) and in its inbox.

        What cannot be opened is told through `log`, and the run goes without it.
        """
        self.run_dir = run_dir
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._guests = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._socket: socket.socket | None = None
        self._inbox: Path | None = None
        threads = []
        try:
            self._socket, self._path = address.listen(run_dir, private)
            self._socket.settimeout(_LOOK_SECONDS)
            threads.append(threading.Thread(target=self._listen, args=(self._socket,), daemon=True, name="control"))
        except OSError as error:
            log(f"no control socket: {error}")
        try:
            self._inbox = inbox.open_inbox(run_dir)
            threads.append(threading.Thread(target=self._read_inbox, args=(self._inbox,), daemon=True, name="inbox"))
        except OSError as error:
            log(f"no inbox for commands: {error}")
        self._threads = threads
        for thread in threads:
            thread.start()

    def take(self) -> Iterator[Order]:
        """Yields the orders that have come."""
        while True:
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                return
            if order.reply.set_running_or_notify_cancel():
                yield order

    def close(self) -> None:
        """Stops listening; who still waits for an answer is told that the run has ended. Safe to call twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        for order in self.take():
            order.reply.set_exception(UserError("the run has ended"))
        for thread in self._threads:
            thread.join(2.0)
        if self._socket is not None:
            self._socket.close()
            address.forget(self.run_dir, self._path)
        inbox.close_inbox(self.run_dir)

    def _listen(self, socket_: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                guest, _ = socket_.accept()
            except TimeoutError:
                continue
            except OSError:  # out of descriptors, for example
                self._closed.wait(_LOOK_SECONDS)
                continue
            if self._guests.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(guest,), daemon=True, name="guest").start()
            else:
                guest.close()

    def _serve(self, guest: socket.socket) -> None:
        """Answers one connection's messages until it closes, or says nothing for a while."""
        try:
            with guest, contextlib.suppress(OSError):
                guest.settimeout(_READ_SECONDS)
                if _user_of(guest) not in (os.getuid(), 0):
                    guest.sendall(encode_reply(error="this run is another user's"))
                    return
                with guest.makefile("rb") as stream:
                    while line := stream.readline(LONGEST_COMMAND + 1):
                        guest.sendall(self._handle(line))
                        if not line.endswith(b"\n"):
                            return
        finally:
            self._guests.release()

    def _read_inbox(self, folder: Path) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            for identity, message in inbox.commands_in(folder):
                with contextlib.suppress(OSError):
                    inbox.answer(folder, identity, self._handle(message))

    def _handle(self, message: bytes) -> bytes:
        """Has one message obeyed; returns the reply."""
        try:
            order = Order(parse_command(message))
            self._orders.put(order)
            if self._closed.is_set() and order.reply.cancel():  # else it is one of those that `close` tells
                raise UserError("the run has ended")
            return encode_reply(order.reply.result(_PATIENCE))
        except UserError as error:
            return encode_reply(error=str(error))
        except TimeoutError:
            order.reply.cancel()
            return encode_reply(error=f"the trainer did not answer within {_PATIENCE:.0f} s")
        except Exception as error:  # one bad order must not end the thread
            return encode_reply(error=f"{type(error).__name__}: {error}")


def _user_of(guest: socket.socket) -> int:
    """The user at the other end, as the kernel knows it (SO_PEERCRED of unix(7))."""
    _, user, _ = struct.unpack("3i", guest.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(user)
