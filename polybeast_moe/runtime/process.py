"""What a process of ours sets about itself: allocator, caches, name, whom it dies with, how it is asked to stop."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

REQUEUE_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later
_BOUNCE_SECONDS = 1.0  # a bouncing key, or a signal to the group and to the process, is one request
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # sys/prctl.h
_TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def keep_freed_memory() -> None:
    """Tells glibc to keep large blocks that are freed instead of returning them to the system after every update.

    Otherwise torch on a CPU spends about half of a large update in page faults. Does nothing without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    if not mallopt(_M_MMAP_THRESHOLD, 1 << 30):
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc took before 2.35; else it would stay at 128 KiB
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_M_TOP_PAD, 64 << 20)


@contextlib.contextmanager
def torch_cache_in(folder: Path) -> Iterator[None]:
    """Has torch, here and in child processes, keep its compiler's cache below `folder` unless the user has chosen one.

    Making an optimiser is enough for torch to make that folder, by default in the system's temporary directory, where
    it would be left behind.
    """
    if _TORCH_CACHE in os.environ:
        yield
        return
    os.environ[_TORCH_CACHE] = str(folder / "torch")
    try:
        yield
    finally:
        os.environ.pop(_TORCH_CACHE, None)


def name_process(name: str) -> None:
    """Gives this process a name for ps and htop (at most 15 characters are kept)."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however that happens; ends it if that has happened."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class StopRequests:
    """Turns SIGINT, SIGTERM, SIGHUP and SIGUSR1 into a flag while entered; a second one, later, acts as it did before.

    SIGUSR1 is how a job scheduler says that time is nearly up: the run ends with `REQUEUE_CODE`. `signal_number` is the
    signal that asked first, None while none has.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._asked = False
        self._asked_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()

    def __call__(self) -> bool:
        """Returns whether the process has been asked to stop."""
        return self._asked or self.signal_number is not None

    def ask(self) -> None:
        """Asks to stop without a signal."""
        self._asked = True

    @property
    def reason(self) -> str:
        """Who asked, as the end of a sentence."""
        if self.signal_number is None:
            return "by an operator"
        return "to be requeued" if self.signal_number == signal.SIGUSR1 else "by a signal"

    @property
    def exit_code(self) -> int:
        """0 for an operator, REQUEUE_CODE after SIGUSR1, else 128 + the signal's number."""
        if self.signal_number is None:
            return 0
        return REQUEUE_CODE if self.signal_number == signal.SIGUSR1 else 128 + self.signal_number

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
            self._asked_at = time.monotonic()
        elif time.monotonic() - self._asked_at > _BOUNCE_SECONDS:
            self._put_back()
            signal.raise_signal(number)

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
