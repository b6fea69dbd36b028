"""The server's side of live control: whoever says whatever, it answers, and goes on answering."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import waiting
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import PATIENCE, wait_until

import polybeast_moe
from polybeast_moe.control import client, inbox
from polybeast_moe.control.command import command_of
from polybeast_moe.control.desk import Desk
from polybeast_moe.control.protocol import (
    ARGUMENTS,
    LONGEST_COMMAND,
    Command,
    parse_command,
    parse_reply,
)
from polybeast_moe.control.server import ControlServer
from polybeast_moe.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from([*ARGUMENTS, "sett", ""]) | JSON
ALMOST = st.fixed_dictionaries({}, optional={"command": NAMES, "key": JSON, "value": JSON, "more": JSON})
MESSAGES = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | ALMOST.map(lambda value: json.dumps(value).encode())
)


def attempt(read, message: bytes):
    """What `read` makes of a message, and in what words it refuses. Anything but a UserError fails the test."""
    try:
        return read(message), ""
    except UserError as error:
        return None, str(error)


@given(MESSAGES)
def test_a_message_is_a_command_or_refused_in_one_line(message: bytes) -> None:
    command, refusal = attempt(parse_command, message)
    assert "\n" not in refusal
    assert command is None or parse_command(command.encode()) == command


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (b'{"command": "statsu"}', "unknown command; did you mean 'status'?"),
        (b'{"command": "set", "key": "t", "value": "0.3"}', "value must be a number"),
        (b'{"command": "set", "key": "t", "value": true}', "value must be a number"),
        (b'{"command": "set", "key": "t", "value": NaN}', "not a JSON object"),
        (b'{"command": "set", "key": "t", "value": 1e999}', "value must be a finite number"),
        (b'{"command": "set", "key": "t", "value": 1' + b"0" * 400 + b"}", "value must be a finite number"),
        (b'{"command": "set", "key": "t"}', "set goes with key and value"),
        (b'{"command": "status", "key": "t"}', "status goes with nothing else"),
        (b'{"command": "release", "key": ["t"]}', "key must be a name"),
        (b"[" * 3000, "not a JSON object"),
        (b"x" * 5000, "at most 4096 bytes"),
    ],
)
def test_what_is_wrong_is_said(message: bytes, wanted: str) -> None:
    with pytest.raises(UserError, match=wanted.replace("?", r"\?")):
        parse_command(message)


@pytest.mark.parametrize("words", [["set", "t"], ["set", "t", "hot"], ["statsu"], ["release"], ["status", "now"]])
def test_words_that_are_no_command_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="control: "):
        command_of(words)


class Trainer:
    """As much of a trainer as a desk needs: what it is asked for goes wrong in ways that nobody foresaw."""

    def status(self) -> dict[str, Any]:
        raise ZeroDivisionError("no status")

    def take_snapshot(self, kind: str) -> Future[Path]:
        failed: Future[Path] = Future()
        failed.set_exception(ValueError("weights of a kind that nobody knows"))
        return failed


@pytest.mark.parametrize(
    ("command", "wanted"), [("status", "ZeroDivisionError: no status"), ("snapshot", "ValueError: weights of a kind")]
)
def test_whatever_goes_wrong_with_an_order_is_its_answer_and_harms_nobody(
    make_config, tmp_path: Path, command: str, wanted: str
) -> None:
    (tmp_path / "private").mkdir()
    desk = Desk(ControlServer(tmp_path, tmp_path / "private", print), Trainer(), make_config())
    with ThreadPoolExecutor(1) as operator:
        answer = operator.submit(client.send, tmp_path, Command(command))
        try:
            wait_until(lambda: (desk.serve(), answer.done())[1])
        finally:
            desk.close()  # who still waits is told that the run has ended
        assert wanted in str(answer.exception())


class Changing(Trainer):
    """Takes any change; its snapshot is written when the test says so."""

    def __init__(self) -> None:
        self.snapshot: Future[Path] = Future()

    def status(self) -> dict[str, Any]:
        return {"phase": "warmup", "holds": {"router_temperature": 0.3}}

    def change(self, changer: object) -> Future[Path]:
        return self.snapshot


@pytest.mark.parametrize("disk", ["room", "full"])
def test_a_change_is_answered_once_its_snapshot_is_on_the_disk(make_config, tmp_path: Path, disk: str) -> None:
    """Who reads the answer knows that a run which dies now goes on with it; or is told that it would not."""
    trainer = Changing()
    desk = Desk(ControlServer(tmp_path, tmp_path, print), trainer, make_config())
    with ThreadPoolExecutor(1) as operator:
        answer = operator.submit(client.send, tmp_path, Command("set", "router_temperature", 0.3))
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            desk.serve()
            time.sleep(0.01)
        assert not answer.done()
        if disk == "room":
            trainer.snapshot.set_result(tmp_path / "step-000000000048")
            assert answer.result(10) == {"phase": "warmup", "holds": {"router_temperature": 0.3}}
        else:
            trainer.snapshot.set_exception(OSError("No space left on device"))
            assert "in force, but in no snapshot: a resume may not know of it: No space" in str(answer.exception(10))
        desk.close()


class Listening:
    """A server, and a thread that obeys it by saying what it was told."""

    def __init__(self, run_dir: Path, private: Path) -> None:
        self.said: list[str] = []
        self.server = ControlServer(run_dir, private, self.said.append)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._obey)
        self._thread.start()

    def _obey(self) -> None:
        while not self._over.wait(0.01):
            for order in self.server.take():
                if order.command.name == "stop":
                    order.reply.set_exception(UserError("no\nstopping"))
                elif order.command.name == "pause":
                    order.reply.set_exception(ZeroDivisionError("a fault of the trainer's"))
                else:
                    order.reply.set_result({"command": order.command.name, "value": order.command.value})

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.server.close()


@pytest.fixture(params=["short", "long"])
def listening(request, tmp_path: Path):
    """In a run directory whose path is short, and in one that is too long for a socket."""
    run_dir = tmp_path / ("run" if request.param == "short" else "r" * 120)
    private = tmp_path / "private"
    run_dir.mkdir()
    private.mkdir(mode=0o700)
    found = Listening(run_dir, private)
    yield found
    found.close()
    assert not list(run_dir.iterdir())
    assert not list(private.iterdir())


def test_a_command_is_obeyed_and_answered(listening) -> None:
    run_dir = listening.server.run_dir
    assert client.send(run_dir, Command("set", "t", 0.1 + 0.2)) == {"command": "set", "value": 0.1 + 0.2}
    assert client.send(run_dir, Command("set", "t", 1e-300), use_inbox=True)["value"] == 1e-300
    for use_inbox in (False, True):
        with pytest.raises(UserError, match="no stopping"):
            client.send(run_dir, Command("stop"), use_inbox=use_inbox)
        with pytest.raises(UserError, match="ZeroDivisionError: a fault"):
            client.send(run_dir, Command("pause"), use_inbox=use_inbox)
    assert client.send(run_dir, Command("status"))["command"] == "status"
    assert listening.said == []


def test_the_socket_is_its_owners_alone(listening) -> None:
    path = listening.server._path
    facts = path.lstat()
    assert stat.S_ISSOCK(facts.st_mode)
    assert stat.S_IMODE(facts.st_mode) == 0o600
    assert facts.st_uid == os.getuid()
    assert stat.S_IMODE((listening.server.run_dir / inbox.FOLDER).stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_stranger_is_turned_away(listening) -> None:
    """Even one who could open the socket."""
    listening.server._path.chmod(0o777)
    for folder in (listening.server._path, *listening.server._path.parents):
        if folder.is_dir() and folder.owner() == "root" and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)

    ask = """
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(where)
            assert b"another user's" in end.recv(1000)
    """
    assert as_nobody(ask, listening.server._path).wait() == 0


@pytest.fixture
def open_folder():
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def as_nobody(act: str, where: Path) -> subprocess.Popen[bytes]:
    """Starts a process that does something as another user, who may not read the package: it is imported before."""
    imports = """
        import os, pathlib, socket, sys
        from polybeast_moe.control import client, inbox
        from polybeast_moe.control.protocol import Command, encode_reply, parse_command
        from polybeast_moe.errors import UserError
        from waiting import wait_until
        os.setuid(65534)
        where = sys.argv[1]
    """
    code = textwrap.dedent(imports) + textwrap.dedent(act)
    path = os.pathsep.join(map(str, (Path(polybeast_moe.__file__).parents[1], Path(waiting.__file__).parent)))
    return subprocess.Popen([sys.executable, "-c", code, str(where)], env={**os.environ, "PYTHONPATH": path})


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_root_reaches_another_users_trainer_through_the_inbox(open_folder: Path) -> None:
    train = """
        folder = inbox.open_inbox(pathlib.Path(where))
        [(identity, message)] = wait_until(lambda: list(inbox.commands_in(folder)))
        inbox.answer(folder, identity, encode_reply({"heard": parse_command(message).name}))
    """
    with as_nobody(train, open_folder) as trainer:
        wait_until((open_folder / inbox.FOLDER).exists)
        assert client.send(open_folder, Command("status"), use_inbox=True) == {"heard": "status"}
        assert trainer.wait() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_users_inbox_is_said_to_be_that(open_folder: Path) -> None:
    inbox.open_inbox(open_folder)

    ask = """
        try:
            client.send(pathlib.Path(where), Command("status"), use_inbox=True)
        except UserError as error:
            assert "its trainer is another user's" in str(error)
        else:
            sys.exit("it was sent")
    """
    assert as_nobody(ask, open_folder).wait() == 0


def raw(listening, message: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(PATIENCE)
        end.connect(str(listening.server._path))
        end.sendall(message)
        end.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while more := end.recv(65536):
                answer += more
        except ConnectionResetError:  # it did not care to read all
            pass
        return answer


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(MESSAGES, max_size=3))
def test_fuzzed_bytes_get_answers_and_harm_nobody(listening, messages: list[bytes]) -> None:
    for line in raw(listening, b"\n".join(messages)).splitlines():
        result, refusal = attempt(parse_reply, line)
        assert isinstance(result, dict) or refusal
    assert client.send(listening.server.run_dir, Command("status"))["command"] == "status"


def test_too_long_a_line_and_somebody_who_says_nothing_hold_nobody_up(listening) -> None:
    assert b"at most" in raw(listening, b"x" * (LONGEST_COMMAND + 1))
    silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    try:
        for end in silent:
            end.connect(str(listening.server._path))
        assert client.send(listening.server.run_dir, Command("status"))["command"] == "status"
    finally:
        for end in silent:
            end.close()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(MESSAGES)
def test_fuzzed_files_in_the_inbox_get_answers_too(listening, message: bytes) -> None:
    folder = listening.server.run_dir / inbox.FOLDER
    reply = inbox.ask(listening.server.run_dir, message, PATIENCE)
    assert isinstance(json.loads(reply), dict)
    assert not [entry for entry in folder.iterdir() if not entry.name.endswith(".reply")]


def test_what_is_no_ordinary_file_is_removed_unread(listening, tmp_path: Path) -> None:
    folder = listening.server.run_dir / inbox.FOLDER
    secret = tmp_path / "secret"
    secret.write_bytes(Command("stop").encode())
    (folder / "a.command").symlink_to(secret)
    (folder / "b.command").mkdir()
    os.mkfifo(folder / "c.command")
    assert client.send(listening.server.run_dir, Command("status"), use_inbox=True)["command"] == "status"
    wait_until(lambda: not list(folder.glob("*.command")))
    assert secret.exists()


def test_nobody_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nobody is training there"):
        client.send(tmp_path, Command("status"))
    (tmp_path / "control.sock").write_text("/nowhere/control.sock\n")
    with pytest.raises(UserError, match="nobody is training there"):
        client.send(tmp_path, Command("status"))


def test_a_killed_trainers_leavings_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "1.command").write_bytes(Command("stop").encode())  # meant for the trainer that is gone
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    found = Listening(tmp_path, tmp_path / "private")
    try:
        assert client.send(tmp_path, Command("status"))["command"] == "status"
        assert not list((tmp_path / "control").iterdir())
    finally:
        found.close()


def test_who_waits_when_the_run_ends_is_told(tmp_path: Path) -> None:
    server = ControlServer(tmp_path, tmp_path, print)
    answers: list[str] = []

    def ask(use_inbox: bool) -> None:
        try:
            client.send(tmp_path, Command("status"), use_inbox=use_inbox)
        except UserError as error:
            answers.append(str(error))

    threads = [threading.Thread(target=ask, args=(use_inbox,)) for use_inbox in (False, True)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server._orders.qsize() == 2)
    with socket.socket(socket.AF_UNIX) as late:
        late.settimeout(PATIENCE)
        late.connect(str(tmp_path / "control.sock"))
        late.sendall(b"hello\n")
        assert b"not a JSON object" in late.recv(1000)
        server.close()
        late.sendall(Command("status").encode())  # over a connection that has outlived the run
        assert b"the run has ended" in late.recv(1000)
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == 2 * ["the run has ended"]


def test_a_trainer_that_ends_without_an_answer_is_not_waited_for(tmp_path: Path) -> None:
    folder = inbox.open_inbox(tmp_path)
    threading.Timer(0.3, shutil.rmtree, [folder]).start()
    with pytest.raises(UserError, match="its trainer has ended"):
        inbox.ask(tmp_path, Command("status").encode(), patience=60)
