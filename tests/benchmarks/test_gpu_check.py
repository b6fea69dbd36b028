"""The check of a GPU says of every part what it measured, or why it did not."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import imported


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    for modules in imported(monkeypatch, "gpu"):
        yield modules.gpu


def test_what_needs_a_gpu_says_that_it_did_not_run(gpu) -> None:
    outcomes = [gpu.attempt(name, False, 1e9, True) for name, part in gpu.PARTS.items() if part.needs == gpu.GPU]
    assert len(outcomes) >= 8
    page = gpu.table(outcomes)
    assert page.count("did not run: torch finds no GPU") == len(outcomes)
    assert not any(outcome.failed for outcome in outcomes)


def test_a_part_without_time_is_left_out_and_the_parts_together_have_it(gpu) -> None:
    name = "update, float32"
    assert gpu.attempt(name, True, 5.0, True).said == "did not run: only 5 s were left"
    assert gpu.attempt(name, True, -3.0, True).said == "did not run: only 0 s were left"


def test_a_part_that_fails_says_its_last_words(gpu, monkeypatch, tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text("raise ValueError('no such kernel')")
    monkeypatch.setattr(gpu, "__file__", str(program))
    outcome = gpu.attempt("update, float32", True, 1e9, True)
    assert outcome.failed
    assert outcome.said == "FAILED: ValueError: no such kernel"


def test_a_table_has_a_row_a_figure(gpu) -> None:
    page = gpu.table([gpu.Outcome("one", [("a", "1 us"), ("b", "2 us")]), gpu.Outcome("two", [], "did not run")])
    assert page.splitlines()[2:] == ["| one | a | 1 us |", "|  | b | 2 us |", "| two |  | did not run |"]


def test_tests_are_counted_by_their_marks(gpu) -> None:
    assert gpu.outcome("..s.  [ 50%]\n....s [100%]\n==== slowest ====\n") == "7 passed, 2 skipped"
    assert gpu.outcome("") == "none"
