"""Tables of a report as Markdown and HTML."""

from __future__ import annotations

from polybeast_moe.evaluation.breakdowns import Endings
from polybeast_moe.evaluation.report_text import deaths_grid, html_table, markdown_table

GRID = [
    ["phase", "mean score ± se", "interval", "share", "routing", "verdict"],
    ["warmup", "14.5 ± 1.8", "[-0.1, 0.3]", "9.7 (67 %)", "softmax", "met"],
    ["finetune", "-", "-", "+1,234.5 k", "a long <description> of what was set, and why", "missed"],
]


def test_columns_of_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    assert markdown_table(GRID).splitlines()[1] == "| --- | ---: | ---: | ---: | --- | --- |"
    page = html_table(GRID)
    assert '<td class="text">softmax</td>' in page
    assert "<td>9.7 (67 %)</td>" in page


def test_cells_carry_their_verdict_and_whether_they_may_wrap() -> None:
    page = html_table(GRID)
    assert '<td class="text met">met</td>' in page
    assert '<td class="text long">a long &lt;description&gt; of' in page
    assert "14.5&nbsp;±&nbsp;1.8" in page


def endings(phase: str, episodes: int, deaths: dict[str, int]) -> Endings:
    return Endings(phase, episodes, {}, deaths, None, None, None)


def test_causes_of_death_are_shares_of_all_episodes_the_most_frequent_first() -> None:
    found = [
        endings("warmup", 10, {"killed by a newt": 1, "killed by a jackal": 2}),
        endings("finetune", 20, {"killed by a jackal": 1, "starved": 1}),
    ]
    assert deaths_grid(found, most=2) == [
        ["cause of death", "warmup", "finetune"],
        ["killed by a jackal", "20.0 %", "5.0 %"],
        ["killed by a newt", "10.0 %", "0.0 %"],
        ["anything else", "0.0 %", "5.0 %"],
    ]
