"""How games end, in words."""

from __future__ import annotations

from polybeast_moe.evaluation.endings import count_deaths, ending


def test_every_number_has_words() -> None:
    assert (ending(0), ending(-1), ending(99)) == ("killed", "alive at the step limit", "end 99")


def test_only_deaths_are_counted_the_most_frequent_first() -> None:
    ends = [(13, "quit"), (0, "killed by a newt"), (0, "killed by a jackal"), (-1, ""), (0, "killed by a jackal")]
    assert list(count_deaths(ends).items()) == [("killed by a jackal", 2), ("killed by a newt", 1)]


def test_a_cause_that_was_not_recorded_is_no_cause() -> None:
    assert count_deaths([(0, "")]) == {}
