"""How plots look."""

from __future__ import annotations

from polybeast_moe.evaluation.plotting import LINES, count_axis, new_plot, series_line
from polybeast_moe.evaluation.tables import RANDOM_POLICY


def test_the_random_policy_looks_like_no_phase() -> None:
    assert series_line(RANDOM_POLICY, 4) not in LINES
    assert series_line("warmup", 5) == LINES[1]


def test_a_count_that_stays_zero_gets_an_axis_up_to_one_in_whole_numbers() -> None:
    figure, (axes,) = new_plot(1, 2.0)
    axes.plot([0, 1], [0, 0])
    count_axis(axes)
    figure.canvas.draw()
    assert axes.get_ylim() == (0, 1)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]
