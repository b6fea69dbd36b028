"""The tables of a report as text, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from polybeast_moe.evaluation.breakdowns import Endings, ScoreParts, Segment, ending_names
from polybeast_moe.evaluation.report_data import RunData
from polybeast_moe.evaluation.score import SCORE_PARTS
from polybeast_moe.evaluation.tables import (
    BUCKET_NAMES,
    RANDOM_POLICY,
    PhaseRow,
    Verdict,
    bucket_shares,
    scores_by_phase,
)

NONE = "-"
Grid = list[list[str]]  # a table's header, then its rows
_NUMBER = re.compile(r"\[?[-+]?\d[\d,.]*( |,|\]|$)|-$")
_LONG = 30  # characters of a cell that may wrap


def number(value: float | None, form: str = ".2f") -> str:
    """Returns a number in a format, a dash for None."""
    return NONE if value is None else format(value, form)


def plus_minus(value: float | None, error: float | None, form: str = ".2f") -> str:
    """Returns ``value ± error``."""
    return number(value, form) if value is None or error is None else f"{value:{form}} ± {error:{form}}"


def amount(count: int) -> str:
    """Returns a count in at most six characters: ``950``, ``12.3 k``, ``1.23 M``."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= size:
            scaled = count / (10**3 if unit == "k" else size)
            return f"{scaled:.3g} {unit}" if scaled < 999.5 else f"{scaled:.0f} {unit}"
    return str(count)


# Header of the report, header of the terminal (by lines), cell, and whether it gives way on a narrow terminal.
_Column = tuple[str, str, Callable[[PhaseRow], str], bool]
_PHASE_COLUMNS: tuple[_Column, ...] = (
    ("phase", "phase", lambda row: row.phase, False),
    ("episodes", "epi-\nsodes", lambda row: str(row.episodes), False),
    ("frames", "frames", lambda row: amount(row.frames), False),
    ("minutes", "min", lambda row: number(row.minutes, ".1f"), True),
    ("frames/s", "frames\n/s", lambda row: number(row.frames_per_second, ".0f"), False),
    ("mean score ± se", "mean score\n± se", lambda row: plus_minus(row.mean_score, row.standard_error, ".1f"), False),
    ("sd", "sd", lambda row: number(row.score_sd, ".1f"), True),
    ("median", "me-\ndian", lambda row: number(row.median_score, "g"), False),
    ("max", "max", lambda row: number(row.max_score, ".0f"), False),
    (
        "alpha entropy ± sd",
        "alpha\nentropy ± sd",
        lambda row: plus_minus(row.alpha_entropy, row.alpha_entropy_sd),
        True,
    ),
    ("usage entropy", "usage\nentr.", lambda row: number(row.usage_entropy), False),
    ("routing information", "inform-\nation", lambda row: number(row.routing_information), False),
)
_SHORT_ALPHA: _Column = ("alpha entropy", "alpha\nentr.", lambda row: number(row.alpha_entropy), False)


def print_phase_table(rows: Sequence[PhaseRow], console: Console | None = None) -> None:
    """Prints the phase table: every column at 98 columns or more, the most important ones on a narrower terminal."""
    console = console or Console()
    columns = list(_PHASE_COLUMNS)
    if console.width < 98:
        columns[9] = _SHORT_ALPHA
        columns = [column for column in columns if not column[3]]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, caption="entropies and information in nats")
    table.caption_justify = "left"
    for index, (_, header, _, _) in enumerate(columns):
        left = index == 0
        table.add_column(header, justify="left" if left else "right", no_wrap=True, max_width=14 if left else None)
    for row in rows:
        cells = [cell(row) for _, _, cell, _ in columns]
        table.add_row(*cells, style="dim" if row.phase == RANDOM_POLICY else "", end_section=False)
    console.print(table, highlight=False)


def phase_grid(rows: Sequence[PhaseRow]) -> Grid:
    """Returns the phase table."""
    return [
        [title for title, _, _, _ in _PHASE_COLUMNS],
        *([cell(row) for _, _, cell, _ in _PHASE_COLUMNS] for row in rows),
    ]


def verdict_grid(verdicts: Sequence[Verdict]) -> Grid:
    """Returns the targets, what was reached and whether they were met."""
    cells = [[v.phase, v.figure.replace("_", " "), v.expected, number(v.reached), v.result] for v in verdicts]
    return [["phase", "figure", "expected", "reached", "verdict"], *cells]


def bucket_grid(run: RunData) -> Grid:
    """Returns the share of episodes in each score bucket, by phase."""
    grid = [["phase", "episodes", *BUCKET_NAMES]]
    for phase, scores in scores_by_phase(run).items():
        shares = [f"{100 * share:.1f} %" if len(scores) else NONE for share in bucket_shares(scores)]
        grid.append([phase, str(len(scores)), *shares])
    return grid


def segment_grid(segments: Sequence[Segment]) -> Grid:
    """Returns segments of episodes: scores in points, alpha entropy in nats."""
    header = ["episodes", "phases", "mean score ± se", "median", "max", "alpha entropy"]
    return [
        header,
        *(
            [
                f"{segment.first:,} to {segment.last:,}",
                ", ".join(segment.phases),
                plus_minus(segment.mean_score, segment.standard_error, ".1f"),
                number(segment.median_score, "g"),
                number(segment.max_score, ".0f"),
                number(segment.alpha_entropy),
            ]
            for segment in segments
        ),
    ]


def parts_grid(found: Sequence[ScoreParts]) -> Grid:
    """Returns what mean scores are made of, in points and as shares."""
    rows = [
        [
            group.phase,
            str(group.episodes),
            number(group.mean_score, ".1f"),
            *(
                f"{points:.1f} ({100 * points / group.mean_score:.0f} %)" if group.mean_score else f"{points:.1f}"
                for points in (group.parts[name] for name in SCORE_PARTS)
            ),
        ]
        for group in found
    ]
    return [["phase", "episodes", "mean score", *SCORE_PARTS], *rows]


def endings_grid(found: list[Endings]) -> Grid:
    """Returns how games ended, as shares, beside their mean length in steps and their depth."""
    names = ending_names(found)
    rows = [
        [
            group.phase,
            str(group.episodes),
            number(group.mean_length, ".0f"),
            number(group.mean_depth),
            number(group.max_depth, ".0f"),
            *(f"{100 * group.shares.get(name, 0.0):.1f} %" for name in names),
        ]
        for group in found
    ]
    return [["phase", "episodes", "mean length (steps)", "mean depth", "deepest", *names], *rows]


def deaths_grid(found: list[Endings], most: int = 12) -> Grid:
    """Returns what heroes died of: the causes that come up most, as shares of all episodes by phase."""
    total: Counter[str] = Counter()
    for group in found:
        total.update(group.deaths)
    named = [death for death, _ in total.most_common(most)]
    rows = [[death, *(_share(group.deaths.get(death, 0), group) for group in found)] for death in named]
    if len(total) > most:
        others = [sum(group.deaths.values()) - sum(group.deaths.get(death, 0) for death in named) for group in found]
        rows.append(["anything else", *(_share(count, group) for count, group in zip(others, found, strict=True))])
    return [["cause of death", *(group.phase for group in found)], *rows]


def _share(count: int, group: Endings) -> str:
    return f"{100 * count / group.episodes:.1f} %"


def event_grid(events: Sequence[Mapping[str, Any]]) -> Grid:
    """Returns what the phase controller, guards and human operators changed."""
    rows = [
        [
            f"{event.get('frames', 0):,}",
            f"{event.get('episodes', 0):,}",
            str(event.get("phase", NONE)),
            str(event.get("key", NONE)),
            setting(event.get("old")),
            setting(event.get("new")),
            str(event.get("by", NONE)),
        ]
        for event in events
    ]
    return [["frames", "episodes", "phase", "key", "old", "new", "by"], *rows]


def setting(value: Any) -> str:
    """Returns a setting's value in short: ``1 → 0.5`` for a ramp."""
    if value is None:
        return NONE
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping) and {"from", "to"} <= value.keys():
        shape = value.get("shape", "linear")
        return f"{setting(value['from'])} → {setting(value['to'])}" + ("" if shape == "linear" else f" ({shape})")
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting(inner)}" for name, inner in value.items())
    return str(value)


def markdown_table(grid: Grid) -> str:
    """Returns a table in Markdown, columns of numbers to the right."""
    header, *rows = [[cell.replace("|", "\\|") for cell in cells] for cells in grid]
    rule = ["---:" if of_numbers else "---" for of_numbers in _number_columns(grid)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)) + "\n"


def html_table(grid: Grid) -> str:
    """Returns a table in HTML; cells carry what their style depends on as classes: text, long, a verdict's result."""
    header, *rows = [[html.escape(cell).replace(" ± ", "&nbsp;±&nbsp;") for cell in cells] for cells in grid]
    texts = ["" if of_numbers else "text" for of_numbers in _number_columns(grid)]

    def classes(index: int, cell: str = "") -> str:
        names = [texts[index], "long" if len(cell) > _LONG else "", cell if cell in ("met", "missed") else ""]
        present = " ".join(name for name in names if name)
        return f' class="{present}"' if present else ""

    head = "".join(f'<th scope="col"{classes(index)}>{cell}</th>' for index, cell in enumerate(header))
    body = "".join(
        "<tr>"
        + f'<th scope="row"{classes(0)}>{row[0]}</th>'
        + "".join(f"<td{classes(index, cell)}>{cell}</td>" for index, cell in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _number_columns(grid: Grid) -> list[bool]:
    """Whether each column holds numbers (with their error, unit or interval) and dashes, and nothing else."""
    rows = grid[1:]
    return [index > 0 and all(_NUMBER.match(row[index]) for row in rows) for index in range(len(grid[0]))]
