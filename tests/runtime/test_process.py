"""Signals become a flag, and the second one acts as it did before; what torch frees stays with the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from polybeast_moe.runtime import process
from polybeast_moe.runtime.process import StopRequests, keep_freed_memory

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with StopRequests() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert stop.signal_number == number
    assert stop()
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts Python; a shell has it ignored by what runs in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_key_that_bounces_asks_once_and_a_later_interrupt_is_not_held_back(
    monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with StopRequests() as stop:
        signal.raise_signal(signal.SIGINT)
        now += 0.1
        signal.raise_signal(signal.SIGINT)
        assert stop()
        now += 2.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_without_a_signal_everything_is_as_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequests() as stop:
        assert signal.getsignal(signal.SIGTERM) != before
    assert not stop()
    assert signal.getsignal(signal.SIGTERM) == before


FREED = """
import ctypes, sys
from polybeast_moe.runtime.process import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

for _ in range(int(sys.argv[1])):
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
block = libc.malloc(ctypes.c_size_t(64 << 20))
ctypes.memset(block, 1, 64 << 20)
before = resident()
libc.free(ctypes.c_void_p(block))
print(before - resident())
"""


@pytest.mark.parametrize(("calls", "given_back"), [(0, True), (1, False), (2, False)])
def test_a_large_block_that_is_freed_stays_with_the_process(calls: int, given_back: bool) -> None:
    """So that the next update finds its pages; without it the C library gives them back at once."""
    done = subprocess.run([sys.executable, "-c", FREED, str(calls)], capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 32 << 20) == given_back


def test_an_older_allocator_gets_the_most_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """glibc before 2.35 refuses a threshold above 32 MiB; without any it would map every block of 128 KiB anew."""
    taken: dict[int, int] = {}

    class Older:
        def mallopt(self, option: int, value: int) -> int:
            if option == -3 and value > 32 << 20:
                return 0
            taken[option] = value
            return 1

    monkeypatch.setattr(process.ctypes, "CDLL", lambda _: Older())
    keep_freed_memory()
    assert taken == {-3: 32 << 20, -1: (1 << 31) - 1, -2: 64 << 20}
