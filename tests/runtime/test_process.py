"""Signals become a flag; the second one acts as it did before."""

from __future__ import annotations

import os
import signal

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


def test_a_key_that_bounces_asks_once_and_a_later_interrupt_is_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_tuning_the_allocator_is_harmless_twice() -> None:
    keep_freed_memory()
    keep_freed_memory()


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
