"""Waiting for what has to come, however busy the machine is: patience costs nothing where it comes soon."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 240.0  # seconds: less than those after which pytest ends a test, so that the test itself says what it lacks
PAUSE = 0.02


def wait_until(done: Callable[[], T], process: subprocess.Popen[str] | None = None, patience: float = PATIENCE) -> T:
    """Returns the first answer of `done` that is true. Fails when none comes in time, or `process` has ended."""
    deadline = time.monotonic() + patience
    while not (found := done()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"not within {patience:.0f} s"
        time.sleep(PAUSE)
    return found


def settles(look: Callable[[], T], still_for: float = 0.5, patience: float = PATIENCE) -> T:
    """Returns what `look` gives once it has given the same for `still_for` seconds. Fails when it goes on changing.

    On a busy machine something that moves may seem to rest, never the other way round.
    """
    deadline = time.monotonic() + patience
    last, since = look(), time.monotonic()
    while time.monotonic() - since < still_for:
        assert time.monotonic() < deadline, f"it has not come to rest within {patience:.0f} s"
        time.sleep(PAUSE)
        if (now := look()) != last:
            last, since = now, time.monotonic()
    return last


def soon(check: Callable[[], None], patience: float = PATIENCE) -> None:
    """Makes an assertion until it holds; the last failure is the test's when it never does."""
    deadline = time.monotonic() + patience
    while True:
        try:
            check()
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)
